"""launch.statistics: what a rank did, as data and as a table."""

from __future__ import annotations

import pickle

import pytest
from contracts.ranks import ranks

from klyng_mp.errors import DeadlineError
from klyng_mp.launch.statistics import RankStatistics, collect, format_table, unknown
from klyng_mp.wire.frames import DRIVER


def one(rank, computing=0.0, waiting_on=None, messages=None, sizes=None):
    waiting_on = waiting_on or {}
    waiting = sum(waiting_on.values())
    return RankStatistics(rank, computing, waiting, waiting_on, len(waiting_on), messages or {}, sizes or {}, 0)


def test_the_table_of_few():
    table = format_table(
        [
            one(0, 3.0, {1: 0.25, -1: 0.75}, {1: 10}, {1: 2048}),
            one(1, 0.5, {0: 1.5}, {0: 3}, {0: 120}),
            one(2),
        ]
    )
    assert table.splitlines() == [
        "rank  computing  waiting  waiting %  waits       mostly on",
        "   0    3.000 s  1.000 s       25.0      2      any (75 %)",
        "   1    0.500 s  1.500 s       75.0      1  rank 0 (100 %)",
        "   2    0.000 s  0.000 s        0.0      0               -",
        "",
        "messages  to 0  to 1  to 2  to all",
        "  from 0     -    10     -      10",
        "  from 1     3     -     -       3",
        "  from 2     -     -     -       0",
        "",
        " bytes   to 0   to 1  to 2  to all",
        "from 0      -  2 KiB     -   2 KiB",
        "from 1  120 B      -     -   120 B",
        "from 2      -      -     -     0 B",
    ]


def test_the_table_of_many_has_the_totals_and_the_largest_pairs():
    table = format_table([one(rank, messages={0: rank}, sizes={0: rank * 1024}) for rank in range(40)])
    first, second = table.split("\n\n")
    assert len(first.splitlines()) == 41
    lines = [line.split() for line in second.splitlines()]
    assert lines[:3] == [
        ["from", "to", "messages", "bytes"],
        ["all", "all", "780", "780", "KiB"],
        ["39", "0", "39", "39", "KiB"],
    ]
    assert len(lines) == 12


def test_the_table_of_none_and_of_one():
    assert format_table([]).startswith("rank  computing")
    assert "from 0" in format_table([one(0, 1.0)])


def test_they_travel():
    statistics = one(3, 1.0, {0: 1.0}, {1: 2}, {1: 3})
    assert pickle.loads(pickle.dumps(statistics)) == statistics


def test_what_is_collected_is_of_ranks_only():
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.send(b"x" * 1000, 1)
        with pytest.raises(DeadlineError):
            sender.recv(1, timeout=0.02)
        endpoint = sender.endpoint
        with endpoint.lock:
            endpoint._room.waited[DRIVER] = 10**12, 5
        found = collect(endpoint, 10**9)
        assert found[0] == 0
        assert found.waiting_on == {1: found.waiting_s}
        assert 0.02 <= found.waiting_s < 1
        assert found.computing_s == pytest.approx(1 - found.waiting_s)
        assert (found.waits, found.messages) == (1, {1: 1})
        assert found.bytes[1] > 1000
        assert found.slab_bytes == 0
        assert collect(endpoint, 0).computing_s == 0
        assert collect(receiver.endpoint, 0) == unknown(1)
