"""The names of klyng_mp.MPI: mpi4py has each of them, with the same parameters and defaults."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from klyng_mp import MPI

WANTED = """
COMM_WORLD COMM_SELF COMM_NULL Comm Intracomm Cartcomm Group Status Request Message Op Datatype Exception
ANY_SOURCE ANY_TAG PROC_NULL UNDEFINED IN_PLACE SUM PROD MAX MIN LAND LOR LXOR BAND BOR BXOR MAXLOC MINLOC
DOUBLE FLOAT INT LONG BYTE CHAR BOOL COMPLEX INT32_T UINT8_T DOUBLE_INT Wtime Wtick Compute_dims Init Finalize
Get_processor_name Get_version Get_library_version Is_initialized REQUEST_NULL GROUP_EMPTY GROUP_NULL COMM_TYPE_SHARED
"""


def test_mpi4py_has_each_name_with_the_same_parameters_and_defaults(run_python):
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    done = run_python(Path(__file__).with_name("signatures.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {}


def test_the_names_that_programs_use_are_there():
    assert [name for name in WANTED.split() if not hasattr(MPI, name)] == []
    assert set(WANTED.split()) <= set(MPI.__all__)


def test_every_listed_name_is_there_once():
    assert len(MPI.__all__) == len(set(MPI.__all__))
    assert [name for name in MPI.__all__ if not hasattr(MPI, name)] == []


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Win", "messages"),
        ("File", "gather"),
        ("Intercomm", "Split"),
        ("BOTTOM", "buffer"),
        ("Nonsense", "docs/mpi4py"),
    ],
)
def test_a_name_that_is_not_there_says_what_to_use(name, word):
    with pytest.raises(AttributeError, match=rf"klyng_mp.MPI has no {name}: .*{word}"):
        getattr(MPI, name)


@pytest.mark.parametrize(
    ("owner", "name", "word"),
    [
        (MPI.COMM_WORLD, "Spawn", "World"),
        (MPI.COMM_WORLD, "Ibsend", "copied"),
        (MPI.COMM_WORLD, "Create_graph", "Create_cart"),
        (MPI.COMM_WORLD, "Nonsense", "docs/mpi4py"),
        (MPI.DOUBLE, "Create_vector", "contiguous"),
    ],
)
def test_so_does_a_method(owner, name, word):
    with pytest.raises(AttributeError, match=rf"klyng_mp has no .*{name}: .*{word}"):
        getattr(owner, name)


def test_importing_klyng_mp_does_not_import_it(run_python):
    done = run_python("-c", "import sys, klyng_mp; print('klyng_mp.MPI' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_importing_it_does_not_import_numpy(run_python):
    done = run_python("-c", "import sys; from klyng_mp import MPI; print('numpy' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_all_that_klyng_mp_raises_is_an_exception_of_mpi():
    with pytest.raises(MPI.Exception):
        MPI.COMM_NULL.Get_size()
