"""Queues as states, where they live; how they move and what becomes of them is in test_queuing."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers

from klyng_mp.objects.orders import Order, Verb, What
from klyng_mp.objects.stores import AT_ONCE, FIRST, StoreState, split_stamp


class Store(Answers):
    def __init__(self, maxsize=0, epoch=0):
        super().__init__(partial(StoreState, maxsize=maxsize, epoch=epoch))
        self.counts = {}

    def put(self, name, text, *, flags=0, number=None, epoch=0):
        number = self.counts.get(name, 0) if number is None else number
        self.counts[name] = max(self.counts.get(name, 0), number + 1)
        asker = self.last[name] = self.asker(name, self.last.get(name, (0, 0, 0, 0))[3] + 1)
        self.state.put(Order(Verb.PUT, 0, asker, epoch, number, flags, (0, text.encode(), ())))
        return self.take()

    def got(self, name):
        answer, *_ = self.ask(name, "GET", 0)
        return self.content[1].decode() if answer == (name, "GOT") else None


def test_items_come_in_the_order_in_which_they_were_put():
    store = Store()
    assert [store.put("a", text) for text in "123"] == [[("a", "YES")]] * 3
    assert [store.got("b") for _ in range(4)] == ["1", "2", "3", None]


def test_who_waits_longest_gets_the_first():
    store = Store()
    assert store.ask("b", "GET", 1) == store.ask("c", "GET", 1) == []
    assert store.put("a", "1") == [("a", "YES"), ("b", "GOT")]
    assert store.put("a", "2") == [("a", "YES"), ("c", "GOT")]


def test_what_overtakes_waits_for_what_was_put_before():
    store = Store()
    assert store.put("a", "2", number=1) == []
    assert store.put("a", "1", number=0) == [("a", "YES"), ("a", "YES")]
    assert [store.got("b") for _ in range(3)] == ["1", "2", None]


def test_what_comes_twice_counts_once_and_what_is_of_another_epoch_not_at_all():
    store = Store(epoch=3)
    assert store.put("a", "1", epoch=3, number=0) == [("a", "YES")]
    assert store.put("a", "1", epoch=3, number=0) == [("a", "YES")]
    assert store.put("a", "2", epoch=2, number=1) == []
    assert [store.got("b"), store.got("b")] == ["1", None]


def test_an_item_tells_whose_it_was():
    store = Store(epoch=3)
    store.put("a", "1", epoch=3)
    store.ask("b", "GET", 0)
    place, stamp, number = store.numbers
    assert (place, *split_stamp(stamp), number) == (ord("a"), 1, 3, 0)


def test_who_finds_no_room_waits_or_is_refused():
    store = Store(maxsize=1)
    assert store.put("a", "1") == [("a", "YES")]
    assert store.put("a", "2") == []
    assert store.put("b", "3", flags=AT_ONCE) == [("b", "FULL")]
    assert store.put("b", "4") == []
    assert store.cancel("b") == [("b", "CANCELLED")]
    assert store.ask("c", "GET", 1) == [("c", "GOT"), ("a", "YES")]
    assert [store.got("c"), store.got("c")] == ["2", None]


def test_what_is_put_back_is_first_and_needs_no_room():
    store = Store(maxsize=1)
    store.put("a", "2")
    assert store.put("b", "1", flags=FIRST) == [("b", "YES")]
    assert [store.got("c"), store.got("c")] == ["1", "2"]


def test_what_was_withdrawn_before_it_comes_is_not_done():
    store = Store()
    store.put("a", "1")
    store.last["b"] = store.asker("b", 1)
    assert store.cancel("b") == []
    store.last["b"] = store.asker("b", 0)
    assert store.ask("b", "GET", 1) == [("b", "CANCELLED")]
    assert store.ask("b", "GET", 1) == [("b", "GOT")]


def test_who_withdraws_early_uses_up_a_number():
    store = Store()
    store.put("a", "2", number=1)
    assert store.cancel("a") == [("a", "CANCELLED")]
    assert store.put("a", "1", number=0) == [("a", "YES")]
    assert store.put("a", "3", number=2) == [("a", "YES")]
    assert [store.got("b") for _ in range(3)] == ["1", "3", None]


def test_the_dead_wait_no_more_and_what_they_have_put_stays():
    store = Store(maxsize=1)
    store.ask("b", "GET", 1)
    store.end("b")
    assert store.put("a", "1") == [("a", "YES")]
    store.put("c", "2")
    store.end("a")
    store.end("c")
    assert [store.got("d"), store.got("d")] == ["1", None]


def test_it_may_be_looked_at():
    store = Store(maxsize=4)
    assert store.ask("a", "PEEK", 0) == [("a", "NO")]
    assert store.ask("b", "PEEK", 1) == []
    assert store.put("a", "1") == [("a", "YES"), ("b", "YES")]
    assert store.ask("b", "PEEK", 1) == [("b", "YES")]
    store.ask("b", "SIZE")
    assert store.numbers == (1, 4, 0)
    assert store.ask("b", "ACQUIRE") == [("b", "UNKNOWN")]


def test_it_is_joined_when_all_is_done():
    store = Store()
    assert store.ask("j", "JOIN") == [("j", "YES")]
    store.put("a", "1")
    assert store.ask("j", "JOIN") == []
    store.got("b")
    assert store.ask("b", "TASK_DONE") == [("b", "YES"), ("j", "YES")]
    assert store.ask("b", "TASK_DONE") == [("b", "TOO_OFTEN")]


@pytest.mark.parametrize("maxsize", [0, 1])
def test_what_moves_stays_as_it_was(maxsize):
    old, new = Store(maxsize), Store(maxsize)
    for text in "123":
        old.put("a", text)
    old.put("c", "late", number=1)
    for order in old.state.dump():
        new.state.load(order)
    new.counts = old.counts
    new.put("c", "soon", number=0)
    assert [new.got("b") for _ in range(6)] == ["1", "2", "3", "soon", "late", None]


def test_who_waits_moves_with_it():
    old, new = Store(), Store()
    old.ask("b", "GET", 1)
    old.ask("c", "PEEK", 1)
    for order in old.state.dump():
        new.state.load(order)
    assert new.put("a", "1") == [("a", "YES"), ("b", "GOT")]
    assert new.put("a", "2") == [("a", "YES"), ("c", "YES")]


def test_what_is_asked_twice_is_done_once_also_after_a_move():
    store = Store()
    for text in "123":
        store.put("a", text)
    order = Order(Verb.ASK, What.GET, (asker := store.asker("b", 7)), 1)
    store.state.ask(order)
    assert store.take() == [("b", "GOT")]
    store.state.ask(order)
    assert store.take() == []
    assert store.state.has_answered(asker)
    assert not store.state.has_answered(store.asker("b", 8))
    moved = Store()
    for one in store.state.dump():
        moved.state.load(one)
    moved.take()
    moved.state.ask(order)
    assert moved.take() == []
    assert [moved.got("c"), moved.got("c"), moved.got("c")] == ["2", "3", None]
