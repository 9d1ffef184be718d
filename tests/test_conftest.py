"""The check that every test has: it must see what is left behind, and must not see what is not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LEAVES = {
    "fds": "kept.append(os.open('/dev/null', os.O_RDONLY))",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "processes": "kept.append(subprocess.Popen(['sleep', '30']))",
    "processes: a child by fork": "os.fork() or signal.pause()",
    "processes: a zombie": "os.fork() or os._exit(0)",
    "processes: an orphan": "subprocess.run(['sh', '-c', 'sleep 30 & exit'])",
    "processes: an orphan in a session of its own": "subprocess.run(['setsid', '--fork', 'sleep', '30'])",
    "files: in the test's folder": "open(tempfile.mktemp(), 'w').close()",
    "files: of a child": "subprocess.run(['sh', '-c', 'touch $TMPDIR/left'])",
    "files: in shared memory": "kept.append(name := f'/dev/shm/kmp-{os.getpid()}'); open(name, 'w').close()",
}
LEAVES_NOTHING = {
    "fds": "os.close(os.open('/dev/null', os.O_RDONLY))",
    "fds that only the collector closes": "cycle = [open('/dev/null')]; cycle.append(cycle)",
    "threads that end soon": "threading.Timer(0.1, print).start()",
    "processes": "subprocess.run(['sleep', '0'])",
    "an orphan that ends soon": "subprocess.run(['sh', '-c', 'sleep 0.1 & exit'])",
    "spawn and its tracker": "child = spawn.Process(target=print); child.start(); child.join(); child.close()",
    "files": "tempfile.TemporaryFile().close()",
    "shared memory": "memory = SharedMemory(create=True, size=9); memory.close(); memory.unlink()",
}
EXCUSED = {
    "what it does": ("fds", LEAVES["fds"]),
    "another kind": ("files", LEAVES["fds"]),
}
HEAD = """
import atexit, multiprocessing, os, signal, subprocess, sys, tempfile, threading
from multiprocessing.shared_memory import SharedMemory
import pytest
pytestmark = pytest.mark.filterwarnings("ignore")
spawn = multiprocessing.get_context("spawn")
kept = []
atexit.register(lambda: [os.unlink(name) for name in kept if isinstance(name, str)])
def test_scale(time_limit): assert time_limit(10) == 5
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Run all those statements as tests under a copy of the conftest; return what became of each."""
    folder = tmp_path_factory.mktemp("inner")
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    lines = [HEAD]
    for table, cases in (("leaves", LEAVES), ("clean", LEAVES_NOTHING)):
        lines += [f"def test_{table}_{number}(): {code}" for number, code in enumerate(cases.values())]
    for number, (kind, code) in enumerate(EXCUSED.values()):
        lines += [f"@pytest.mark.may_leave('{kind}', why='to see')", f"def test_excused_{number}(): {code}"]
    (folder / "test_inner.py").write_text("\n".join(lines))
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    environment = {**os.environ, "KLYNG_MP_TEST_TIMEOUT_FACTOR": "0.5", "COLUMNS": "500"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found = {}
    for word, name, rest in re.findall(
        r"^(PASSED|FAILED|ERROR) test_inner\.py::test_(\w+)(.*)$", done.stdout, re.MULTILINE
    ):
        found[name] = "left behind " + rest.partition("left behind ")[2] if word == "ERROR" else found.get(name, word)
    assert len(found) == 1 + len(LEAVES) + len(LEAVES_NOTHING) + len(EXCUSED), done.stdout
    return found


@pytest.mark.parametrize("what", LEAVES)
def test_what_is_left_behind_is_an_error(outcomes, what):
    outcome = outcomes[f"leaves_{list(LEAVES).index(what)}"]
    assert outcome.startswith(f"left behind {what.partition(':')[0]}: ")
    assert ";" not in outcome, "it was one kind of thing"


@pytest.mark.parametrize("what", LEAVES_NOTHING)
def test_what_is_cleaned_up_is_none(outcomes, what):
    assert outcomes[f"clean_{list(LEAVES_NOTHING).index(what)}"] == "PASSED"


def test_a_test_may_be_excused_for_one_kind(outcomes):
    assert outcomes["excused_0"] == "PASSED"
    assert outcomes["excused_1"].startswith("left behind fds")


def test_times_are_scaled(outcomes):
    assert outcomes["scale"] == "PASSED"
