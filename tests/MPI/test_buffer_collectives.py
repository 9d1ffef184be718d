"""Collectives of buffers, beyond what the programs of mpi4py show."""

from __future__ import annotations

import numpy as np
import pytest
from mpi_ranks import on_ranks

from klyng_mp import MPI

LARGE = 40_000


def test_large_arrays_at_three_ranks():
    def program(comm):
        mine = np.full(LARGE, comm.rank + 1.0)
        whole, total = np.empty((3, LARGE)), np.empty(LARGE)
        comm.Allgather(mine, whole)
        comm.Allreduce(mine, total)
        comm.Bcast(mine, root=2)
        return whole[:, -1].tolist(), total[0], mine[-1]

    assert on_ranks(3, program) == [([1.0, 2.0, 3.0], 6.0, 3.0)] * 3


def test_a_sum_in_place():
    def program(comm):
        mine = np.arange(LARGE, dtype="l")
        comm.Allreduce(MPI.IN_PLACE, mine)
        return int(mine[-1])

    assert on_ranks(2, program) == [2 * (LARGE - 1)] * 2


def test_a_result_goes_into_the_part_that_is_named():
    def program(comm):
        into = np.zeros(6)
        comm.Allreduce([np.ones(2), MPI.DOUBLE], [into, (2, 3), MPI.DOUBLE])
        return into.tolist()

    assert on_ranks(2, program) == [[0, 0, 0, 2, 2, 0]] * 2


def test_parts_without_elements():
    def program(comm):
        mine = np.full(comm.rank, comm.rank, "i")
        whole = np.zeros(3, "i")
        comm.Allgatherv(mine, [whole, [0, 1, 2]])
        return whole.tolist()

    assert on_ranks(3, program) == [[1, 2, 2]] * 3


def test_reductions_in_parts_and_without_waiting():
    def program(comm):
        block, part = np.zeros(2), np.zeros(1 + comm.rank)
        comm.Ireduce_scatter_block(np.arange(4.0), block).Wait()
        comm.Ireduce_scatter(np.arange(3.0), part, [1, 2]).Wait()
        comm.Reduce_scatter(MPI.IN_PLACE, whole := np.arange(4.0))
        prefix = np.zeros(1)
        comm.Iscan(np.ones(1), prefix).Wait()
        return block.tolist(), part.tolist(), whole[:2].tolist(), prefix[0]

    assert on_ranks(2, program) == [([0, 2], [0], [0, 2], 1), ([4, 6], [2, 4], [4, 6], 2)]


def test_parts_of_different_lengths_without_waiting():
    def program(comm):
        counts = [1, 2]
        whole = np.zeros(3, "i")
        comm.Iallgatherv(np.full(comm.rank + 1, comm.rank, "i"), [whole, counts]).Wait()
        back = np.zeros(comm.rank + 1, "i")
        comm.Iscatterv([whole, counts] if comm.rank == 0 else None, back).Wait()
        comm.Igatherv(back, [whole, (counts, [2, 0])] if comm.rank == 0 else None).Wait()
        swapped = np.zeros(2 * (comm.rank + 1), "i")
        comm.Ialltoallv([whole, [1, 2]], [swapped, [comm.rank + 1] * 2]).Wait()
        return whole.tolist(), back.tolist(), swapped.tolist()

    assert on_ranks(2, program) == [([1, 1, 0], [0], [1, 0]), ([0, 1, 1], [1, 1], [1, 0, 1, 1])]


def test_what_comes_must_fit():
    def program(comm):
        into = np.zeros(2 - comm.rank)
        if comm.rank == 0:
            comm.Bcast(into)
            return
        with pytest.raises(MPI.Exception, match=r"Bcast\(\): what came has 16 bytes"):
            comm.Bcast(into)

    on_ranks(2, program)


def test_what_has_no_room_for_the_result_is_refused_before_anything_is_sent():
    def program(comm):
        with pytest.raises(ValueError, match=r"Allreduce\(\): 3 elements"):
            comm.Allreduce(np.zeros(3), np.zeros(2))
        with pytest.raises(ValueError, match="no 2 equal parts"):
            comm.Alltoall(np.zeros(3), np.zeros(4))
        return comm.allreduce(1)

    assert on_ranks(2, program) == [2, 2]
