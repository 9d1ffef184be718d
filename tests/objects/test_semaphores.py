"""Locks and semaphores as states: what is answered to whom, for each request in each state."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.objects.semaphores import LOCK, RECURSIVE, SEMAPHORE, SemaphoreState


def made(kind, value=1, maximum=1):
    return Answers(partial(SemaphoreState, kind=kind, value=value, maximum=maximum))


@pytest.mark.parametrize("kind", [LOCK, RECURSIVE])
def test_a_lock_goes_to_who_has_waited_longest(kind):
    lock = made(kind)
    assert lock.ask("a", "ACQUIRE", 1) == [("a", "YES")]
    assert lock.ask("b", "ACQUIRE", 1) == lock.ask("c", "ACQUIRE", 1) == []
    assert lock.ask("d", "ACQUIRE", 0) == [("d", "NO")]
    assert lock.ask("a", "RELEASE") == [("b", "YES"), ("a", "YES")]
    assert lock.ask("b", "RELEASE") == [("c", "YES"), ("b", "YES")]


def test_a_lock_may_be_released_by_anybody_and_not_twice():
    lock = made(LOCK)
    lock.ask("a", "ACQUIRE", 1)
    assert lock.ask("b", "RELEASE") == [("b", "YES")]
    assert lock.ask("a", "RELEASE") == [("a", "TOO_OFTEN")]
    assert lock.ask("c", "ACQUIRE", 0) == [("c", "YES")]


def test_a_recursive_lock_belongs_to_its_thread():
    lock = made(RECURSIVE)
    for _ in range(3):
        assert lock.ask("a", "ACQUIRE", 1) == [("a", "YES")]
    assert lock.ask("aa", "ACQUIRE", 0) == [("a'", "NO")]
    assert lock.ask("aa", "RELEASE") == [("a'", "NOT_OWNED")]
    assert [lock.ask("a", "RELEASE") for _ in range(4)] == [[("a", "YES")]] * 3 + [[("a", "NOT_OWNED")]]


def test_who_withdraws_is_told_so_and_gets_nothing():
    lock = made(LOCK)
    lock.ask("a", "ACQUIRE", 1)
    lock.ask("b", "ACQUIRE", 1)
    assert lock.cancel("b") == [("b", "CANCELLED")]
    assert lock.cancel("b") == []
    assert lock.ask("a", "RELEASE") == [("a", "YES")]
    assert lock.ask("c", "ACQUIRE", 0) == [("c", "YES")]


def test_who_was_given_it_before_it_withdraws_has_it():
    lock = made(LOCK)
    assert lock.ask("a", "ACQUIRE", 1) == [("a", "YES")]
    assert lock.cancel("a") == []
    assert lock.ask("b", "ACQUIRE", 0) == [("b", "NO")]


@pytest.mark.parametrize("kind", [LOCK, RECURSIVE])
def test_a_lock_whose_holder_is_killed_is_broken_for_ever(kind):
    lock = made(kind)
    lock.ask("a", "ACQUIRE", 1)
    lock.ask("b", "ACQUIRE", 1)
    assert lock.end("a") == [("b", "BROKEN")]
    assert lock.ask("c", "ACQUIRE", 0) == lock.ask("c", "ACQUIRE", 1) == [("c", "BROKEN")]


def test_a_holder_that_ended_breaks_only_waits_that_had_no_end():
    lock = made(LOCK)
    lock.ask("a", "ACQUIRE", 1)
    lock.ask("b", "ACQUIRE", 1)
    assert lock.end("a", orderly=True) == [("b", "ENDED")]
    assert lock.ask("b", "ACQUIRE", 0) == [("b", "NO")]
    assert lock.ask("b", "ACQUIRE", 1) == [("b", "ENDED")]
    assert lock.ask("c", "RELEASE") == [("c", "YES")]
    assert lock.ask("b", "ACQUIRE", 1) == [("b", "YES")]


def test_who_waits_and_is_killed_is_passed_over():
    lock = made(LOCK)
    for name in "abc":
        lock.ask(name, "ACQUIRE", 1)
    assert lock.end("b") == []
    assert lock.ask("a", "RELEASE") == [("c", "YES"), ("a", "YES")]


def test_a_semaphore_is_broken_only_where_no_permit_is_to_be_had():
    permits = made(SEMAPHORE, 2, 99)
    permits.ask("a", "ACQUIRE", 1)
    assert permits.end("a") == []
    assert permits.ask("b", "ACQUIRE", 1) == [("b", "YES")]
    assert permits.ask("c", "ACQUIRE", 1) == [("c", "BROKEN")]
    assert permits.ask("c", "RELEASE") == [("c", "YES")]  # instead of the dead one
    assert permits.ask("c", "ACQUIRE", 1) == [("c", "YES")]
    assert permits.ask("d", "ACQUIRE", 1) == []
    assert permits.ask("b", "RELEASE") == [("d", "YES"), ("b", "YES")]


def test_a_signal_is_never_broken():
    signal = made(SEMAPHORE, 0, 99)
    signal.ask("a", "RELEASE")
    assert signal.ask("b", "ACQUIRE", 1) == [("b", "YES")]
    assert signal.end("b") == []
    assert signal.ask("c", "ACQUIRE", 1) == []
    assert signal.ask("a", "RELEASE") == [("c", "YES"), ("a", "YES")]


def test_permits_that_are_given_back_by_others_belong_to_nobody():
    permits = made(SEMAPHORE, 1, 99)
    permits.ask("a", "ACQUIRE", 1)
    permits.ask("b", "RELEASE")
    assert permits.end("a") == []
    assert permits.ask("c", "ACQUIRE", 1) == [("c", "YES")]
    assert permits.ask("d", "ACQUIRE", 1) == []


def test_a_bounded_semaphore_has_a_bound():
    permits = made(SEMAPHORE, 2, 2)
    assert permits.ask("a", "RELEASE") == [("a", "TOO_OFTEN")]
    permits.ask("a", "ACQUIRE", 1)
    assert permits.ask("a", "RELEASE") == [("a", "YES")]


def test_what_it_does_not_do_is_said():
    assert made(LOCK).ask("a", "GET") == [("a", "UNKNOWN")]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["ACQUIRE", "RELEASE", "cancel"])), max_size=40),
)
def test_permits_are_neither_lost_nor_made(value, steps):
    permits = made(SEMAPHORE, value, value)
    have, waiting = dict.fromkeys("abcd", 0), set()
    for name, step in steps:
        if step == "cancel" and name in waiting:
            answers = permits.cancel(name)
        elif step == "ACQUIRE" and name not in waiting:
            waiting.add(name)
            answers = permits.ask(name, "ACQUIRE", 1)
        elif step == "RELEASE" and have[name] and name not in waiting:
            have[name] -= 1
            answers = [one for one in permits.ask(name, "RELEASE") if one != (name, "YES")]
        else:
            continue
        for who, outcome in answers:
            waiting.discard(who)
            have[who] += outcome == "YES"
        assert 0 <= sum(have.values()) <= value
        assert not waiting or sum(have.values()) == value
