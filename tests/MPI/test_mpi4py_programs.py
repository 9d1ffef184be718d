"""Programs of mpi4py, its tutorial's among them: with the import replaced, each rank prints what it prints there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
RANKS = 4
TIMEOUT = 60 * float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
KLYNG = [sys.executable, "-m", "klyng_mp", "run", "-n", str(RANKS)]
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def launch(words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*map(str, words)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def outputs(command, package, folder):
    """Run all programs, one after the other in the same ranks; return what each rank printed of each."""
    try:
        launch([*command, HERE / "batch.py", package, folder, *PROGRAMS], folder)
    except AssertionError as error:
        last = [json.loads(path.read_text())[-1] for path in sorted(folder.glob("*.json"))]
        raise AssertionError("\n".join([str(error), *(f"{name}: {text}" for name, text in last)])) from None
    by_rank = [dict(json.loads((folder / f"{rank}.json").read_text())) for rank in range(RANKS)]
    return {path.stem: [found[path.stem] for found in by_rank] for path in PROGRAMS}


@pytest.fixture(scope="module")
def with_mpi4py(tmp_path_factory):
    if importlib.util.find_spec("mpi4py") is None or not MPIEXEC.exists() or not shutil.which(MPIEXEC):
        pytest.skip("mpi4py, or the mpiexec of the same environment, is not installed")
    return outputs([MPIEXEC, "-n", str(RANKS), sys.executable], "mpi4py", tmp_path_factory.mktemp("mpi4py"))


@pytest.fixture(scope="module")
def with_klyng(tmp_path_factory):
    return outputs(KLYNG, "klyng_mp", tmp_path_factory.mktemp("klyng"))


@pytest.mark.parametrize("name", [path.stem for path in PROGRAMS])
def test_each_rank_prints_the_same(name, with_mpi4py, with_klyng):
    assert with_klyng[name] == with_mpi4py[name]
    assert any(with_klyng[name]), "a program that prints nothing shows nothing"


def test_a_program_runs_as_it_is_but_for_its_import(tmp_path):
    text = (HERE / "programs" / "bcast_objects.py").read_text()
    changed = tmp_path / "program.py"
    changed.write_text(text.replace("from mpi4py import MPI", "from klyng_mp import MPI"))
    lines = launch([*KLYNG, changed], tmp_path).splitlines()
    assert sorted(re.match(r"\d", line)[0] for line in lines) == [str(rank) for rank in range(RANKS)]


def test_a_program_runs_without_the_core_too(tmp_path):
    names = ["requests", "vectors", "p2p_arrays", "specifications"]
    programs = [HERE / "programs" / f"{name}.py" for name in names]
    launch(["env", "KLYNG_MP_NATIVE=0", *KLYNG, HERE / "batch.py", "klyng_mp", tmp_path, *programs], tmp_path)
    assert [name for name, _ in json.loads((tmp_path / "0.json").read_text())] == names
