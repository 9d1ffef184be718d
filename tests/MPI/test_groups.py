"""Groups, beyond what the programs of mpi4py show."""

from __future__ import annotations

import pytest

from klyng_mp import MPI
from klyng_mp.MPI.groups import group_of


def test_a_group_translates_nobody_to_nobody():
    one, other = group_of([3, 1, 2]), group_of([1, 3])
    assert one.Translate_ranks([0, 2, MPI.PROC_NULL, 1], other) == [1, MPI.UNDEFINED, MPI.PROC_NULL, 0]


def test_groups_are_compared_by_their_ranks():
    one, same, turned, other = group_of([1, 2]), group_of([1, 2]), group_of([2, 1]), group_of([1, 3])
    found = [one.Compare(group) for group in (same, turned, other)]
    assert found == [MPI.IDENT, MPI.SIMILAR, MPI.UNEQUAL]
    assert one == same == one.Dup()
    assert len({one, same, turned}) == 2
    assert one != 5


def test_ranges_go_up_and_down():
    group = group_of(range(10))
    assert group.Range_incl([(0, 4, 2), (9, 7, -1)]) == group_of([0, 2, 4, 9, 8, 7])
    assert group.Range_excl([(1, 9, 1)]) == group_of([0])


def test_this_process_is_rank_0_outside_of_a_world():
    group = MPI.COMM_WORLD.group
    assert (group.rank, group.size, MPI.GROUP_EMPTY.rank) == (0, 1, MPI.UNDEFINED)


def test_a_group_that_was_freed_is_none():
    group = group_of([1])
    assert group
    group.Free()
    assert group == MPI.GROUP_NULL
    assert repr(group) == "GROUP_NULL"
    with pytest.raises(ValueError, match="GROUP_NULL"):
        group.Get_size()
