"""The C core under AddressSanitizer and UndefinedBehaviorSanitizer: built for them, and given its own tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TESTS_OF_THE_CORE = [
    "tests/wire/test_mailbox.py",
    "tests/transports/test_shm.py",
    "tests/communicator/test_express.py",
    "tests/cluster/test_lane.py",
    "tests/communicator/test_local.py",
    "tests/test_native.py",
    "tests/test_synchronize.py",
    "tests/test_queues.py",
    *(["tests/test_no_memory.py"] if find_spec("_testcapi") else []),
]


def library(name):
    """Return where the compiler keeps a sanitizer's library, or skip."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc, and so no sanitizers")
    path = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"gcc has no {name}")
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_core_is_clean_under_sanitizers(tmp_path):
    preload = " ".join(library(name) for name in ("libasan.so", "libubsan.so"))
    for name in ("klyng_mp", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {**os.environ, "KLYNG_MP_NATIVE": "1", "KLYNG_MP_SANITIZE": "address,undefined", "TMPDIR": str(temporary)}
    built = tmp_path / "built"
    build = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(built), str(tmp_path)]
    done = subprocess.run(build, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (core,) = (built / "klyng_mp").glob("_core.*.so")
    shutil.copy(core, tmp_path / "klyng_mp")
    env |= {
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # the interpreter itself frees little at its end
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # so that each object has its own redzones
        "PYTHONPATH": str(tmp_path),
        "KLYNG_MP_TEST_TIMEOUT_FACTOR": "10",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "--timeout",
        "600",
        *TESTS_OF_THE_CORE,
    ]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " skipped" not in done.stdout.splitlines()[-1]
