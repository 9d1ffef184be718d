"""Where ranks of one process leave what they give: the last finds all, and combines it as the others would."""

from __future__ import annotations

import pytest
from contracts.ranks import ranks

from klyng_mp.communicator.gathering import Gathering, combine_pairs


def test_the_last_finds_what_all_have_left():
    gathering = Gathering(3, print)
    assert gathering.leave(7, 2, "c") is None
    assert gathering.leave(8, 0, "other call") is None
    assert gathering.leave(7, 0, None) is None
    assert gathering.absent(7) == [1]
    assert gathering.leave(7, 1, "b") == [None, "b", "c"]
    assert gathering.absent(7) == []
    assert gathering.absent(8) == [1, 2]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 31])
def test_values_are_combined_as_by_recursive_doubling(size):
    def shape(left, right):
        return (left, right)

    with ranks(size, "memory") as made:
        expected = made.run(lambda comm: comm.allreduce(comm.rank, shape))
    assert combine_pairs(list(range(size)), shape) == expected[0]


@pytest.mark.parametrize("size", [2, 3, 7, 12])
def test_green_ranks_combine_in_the_same_order(size):
    def shape(left, right):
        return [left, right]

    with ranks(size, "memory") as made:
        expected = made.run(lambda comm: comm.allreduce([comm.rank], shape))
    with ranks(size, "green") as made:
        results = made.run(lambda comm: comm.allreduce([comm.rank], shape))
        assert results == expected
        assert len({id(one) for one in results}) == size
