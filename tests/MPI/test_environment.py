"""The constants and functions of the module."""

from __future__ import annotations

import pickle
import threading

import pytest

import klyng_mp
from klyng_mp import MPI


def test_what_says_that_a_part_is_in_place_travels():
    for one in (MPI.IN_PLACE, MPI.INFO_NULL, MPI.ERRORS_RETURN):
        assert pickle.loads(pickle.dumps(one)) is one
    assert not MPI.IN_PLACE
    assert not MPI.INFO_NULL
    assert (repr(MPI.IN_PLACE), repr(MPI.INFO_NULL), repr(MPI.ERRORS_RETURN)) == (
        "IN_PLACE",
        "INFO_NULL",
        "ERRORS_RETURN",
    )


def test_the_values_that_klyng_mp_has_are_its_own():
    assert (MPI.ANY_SOURCE, MPI.ANY_TAG) == (klyng_mp.ANY_SOURCE, klyng_mp.ANY_TAG)


def test_threads():
    assert MPI.Init_thread(MPI.THREAD_SINGLE) == MPI.Query_thread() == MPI.THREAD_MULTIPLE
    assert MPI.Is_thread_main()
    found = []
    thread = threading.Thread(target=lambda: found.append(MPI.Is_thread_main()))
    thread.start()
    thread.join()
    assert found == [False]


def test_versions():
    assert MPI.Get_version() == (MPI.VERSION, MPI.SUBVERSION)
    assert MPI.Get_library_version() == f"klyng_mp {klyng_mp.__version__}"
    name, numbers = MPI.get_vendor()
    assert (name, ".".join(map(str, numbers))) == ("klyng_mp", klyng_mp.__version__)


def test_time_goes_on():
    MPI.Init()
    assert MPI.Is_initialized()
    begin = MPI.Wtime()
    assert MPI.Wtime() >= begin
    assert 0 < MPI.Wtick() < 1


@pytest.mark.parametrize(
    ("points", "dims", "expected"),
    [(6, 2, [3, 2]), (6, [0, 0], [3, 2]), (6, [2, 0], [2, 3]), (6, [2, 3], [2, 3]), (7, 1, [7]), (1, 3, [1, 1, 1])],
)
def test_dimensions_of_a_grid(points, dims, expected):
    assert MPI.Compute_dims(points, dims) == expected


@pytest.mark.parametrize("dims", [[4, 0], [2, 2]])
def test_what_is_no_grid_of_so_many_points(dims):
    with pytest.raises(ValueError, match="no grid of 6 points"):
        MPI.Compute_dims(6, dims)


def finalize():
    before = MPI.Is_finalized()
    MPI.Finalize()
    return before, MPI.Is_finalized()


def test_the_end_is_that_of_the_run():
    with klyng_mp.World(1) as world:
        assert [world.run(finalize) for _ in range(2)] == [[(False, True)]] * 2
