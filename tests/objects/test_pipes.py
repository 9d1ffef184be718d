"""Pipes as states, in the driver: who gets what, and when nobody has the other end."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers

from klyng_mp.objects.orders import Order, Verb, What
from klyng_mp.objects.pipes import MOST_WAITING, PipeState


class Pipe(Answers):
    """The ends are of processes "a" and "b" at first."""

    def __init__(self):
        self.over = 0
        super().__init__(partial(PipeState, holders=(self.process("a"), self.process("b")), over=self._end))

    def _end(self):
        self.over += 1

    def send(self, name, end, text):
        return self.ask(name, "SEND", end, content=(0, text.encode(), ()))

    def recv(self, name, end):
        answers = self.ask(name, "RECV", end)
        return self.content[1].decode() if answers and answers[0] == (name, "YES") else answers

    def tell(self, name, what, end):
        """Ask for what is not answered."""
        self.state.ask(Order(Verb.ASK, getattr(What, what), self.asker(name, 0), end))
        return self.take()

    def promise(self, end, name, incarnation, *, kept=True):
        self.state.promise(end, (ord(name), incarnation), kept=kept)


@pytest.fixture
def pipe():
    return Pipe()


def test_each_end_receives_what_the_other_sends_in_that_order(pipe):
    for text in "123":
        assert pipe.send("a", 0, text) == [("a", "YES")]
        assert pipe.send("b", 1, "-" + text) == [("b", "YES")]
    assert [pipe.recv("b", 1) for _ in range(3)] == ["1", "2", "3"]
    assert [pipe.recv("a", 0) for _ in range(3)] == ["-1", "-2", "-3"]


def test_who_waits_is_served_first_come_first_served(pipe):
    assert pipe.recv("b", 1) == pipe.recv("b'", 1) == []
    assert pipe.send("a", 0, "x") == [("a", "YES"), ("b", "YES")]
    assert pipe.send("a", 0, "y") == [("a", "YES"), ("b'", "YES")]


def test_who_looks_is_told_and_takes_nothing(pipe):
    assert pipe.ask("b", "PEEK", 1, 0) == [("b", "NO")]
    assert pipe.ask("b", "PEEK", 1, 1) == []
    assert pipe.send("a", 0, "x") == [("a", "YES"), ("b", "YES")]
    assert pipe.ask("b", "PEEK", 1, 0) == [("b", "YES")]
    assert pipe.recv("b", 1) == "x"


def test_who_sends_too_much_waits_for_room(pipe):
    much = "x" * (MOST_WAITING // 2 + 1)
    assert pipe.send("a", 0, much) == pipe.send("a", 0, much) == [("a", "YES")]
    assert pipe.send("a", 0, "last") == []
    assert pipe.send("a'", 0, "later still") == []
    assert len(pipe.recv("b", 1)) == len(much)
    assert pipe.recv("b", 1) == much
    assert [pipe.recv("b", 1), pipe.recv("b", 1)] == ["last", "later still"]


def test_room_is_for_as_many_as_it_is_for(pipe):
    pipe.send("a", 0, "x" * MOST_WAITING)
    waiting = ["a", "a'", "a''"]
    assert all(pipe.send(name, 0, name) == [] for name in waiting)
    assert pipe.ask("b", "RECV", 1) == [("b", "YES"), *((name, "YES") for name in waiting)]


def test_who_gives_up_is_not_served(pipe):
    pipe.recv("b", 1)
    assert pipe.cancel("b") == [("b", "CANCELLED")]
    pipe.ask("b", "PEEK", 1, 1)
    assert pipe.cancel("b") == [("b", "CANCELLED")]
    pipe.send("a", 0, "x" * MOST_WAITING)
    pipe.send("a'", 0, "not sent")
    assert pipe.cancel("a'") == [("a'", "CANCELLED")]
    assert len(pipe.recv("b", 1)) == MOST_WAITING
    assert pipe.ask("b", "PEEK", 1, 0) == [("b", "NO")]
    assert pipe.cancel("b") == []


def test_what_nobody_wanted_after_all_is_received_next(pipe):
    pipe.send("a", 0, "2")
    pipe.state.ask(Order(Verb.ASK, What.GIVE_BACK, pipe.asker("b", 0), 1, content=(0, b"1", ())))
    assert [pipe.recv("b", 1), pipe.recv("b", 1)] == ["1", "2"]


@pytest.mark.parametrize("how", ["closes", "ends"])
def test_an_end_that_nobody_has_is_told_to_the_other(pipe, how):
    pipe.send("a", 0, "left")
    pipe.send("b", 1, "lost")
    assert pipe.recv("b", 1) == "left"
    assert pipe.recv("b'", 1) == []
    assert pipe.ask("b", "PEEK", 1, 1) == []
    told = pipe.tell("a", "DROP", 0) if how == "closes" else pipe.end("a")
    assert sorted(told) == [("b", "YES"), ("b'", "ENDED")]
    assert pipe.recv("b", 1) == [("b", "ENDED")]
    assert pipe.ask("b", "PEEK", 1, 0) == [("b", "YES")]
    assert pipe.send("b", 1, "x") == [("b", "BROKEN")]
    assert not pipe.over


def test_what_was_sent_before_the_end_is_received_before_it(pipe):
    pipe.send("a", 0, "x")
    assert pipe.tell("a", "DROP", 0) == []
    assert pipe.recv("b", 1) == "x"
    assert pipe.recv("b", 1) == [("b", "ENDED")]


def test_who_waits_for_room_is_told_of_the_end(pipe):
    pipe.send("a", 0, "x" * MOST_WAITING)
    pipe.send("a", 0, "y")
    assert pipe.end("b") == [("a", "BROKEN")]


def test_who_waits_at_an_end_that_is_closed_is_told(pipe):
    pipe.recv("b", 1)
    assert pipe.tell("b", "DROP", 1) == [("b", "ENDED")]


def test_an_end_is_open_while_anybody_has_it(pipe):
    pipe.tell("a", "PASS", 0)
    assert pipe.recv("b", 1) == []
    assert pipe.tell("a", "DROP", 0) == []  # it is on its way
    assert pipe.tell("c", "HOLD", 0) == []
    assert pipe.tell("c", "HOLD", 0) == []
    assert pipe.tell("c", "DROP", 0) == []
    assert pipe.tell("c", "DROP", 0) == [("b", "ENDED")]
    assert pipe.tell("b", "DROP", 1) == []
    assert pipe.over == 1


def test_nobody_is_left_to_come_to_what_was_on_its_way(pipe):
    pipe.tell("c", "PASS", 0)
    pipe.end("a")
    assert pipe.recv("b", 1) == []
    pipe.state.forget_passing()
    assert pipe.take() == [("b", "ENDED")]


def test_what_was_on_its_way_ends_with_its_sender(pipe):
    pipe.tell("a", "PASS", 0)
    pipe.tell("c", "PASS", 0)
    pipe.recv("b", 1)
    assert pipe.end("a") == []
    assert pipe.end("c") == [("b", "ENDED")]


def test_a_promise_is_kept_by_the_next_occupant_of_a_place(pipe):
    pipe.promise(0, "c", 0)
    pipe.recv("b", 1)
    assert pipe.end("a") == []
    assert pipe.tell("c", "HOLD", 0) == []
    assert pipe.end("c") == [("b", "ENDED")]


def test_a_promise_ends_with_the_next_occupant_and_not_with_the_former_one(pipe):
    pipe.promise(0, "c", 1)
    pipe.promise(0, "d", 0)
    pipe.recv("b", 1)
    pipe.end("a")
    assert pipe.end("c") == []  # incarnation 1: it was there before
    assert pipe.end("d") == []
    pipe.state.part((ord("c"), 2), orderly=False)
    assert pipe.take() == [("b", "ENDED")]


def test_a_promise_that_could_not_be_made_is_none(pipe):
    pipe.promise(0, "c", 0)
    pipe.recv("b", 1)
    pipe.end("a")
    pipe.promise(0, "c", 0, kept=False)
    assert pipe.take() == [("b", "ENDED")]
    pipe.promise(0, "c", 0, kept=False)
    assert pipe.take() == []


def test_what_does_not_exist_is_told(pipe):
    assert pipe.ask("a", "READ", 0) == [("a", "UNKNOWN")]
