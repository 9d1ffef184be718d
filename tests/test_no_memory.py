"""The C core when memory runs out: each allocation of each of its calls fails once, and nothing worse comes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from klyng_mp import native

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)
pytest.importorskip("_testcapi", reason="this Python comes without _testcapi, which lets allocations fail")

from memorywork import locks, matching, ports, queues, shortway  # noqa: F401 - they register their scenarios
from memorywork.driver import SCENARIOS

TESTS = Path(__file__).resolve().parent
PATHS = {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_failing_allocation_is_an_error_and_no_more(run_python, name):
    done = run_python("-m", "memorywork", name, env=PATHS, timeout=60)
    if "it leaves" in done.stderr:  # what CPython itself keeps differs, once in some hundred processes
        done = run_python("-m", "memorywork", name, env=PATHS, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


DRIVEN = """
from memorywork.driver import drive
kept = []
def call():
    try:
        {call}
    except MemoryError:
        {failure}
def scenario():
    got = yield call
    assert got.error is None or got.hit
print(drive(scenario, "one"))
"""


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("raise", ""),
        (
            "kept.append(bytes(40)); raise",
            "blocks and 0 references behind\n(allocation 0 fails)\n",
        ),
        ("raise SystemError", "SystemError\n(allocation 0 fails)\n"),
        ("import os; os.abort()", "Aborted"),
    ],
    ids=["good", "leaking", "wrong", "crashing"],
)
def test_the_driver_finds_what_it_looks_for(run_python, failure, said):
    code = DRIVEN.format(call="[bytes(1000), bytes(1000)]", failure=failure)
    done = run_python(
        "-X", "faulthandler", "-c", code, env={**PATHS, "PYTHONMALLOC": "pymalloc"}
    )  # malloc counts no blocks
    assert said in done.stderr
    if said:
        assert (done.returncode != 0, done.stdout) == (True, "")
    else:
        assert int(done.stdout) > 2, "two objects and their list"
