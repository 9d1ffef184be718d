"""Conditions and events as states."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers

from klyng_mp.objects.conditions import ConditionState, EventState
from klyng_mp.objects.semaphores import LOCK, RECURSIVE, SemaphoreState


class Pair:
    """A lock, and a condition of it; what either answers is given in one list."""

    def __init__(self, kind):
        self.lock = Answers(partial(SemaphoreState, kind=kind, value=1, maximum=1))
        self.condition = Answers(partial(ConditionState, lock=self.lock.state))

    def wait(self, *names):
        for name in names:
            assert self.lock.ask(name, "ACQUIRE", 1) == [(name, "YES")]
            assert self.condition.ask(name, "WAIT") == []


@pytest.fixture(params=[LOCK, RECURSIVE])
def pair(request):
    return Pair(request.param)


def test_who_is_called_has_the_lock_again_and_the_longest_wait_comes_first(pair):
    pair.wait("a", "b", "c")
    pair.lock.ask("d", "ACQUIRE", 1)
    assert pair.condition.ask("d", "NOTIFY", 2) == [("d", "YES")]
    pair.lock.ask("d", "RELEASE")
    assert pair.condition.take() == [("a", "YES")]
    assert pair.lock.ask("e", "ACQUIRE", 0) == [("e", "NO")]
    pair.lock.ask("a", "RELEASE")
    assert pair.condition.take() == [("b", "YES")]


def test_it_needs_the_lock(pair):
    assert pair.condition.ask("a", "WAIT") == pair.condition.ask("a", "NOTIFY", 1) == [("a", "NOT_OWNED")]


def test_who_gives_up_has_the_lock_again_and_is_not_called(pair):
    pair.wait("a", "b")
    assert pair.condition.cancel("a") == [("a", "NO")]
    assert pair.condition.ask("a", "NOTIFY", 1) == [("a", "YES")]
    pair.lock.ask("a", "RELEASE")
    assert pair.condition.take() == [("b", "YES")]


def test_who_gives_up_after_it_was_called_was_called(pair):
    pair.wait("a")
    pair.lock.ask("b", "ACQUIRE", 1)
    pair.condition.ask("b", "NOTIFY", 1)
    assert pair.condition.cancel("a") == []
    pair.lock.ask("b", "RELEASE")
    assert pair.condition.take() == [("a", "YES")]


def test_a_recursive_lock_is_had_as_often_as_before():
    pair = Pair(RECURSIVE)
    pair.lock.ask("a", "ACQUIRE", 1)
    pair.wait("a")
    pair.lock.ask("b", "ACQUIRE", 1)
    pair.condition.ask("b", "NOTIFY", 1)
    pair.lock.ask("b", "RELEASE")
    assert [pair.lock.ask("a", "RELEASE") for _ in range(3)] == [[("a", "YES")]] * 2 + [[("a", "NOT_OWNED")]]


def test_where_the_lock_is_broken_all_that_wait_are_told(pair):
    pair.wait("a", "b")
    pair.lock.ask("c", "ACQUIRE", 1)
    pair.lock.end("c")
    assert sorted(pair.condition.take()) == [("a", "BROKEN"), ("b", "BROKEN")]


def test_the_dead_are_not_called(pair):
    pair.wait("a", "b")
    pair.condition.end("a")
    pair.lock.ask("c", "ACQUIRE", 1)
    pair.condition.ask("c", "NOTIFY", 1)
    pair.lock.ask("c", "RELEASE")
    assert pair.condition.take() == [("b", "YES")]


# -- events ----------------------------------------------------------------------------------------


def test_an_event_is_told_to_all_that_wait_also_if_it_is_cleared():
    event = Answers(EventState)
    assert event.ask("a", "WAIT") == event.ask("b", "WAIT") == []
    assert event.ask("c", "SET") == [("a", "YES"), ("b", "YES"), ("c", "YES")]
    assert event.ask("a", "WAIT") == [("a", "YES")]
    event.ask("c", "CLEAR")
    assert event.ask("a", "WAIT") == []
    assert event.cancel("a") == [("a", "CANCELLED")]
    assert event.cancel("a") == []


def test_an_event_forgets_the_dead_and_knows_what_it_does_not_do():
    event = Answers(EventState)
    event.ask("a", "WAIT")
    event.end("a")
    assert event.ask("b", "SET") == [("b", "YES")]
    assert event.ask("b", "GET") == [("b", "UNKNOWN")]
