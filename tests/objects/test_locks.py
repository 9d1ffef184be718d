"""Locks and semaphores of a World with hosts, as programs use them."""

from __future__ import annotations

from multiprocessing import get_context

import pytest
from contracts.ranks import Background

from klyng_mp.errors import BrokenLockError, PeerLostError
from klyng_mp.objects.locks import BoundedSemaphore, Lock, RLock, Semaphore


def test_one_process_has_it_at_a_time(job):
    locks = job.everywhere(Lock(job.numbers))
    for lock in locks:
        with lock as held:
            assert held is True
            assert [other.acquire(False) for other in locks] == [False] * 3
    assert locks[1].acquire()
    waiting = job.start(locks[2].acquire)
    locks[0].release()  # anybody may
    assert waiting.result() is True
    locks[2].release()


def test_who_gives_up_does_not_have_it(job):
    locks = job.everywhere(Lock(job.numbers))
    locks[0].acquire()
    assert [lock.acquire(timeout=0.01) for lock in locks] == [False] * 3
    assert [lock.acquire(True, 0) for lock in locks] == [False] * 3
    assert locks[1].acquire(timeout=-1) is False
    locks[0].release()
    assert locks[2].acquire(timeout=5) is True


@pytest.mark.parametrize("kind", ["Lock", "RLock", "BoundedSemaphore"])
def test_what_is_not_held_is_released_as_multiprocessing_says(job, kind):
    standard = getattr(get_context("spawn"), kind)()
    with pytest.raises((ValueError, AssertionError)) as expected:
        standard.release()
    ours = {"Lock": Lock, "RLock": RLock, "BoundedSemaphore": BoundedSemaphore}[kind](job.numbers)
    for lock in job.everywhere(ours):
        with pytest.raises(expected.type) as caught:
            lock.release()
        assert str(caught.value) == str(expected.value)


def test_a_recursive_lock_is_its_threads(job):
    locks = job.everywhere(RLock(job.numbers))
    with locks[1], locks[1]:
        assert locks[2].acquire(False) is False
        assert Background(lambda: locks[1].acquire(True, 0.01)).result() is False
    assert locks[2].acquire(False) is True


def test_permits_are_counted(job):
    permits = job.everywhere(Semaphore(job.numbers, 2))
    assert permits[1].get_value() == 2
    with permits[1], permits[2]:
        assert permits[0].get_value() == 0
        assert permits[0].acquire(False) is False
    permits[0].release()
    assert permits[2].get_value() == 3
    with pytest.raises(ValueError, match="from 0 to"):
        Semaphore(job.numbers, -1)


def test_a_killed_holder_breaks_it_and_the_error_names_it(job):
    locks = job.everywhere(Lock(job.numbers))
    locks[1].acquire()
    waiting = job.start(locks[2].acquire)
    job.end(1)
    for call in (waiting.result, locks[0].acquire, lambda: locks[2].acquire(False)):
        with pytest.raises(
            BrokenLockError, match=r"the Lock made at test_locks.py:\d+ is broken: rank 1 died"
        ) as error:
            call()
        assert (error.value.rank, error.value.ended) == (1, False)


def test_a_run_that_is_ended_ends_the_wait_and_what_is_held_is_given_back(job):
    locks = job.everywhere(Lock(job.numbers))
    others = job.everywhere(Lock(job.numbers))
    locks[1].acquire()
    others[0].acquire()
    waiting = job.start(others[1].acquire)
    job.endpoints[1].abort("raised ValueError", 2)
    with pytest.raises(PeerLostError):
        waiting.result()
    locks[1].release()
    assert locks[2].acquire(timeout=10) is True
    others[0].release()
    assert others[2].acquire(timeout=10) is True  # and rank 1 does not have it


def test_a_lock_may_be_passed_on(job):
    lock = Lock(job.numbers)
    again = job.at(2, job.at(1, lock))
    again.acquire()
    assert lock.acquire(False) is False
