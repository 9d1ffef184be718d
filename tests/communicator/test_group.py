"""Groups: what sets of ranks make of each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.communicator.group import Group

members = st.lists(st.integers(0, 9), unique=True, max_size=10).map(tuple)


def test_a_group_is_its_members_in_their_order():
    group = Group([4, 2, 7])
    assert group.size == len(group) == 3
    assert list(group) == [4, 2, 7]
    assert [group.rank_of(member) for member in (4, 2, 7, 5)] == [0, 1, 2, None]
    assert 2 in group
    assert 5 not in group
    assert repr(group) == "Group([4, 2, 7])"


def test_groups_are_equal_if_their_order_is():
    assert Group([1, 2]) == Group((1, 2))
    assert hash(Group([1, 2])) == hash(Group((1, 2)))
    assert Group([1, 2]) != Group([2, 1])
    assert Group([1, 2]) != [1, 2]


def test_nobody_is_there_twice():
    with pytest.raises(ValueError, match=r"each process once, which is not so in \(1, 2, 1\)"):
        Group([1, 2, 1])
    with pytest.raises(ValueError, match="each process once"):
        Group([5, 6]).include([0, 0])


@given(members, members)
def test_sets(ours, theirs):
    one, other = Group(ours), Group(theirs)
    assert one.union(other).members == ours + tuple(member for member in theirs if member not in ours)
    assert one.intersection(other).members == tuple(member for member in ours if member in theirs)
    assert one.difference(other).members == tuple(member for member in ours if member not in theirs)
    assert one.translate(range(one.size), other) == [
        theirs.index(member) if member in theirs else None for member in ours
    ]


@given(members.flatmap(lambda ours: st.tuples(st.just(ours), st.permutations(range(len(ours))), st.integers(0, 10))))
def test_parts(drawn):
    ours, order, count = drawn
    chosen = order[:count]
    assert Group(ours).include(chosen).members == tuple(ours[rank] for rank in chosen)
    assert Group(ours).exclude(chosen).members == tuple(
        member for rank, member in enumerate(ours) if rank not in chosen
    )


@pytest.mark.parametrize("rank", [-1, 2])
def test_ranks_that_are_not_there_are_refused(rank):
    group = Group([3, 4])
    for action in (group.include, group.exclude, lambda ranks: group.translate(ranks, group)):
        with pytest.raises(ValueError, match=f"rank {rank} is not in a group of 2"):
            action([rank])
