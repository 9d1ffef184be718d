"""Barriers as states."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers

from klyng_mp.objects.barriers import BarrierState


def made(*, acts=False):
    return Answers(partial(BarrierState, parties=3, acts=acts))


def test_all_go_on_when_the_last_has_come_and_the_next_round_is_the_same():
    barrier = made()
    for _ in range(2):
        assert barrier.ask("a", "WAIT") == barrier.ask("b", "WAIT") == []
        assert barrier.ask("c", "WAIT") == [("a", "YES"), ("b", "YES"), ("c", "YES")]


def test_the_last_acts_before_the_others_go_on_and_who_comes_meanwhile_is_of_the_next_round():
    barrier = made(acts=True)
    barrier.ask("a", "WAIT")
    barrier.ask("b", "WAIT")
    assert barrier.ask("c", "WAIT") == [("c", "ACT")]
    assert barrier.ask("d", "WAIT") == []
    assert barrier.ask("c", "DONE", 1) == [("a", "YES"), ("b", "YES"), ("c", "YES")]
    assert barrier.ask("a", "WAIT") == []
    assert barrier.ask("b", "WAIT") == [("b", "ACT")]


def test_an_action_that_fails_breaks_it():
    barrier = made(acts=True)
    for name in "abc":
        barrier.ask(name, "WAIT")
    assert barrier.ask("c", "DONE", 0) == [("a", "BROKEN"), ("b", "BROKEN"), ("c", "YES")]
    assert barrier.ask("a", "WAIT") == [("a", "BROKEN")]


@pytest.mark.parametrize("how", ["cancel", "end", "RESET", "ABORT"])
def test_who_leaves_breaks_the_round(how):
    barrier = made()
    barrier.ask("a", "WAIT")
    barrier.ask("b", "WAIT")
    answers = getattr(barrier, how)("b") if how.islower() else barrier.ask("d", how)
    assert ("a", "BROKEN") in answers
    assert barrier.ask("a", "WAIT") == ([] if how == "RESET" else [("a", "BROKEN")])
    barrier.ask("a", "RESET")
    for name in "ab":
        assert barrier.ask(name, "WAIT") == []
    assert len(barrier.ask("c", "WAIT")) == 3


def test_it_says_how_many_have_come_and_what_it_does_not_do():
    barrier = made()
    barrier.ask("a", "WAIT")
    barrier.ask("b", "LOOK")
    assert barrier.numbers == (1, 0, 0)
    barrier.ask("b", "ABORT")
    barrier.ask("b", "LOOK")
    assert barrier.numbers == (0, 1, 0)
    assert barrier.ask("b", "GET") == [("b", "UNKNOWN")]
