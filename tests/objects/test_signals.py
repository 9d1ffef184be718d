"""Conditions, events and barriers of a World with hosts, as programs use them."""

from __future__ import annotations

import threading

import pytest
from contracts.ranks import together

from klyng_mp.errors import BrokenLockError
from klyng_mp.objects.locks import Lock, RLock
from klyng_mp.objects.signals import Barrier, Condition, Event

# -- conditions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, Lock, RLock])
def test_who_waits_is_notified(job, kind):
    conditions = job.everywhere(Condition(job.numbers, kind and kind(job.numbers)))

    def wait():
        with conditions[1]:
            return conditions[1].wait()

    waiting = job.start(wait)
    with conditions[2]:
        conditions[2].notify()
        assert not waiting.over
    assert waiting.result() is True


def test_who_is_not_notified_in_time_has_the_lock_again(job):
    conditions = job.everywhere(Condition(job.numbers))
    with conditions[1]:
        assert conditions[1].wait(0.01) is False
        assert conditions[2].acquire(False) is False
    assert conditions[2].acquire(False) is True


def test_it_needs_its_lock(job):
    for condition in job.everywhere(Condition(job.numbers)):
        with pytest.raises(AssertionError, match=r"must acquire\(\) condition before"):
            condition.wait()
        with pytest.raises(AssertionError, match="lock is not owned"):
            condition.notify_all()
    with pytest.raises(TypeError, match="Lock or RLock of it"):
        Condition(job.numbers, threading.Lock())


def test_it_waits_for_something(job):
    conditions = job.everywhere(Condition(job.numbers))
    seen = []

    def wait():
        with conditions[1]:
            return conditions[1].wait_for(lambda: len(seen) == 2 and "both")

    waiting = job.start(wait)
    for word in ("one", "two"):
        with conditions[2]:
            seen.append(word)
            conditions[2].notify_all()
    assert waiting.result() == "both"
    with conditions[0]:
        assert conditions[0].wait_for(lambda: False, 0.01) is False


def test_a_killed_holder_of_its_lock_is_told_to_who_waits(job):
    conditions = job.everywhere(Condition(job.numbers))

    def wait():
        with conditions[1]:
            conditions[1].wait()

    waiting = job.start(wait)
    conditions[2].acquire()
    job.end(2)
    with pytest.raises(BrokenLockError, match=r"the RLock made at test_signals\.py"):
        waiting.result()


def test_a_wait_that_is_interrupted_has_the_lock_again(job):
    conditions = job.everywhere(Condition(job.numbers))
    desk = job.desks[1]
    wait, calls = desk.endpoint.wait_within, []

    def interrupted(ready, deadline, doing, on=None):
        calls.append(doing)
        if doing == "wait() of a shared condition" and len(calls) == 1:
            raise KeyboardInterrupt
        wait(ready, deadline, doing, on)

    conditions[1].acquire()
    desk.endpoint.wait_within = interrupted
    with pytest.raises(KeyboardInterrupt):
        conditions[1].wait()
    assert conditions[2].acquire(False) is False
    conditions[1].release()
    assert conditions[2].acquire(timeout=10) is True


# -- events ----------------------------------------------------------------------------------------


def test_an_event_is_seen_everywhere(job):
    events = job.everywhere(Event(job.numbers))
    assert [event.is_set() for event in events] == [False] * 3
    assert events[1].wait(0.01) is False
    waiting = [job.start(event.wait) for event in events]
    events[2].set()
    assert [one.result() for one in waiting] == [True] * 3
    assert [event.wait() for event in events] == [True] * 3
    events[1].clear()
    assert [event.is_set() for event in events] == [False] * 3


# -- barriers --------------------------------------------------------------------------------------


def test_parties_meet_and_one_acts(job):
    acted = []
    barriers = job.everywhere(Barrier(job.numbers, 3))
    assert sorted(together([barrier.wait for barrier in barriers])) == [0, 1, 2]
    acting = Barrier(job.numbers, 2, action=lambda: acted.append(1))
    assert sorted(together([acting.wait, acting.wait])) == [0, 1]
    assert (acted, acting.parties, acting.n_waiting, acting.broken) == ([1], 2, 0, False)
    with pytest.raises(ValueError, match="parties must be > 0"):
        Barrier(job.numbers, 0)


def test_who_gives_up_breaks_it(job):
    barriers = job.everywhere(Barrier(job.numbers, 3, timeout=60))
    waiting = job.start(barriers[1].wait)
    assert barriers[2].n_waiting == 1
    for call in (lambda: barriers[2].wait(0.01), waiting.result, barriers[0].wait):
        with pytest.raises(threading.BrokenBarrierError):
            call()
    assert barriers[0].broken is True
    barriers[2].reset()
    assert barriers[0].broken is False


def test_an_action_that_fails_and_a_process_that_ends_break_it(job):
    failing = Barrier(job.numbers, 2, action=lambda: 1 / 0)
    waiting = job.start(failing.wait)
    with pytest.raises(ZeroDivisionError):
        failing.wait()
    with pytest.raises(threading.BrokenBarrierError):
        waiting.result()
    barriers = job.everywhere(Barrier(job.numbers, 3))
    for barrier in barriers[1:]:
        waiting = job.start(barrier.wait)
    job.end(1)
    with pytest.raises(threading.BrokenBarrierError):
        waiting.result()
    barriers[0].abort()
