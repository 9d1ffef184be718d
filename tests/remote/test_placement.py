"""placement: klyng's division of ranks over hosts."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

import klyng_mp as mp
from klyng_mp.remote.hosts import read_hosts
from klyng_mp.remote.placement import divide, place


def hosts(*places, local=None):
    """Return hosts with these places (None: CPUs decide); number ``local`` is this machine."""
    names = ["local" if number == local else f"10.0.0.{number}" for number in range(len(places))]
    return read_hosts(
        {name: {} if most is None else {"max_procs": most} for name, most in zip(names, places, strict=True)}
    )


def deal_one_by_one(n, places):
    """Deal as klyng does it, one rank at a time: the reference."""
    counts, full = [0] * len(places), 0
    for index in itertools.cycle(range(len(places))):
        if sum(counts) == n:
            return counts
        if counts[index] < places[index] or full >= len(places):
            counts[index] += 1
            full = full if full >= len(places) else 0
        else:
            full += 1
    raise AssertionError


@pytest.mark.parametrize(
    ("n", "places", "counts"),
    [
        (1, [2, 2], [1, 0]),
        (4, [2, 2], [2, 2]),
        (5, [2, 4, 1], [2, 2, 1]),
        (6, [1, 8, 2], [1, 3, 2]),
        (None, [2, 4, 1], [2, 4, 1]),
    ],
)
def test_ranks_are_dealt_round_by_round(n, places, counts):
    assert divide(n, hosts(*places), [9] * len(places)) == counts


def test_it_is_klyngs_division_whatever_the_numbers():
    random.seed(7)
    for _ in range(300):
        places = [random.randint(1, 9) for _ in range(random.randint(1, 7))]
        n = random.randint(1, 2 * sum(places))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert divide(n, hosts(*places), [1] * len(places)) == deal_one_by_one(n, places)
        assert bool(caught) == (n > sum(places))


def test_where_nothing_is_said_cpus_are_places():
    assert divide(None, hosts(None, 3), [8, 64]) == [8, 3]
    assert divide(20, hosts(None, None), [4, 64]) == [4, 16]
    assert divide(None, hosts(None), [0]) == [1]


def test_beyond_its_places_a_host_gets_more_only_when_all_are_full_and_it_is_said():
    with pytest.warns(
        mp.MachinesWarning, match="7 ranks on 2 hosts that have 4 places: they will share CPUs"
    ) as caught:
        placements = place(7, hosts(1, 3), [1, 1])
    assert [placement.size for placement in placements] == [3, 4]
    assert [warning.filename for warning in caught] == [__file__]


def test_numbers_follow_each_other_and_begin_here():
    given = hosts(2, 3, 2, local=1)
    placements = place(6, given, [1, 1, 1])
    assert [(one.host.key, one.first, one.size) for one in placements] == [
        ("local", 0, 2),
        ("10.0.0.0", 2, 2),
        ("10.0.0.2", 4, 2),
    ]
    assert [rank for one in placements for rank in one.ranks] == list(range(6))


def test_the_example_of_the_page():
    given = read_hosts({"a": {"max_procs": 1}, "b": {"max_procs": 3}, "local": {"max_procs": 2}})
    assert [list(one.ranks) for one in place(5, given, [1, 1, 1])] == [[0, 1], [2], [3, 4]]


def test_a_host_without_ranks_is_there():
    assert [(one.first, one.size) for one in place(1, hosts(2, 2), [1, 1])] == [(0, 1), (1, 0)]


def test_a_million_ranks_are_dealt_at_once(time_limit):
    assert sum(divide(10**6, hosts(10**6, 1, 10**6), [1, 1, 1])) == 10**6


def test_no_host_and_no_rank_are_refused():
    with pytest.raises(mp.MachinesError, match="no host"):
        divide(2, [], [])
    with pytest.raises(ValueError, match="1 rank or more, not 0"):
        divide(0, hosts(1), [1])
