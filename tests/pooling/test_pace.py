from __future__ import annotations

from klyng_mp.pooling.pace import Pace

MS = 1_000_000


def paced(round_trip_ns, task_ns, count=8):
    pace = Pace()
    pace.ask(0, 1000)
    pace.note(0, count, task_ns * count, 5, 1000 + round_trip_ns + task_ns * count)
    return pace


def test_what_is_not_known_is_guessed_low():
    assert Pace().target(5, 0.0) == 8
    assert Pace().task_of(5, 7.0) == 7.0


def test_a_round_trip_is_measured_from_a_task_for_one_that_has_nothing():
    pace = paced(20 * MS, MS)
    assert (pace.round_trip_ns, pace.task_ns) == (20 * MS, MS)
    pace.note(8, 1, 3 * MS, 5, 100 * MS)  # of which nobody knows how long it waited there
    assert (pace.round_trip_ns, pace.task_ns) == (20 * MS, 2 * MS)
    pace.ask(9, 200 * MS)
    pace.note(9, 1, 2 * MS, 5, (200 + 42) * MS)
    assert pace.round_trip_ns == 25 * MS


def test_what_is_ahead_covers_the_round_trip():
    assert paced(20 * MS, MS).target(5, 0.0) == 2 + 38
    assert paced(20 * MS, 2 * MS).target(5, 0.0) == 2 + 19
    assert paced(0, 10).target(5, 0.0) == 8192


def test_a_long_task_needs_none_beside_it():
    assert paced(0, 1000 * MS).target(5, 0.0) == 1
    assert paced(100 * MS, 1000 * MS).target(5, 0.0) == 2


def test_answers_wait_for_others_in_a_far_worker_only():
    assert paced(MS, MS).news_of_hold() == 0
    pace = paced(40 * MS, MS)
    assert pace.news_of_hold() == 8000
    assert pace.news_of_hold() == 0
    assert paced(1000 * MS, MS).news_of_hold() == 10_000


def test_what_is_known_is_of_one_job():
    pace = paced(20 * MS, MS)
    assert pace.target(7, 2 * MS) == 2 + 19
    assert pace.target(7, 0.0) == 8
    pace.note(8, 2, 8 * MS, 7, 99 * MS)
    assert pace.task_of(7, 0.0) == 4 * MS
