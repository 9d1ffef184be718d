"""Communicators, beyond what the programs of mpi4py show."""

from __future__ import annotations

import pickle

import pytest
from mpi_ranks import on_ranks

import klyng_mp
from klyng_mp import MPI


def ask_for_the_world(_):
    comm = MPI.COMM_WORLD
    return comm.rank, comm.size, MPI.COMM_SELF.allreduce(comm.rank), comm == MPI.COMM_WORLD


def test_the_world_is_that_of_the_run():
    assert MPI.COMM_WORLD.size == 1
    with klyng_mp.World(2) as world:
        for _ in range(2):
            assert world.run(ask_for_the_world, MPI.COMM_WORLD) == [(0, 2, 0, True), (1, 2, 1, True)]


def test_a_program_that_aborts_ends_the_job_with_its_code(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from klyng_mp import MPI\n"
        "if MPI.COMM_WORLD.rank == 1:\n"
        "    print('last words')\n"
        "    MPI.COMM_WORLD.Abort(7)\n"
        "MPI.COMM_WORLD.recv()\n"
    )
    done = run_python("-m", "klyng_mp", "run", "-n", "3", program)
    assert (done.returncode, done.stdout) == (7, "last words\n")
    assert "rank 1" in done.stderr


def test_those_that_travel_are_the_constants():
    for name in ("COMM_WORLD", "COMM_SELF", "COMM_NULL"):
        assert pickle.loads(pickle.dumps(getattr(MPI, name))) is getattr(MPI, name)
    with pytest.raises(TypeError, match="cannot travel"):
        on_ranks(1, pickle.dumps)


def test_none_is_false_and_equal_to_itself_only():
    assert not MPI.COMM_NULL
    assert MPI.Comm() == MPI.COMM_NULL
    assert MPI.COMM_NULL != MPI.COMM_WORLD
    assert MPI.COMM_WORLD != 5
    assert MPI.COMM_WORLD
    assert MPI.COMM_SELF
    assert len({MPI.COMM_WORLD, MPI.COMM_NULL, MPI.Comm()}) == 2
    assert repr(MPI.COMM_NULL) == "COMM_NULL"
    assert repr(MPI.COMM_WORLD).startswith("<MPI World: ")


def test_a_copy_of_the_handle_is_the_same_communicator():
    def program(comm):
        same, other = MPI.Intracomm(comm), comm.Clone()
        other.Set_name("other")
        found = same == comm, same.Compare(comm), other.Compare(comm), other.name
        other.Free()
        return *found, bool(other), bool(comm)

    assert on_ranks(2, program) == [(True, MPI.IDENT, MPI.CONGRUENT, "other", False, True)] * 2


def test_ranks_in_another_order_are_similar():
    def program(comm):
        turned, part = comm.Split(0, -comm.rank), comm.Split(comm.rank)
        return turned.Compare(comm), part.Compare(comm)

    assert on_ranks(2, program) == [(MPI.SIMILAR, MPI.UNEQUAL)] * 2


def test_ranks_of_one_host():
    def program(comm):
        with pytest.raises(ValueError, match="COMM_TYPE_SHARED"):
            comm.Split_type(99)
        none = comm.Split_type(MPI.UNDEFINED if comm.rank else MPI.COMM_TYPE_SHARED)
        return none.size if none else None

    assert on_ranks(2, program) == [1, None]


def test_a_grid_of_a_part_of_the_ranks():
    def program(comm):
        grid = comm.Create_cart([2], periods=True, reorder=True)
        if not grid:
            return None
        return grid.Get_dim(), grid.periods, grid.is_topo, grid.Get_coords(grid.rank), grid.scan(1), grid.Shift(0, 1)

    assert on_ranks(3, program) == [(1, [1], True, [0], 1, (1, 1)), (1, [1], True, [1], 2, (0, 0)), None]


def test_attributes_and_error_handlers():
    comm = MPI.COMM_WORLD
    assert comm.Get_attr(MPI.TAG_UB) == 2**63 - 1
    assert (comm.Get_attr(MPI.UNIVERSE_SIZE), comm.Get_attr(12345)) == (1, None)
    comm.Set_errhandler(MPI.ERRORS_ARE_FATAL)
    assert comm.Get_errhandler() is MPI.ERRORS_RETURN
