"""launch.hangs: when it is proved that ranks wait for each other, and how that is told."""

from __future__ import annotations

import time

import pytest

from klyng_mp.launch.hangs import HangDetector, find_cycle, render_deadlock, render_report
from klyng_mp.launch.state import ENDED, IDLE, RUNNING, SILENT, WAITING, RankState


def waiting(rank, *peers, **fields):
    values = {"call": f"recv(source={peers})", "peers": peers or None, "wait": 1, "where": "app.py:3 in main"}
    return RankState(rank, 100 + rank, WAITING, **{**values, **fields})


def states(*some):
    return {state.rank: state for state in some}


BOTH = states(waiting(0, 1), waiting(1, 0))


def test_two_rounds_that_are_alike_are_the_proof():
    detector = HangDetector()
    assert not detector.judge(1, BOTH)
    assert detector.suspects
    assert detector.judge(1, BOTH)


def test_rounds_of_two_runs_prove_nothing():
    detector = HangDetector()
    assert not detector.judge(1, BOTH)
    assert not detector.judge(2, BOTH)
    assert detector.judge(2, BOTH)


@pytest.mark.parametrize(
    "other",
    [
        RankState(1, 101, RUNNING),
        RankState(1, 101, IDLE),
        RankState(1, 101, SILENT),
        waiting(1, 0, seconds=5.0),
        waiting(1, 0, doubts=("it has 2 threads",)),
        waiting(1, 0, pending_bytes=10),
        RankState(1, 101, ENDED, pending_bytes=10),
        RankState(1, 101, ENDED, doubts=("it has 2 threads",)),
    ],
    ids=["runs", "idle", "silent", "time-out", "thread", "pending", "ended, pending", "ended, thread"],
)
def test_who_may_still_act_is_no_proof(other):
    detector = HangDetector()
    for _ in range(3):
        assert not detector.judge(1, states(waiting(0, 1), other))
        assert not detector.suspects


@pytest.mark.parametrize(
    "change",
    [{"wait": 2}, {"steps": 1}, {"received": 1}, {"sent": {0: 1}}, {"call": "barrier()"}],
    ids=lambda change: next(iter(change)),
)
def test_what_changed_between_the_rounds_is_no_proof(change):
    detector = HangDetector()
    assert not detector.judge(1, BOTH)
    assert not detector.judge(1, states(waiting(0, 1), waiting(1, 0)._replace(**change)))


def test_a_message_on_its_way_is_no_proof():
    detector = HangDetector()
    on_its_way = states(waiting(0, 1), waiting(1, 0, sent={0: 3}))
    for _ in range(3):
        assert not detector.judge(1, on_its_way)
    arrived = states(waiting(0, 1, received=3), waiting(1, 0, sent={0: 3}))
    assert not detector.judge(1, arrived)
    assert detector.judge(1, arrived)


def test_messages_of_those_that_ended_count_and_messages_to_them_do_not():
    detector = HangDetector()
    for missing in (2, 1):
        some = states(waiting(0, 1, received=missing, sent={1: 9}), RankState(1, 101, ENDED, sent={0: 1}))
        assert not detector.judge(1, some)
        assert detector.judge(1, some) == (missing == 1)


def test_what_an_ended_rank_goes_on_with_is_no_proof():
    detector = HangDetector()
    for steps in (1, 2, 3):
        assert not detector.judge(1, states(waiting(0, 1), RankState(1, 101, ENDED, steps=steps)))
    assert detector.judge(1, states(waiting(0, 1), RankState(1, 101, ENDED, steps=3)))


def test_nobody_left_is_no_deadlock():
    assert not HangDetector().judge(1, states(RankState(0, 100, ENDED)))


def test_a_wait_began_when_it_was_first_seen():
    """Questions wake a rank, which then waits anew."""
    detector = HangDetector()
    assert detector.remember(waiting(0, 1, since=10.0, wait=1)).since == 10.0
    assert detector.remember(waiting(0, 1, since=12.0, wait=2)).since == 10.0
    assert detector.remember(waiting(0, 1, since=13.0, wait=3)).since == 10.0
    assert detector.remember(waiting(0, 1, since=14.0, wait=4, sent={1: 1})).since == 14.0
    assert detector.remember(RankState(0, 100, RUNNING)).since == 0.0
    assert detector.remember(waiting(0, 1, since=15.0)).since == 15.0


CYCLES = [
    ([], ()),
    ([waiting(0, 1)], ()),
    ([waiting(0, 0)], (0,)),
    ([waiting(0, 1), waiting(1, 0)], (0, 1)),
    ([waiting(0, 1), waiting(1, 2), waiting(2, 0)], (0, 1, 2)),
    ([waiting(0, 1), waiting(1, 2), waiting(2, 1)], (1, 2)),
    ([waiting(0, 1), waiting(1, 2), waiting(2, 0), waiting(3, 4), waiting(4, 3)], (3, 4)),
    ([waiting(0, 1), RankState(1, 101, ENDED)], ()),
    ([waiting(0, 1, 2), waiting(1, 3), waiting(2, 0), waiting(3, 1)], (0, 2)),
    ([waiting(0), waiting(1), waiting(2)], ()),
    ([waiting(0), waiting(1)], (0, 1)),
    ([waiting(0), waiting(1, 0), RankState(2, 102, ENDED)], (0, 1)),
]


@pytest.mark.parametrize(("some", "cycle"), CYCLES)
def test_the_shortest_cycle_is_found(some, cycle):
    assert find_cycle(some) == cycle


def test_a_long_cycle_is_found_soon():
    size = 400
    begin = time.monotonic()
    assert len(find_cycle([waiting(rank, (rank + 1) % size) for rank in range(size)])) == size
    assert time.monotonic() - begin < 5.0


def test_a_deadlock_is_told_whole():
    since = time.monotonic() - 2.0
    first = waiting(0, 1, call="recv(source=1, tag='x')", since=since, unclaimed=((1, "y"), (2, 3)), unclaimed_count=5)
    text = render_deadlock([waiting(1, 0, call="barrier()", since=since, where=""), first, RankState(2, 102, ENDED)])
    lines = text.splitlines()
    clock = time.strftime("%H:%M", time.localtime(time.time() - 2.0))
    assert lines[0] == "all ranks wait for each other, and nothing is on its way to any of them:"
    assert lines[1].startswith(f"  rank 0 (process 100) waits in recv(source=1, tag='x') for rank 1, since {clock}")
    assert lines[1].endswith("(2.0 s)")
    assert lines[2:4] == [
        "    at app.py:3 in main",
        "    has, and did not ask for: a message from rank 1 with tag 'y', a message from rank 2 with tag 3, 3 more",
    ]
    assert lines[4].startswith("  rank 1 (process 101) waits in barrier() for rank 0, since")
    assert lines[5:] == ["  rank 2 (process 102) has ended", "cycle: rank 0 -> rank 1 -> rank 0"]


def test_who_waits_for_somebody_that_ended_is_told_so():
    text = render_deadlock([waiting(0, 1, 2), RankState(1, 101, ENDED), waiting(2, 2)])
    assert "for ranks 1 (which has ended), 2," in text
    assert "for itself" in text
    assert render_deadlock([waiting(0, 1), RankState(1, 101, ENDED)]).startswith("all ranks that have not ended wait,")
    assert render_deadlock([waiting(0, 0)]).startswith("the only rank waits for itself,")


def test_a_report_shows_every_phase():
    lines = render_report(
        [
            waiting(0, seconds=5, doubts=("it has 2 threads", "it handles SIGUSR2")),
            RankState(1, 101, RUNNING, where="app.py:9 in f"),
            RankState(2, 102, SILENT, stack="at app.py:7 in g\nat app.py:1 in <module>"),
            RankState(3, 103, IDLE),
            RankState(4, 104, ENDED, pending_bytes=7),
        ]
    ).splitlines()
    assert lines[0].endswith("for at most 5 s")
    assert lines[1:] == [
        "    at app.py:3 in main",
        "    cannot tell whether it waits in vain: it has 2 threads, it handles SIGUSR2",
        "  rank 1 (process 101) is running",
        "    at app.py:9 in f",
        "  rank 2 (process 102) computes, or is in a call that is not klyng_mp's",
        "    at app.py:7 in g",
        "    at app.py:1 in <module>",
        "  rank 3 (process 103) has nothing to do",
        "  rank 4 (process 104) has ended",
        "    7 bytes that it sent are still on their way",
    ]
