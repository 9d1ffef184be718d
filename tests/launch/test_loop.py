"""launch.loop: descriptors and points in time, each with what to call."""

from __future__ import annotations

import os
import select
import time

import pytest

from klyng_mp.launch.loop import Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_calls_back_when_a_descriptor_is_ready(loop, pipe):
    seen = []
    loop.register(pipe[0], select.EPOLLIN, lambda events: seen.append((events, os.read(pipe[0], 10))))
    os.write(pipe[1], b"here")
    loop.turn()
    assert seen == [(select.EPOLLIN, b"here")]
    assert loop.watches(pipe[0])


def test_calls_nobody_who_was_unregistered(loop, pipe):
    loop.register(pipe[0], select.EPOLLIN, lambda _events: pytest.fail("called"))
    loop.unregister(pipe[0])
    loop.unregister(pipe[0])  # again: harmless
    os.write(pipe[1], b"x")
    assert not loop.watches(pipe[0])
    loop.call_later(0, loop.stop)
    loop.run()


def test_one_callback_may_unregister_another_that_is_due(loop):
    pipes = [os.pipe() for _ in range(2)]
    seen = []
    for index, (end, _) in enumerate(pipes):
        loop.register(end, select.EPOLLIN, lambda _events, i=index: (seen.append(i), loop.unregister(pipes[1 - i][0])))
        os.write(pipes[index][1], b"x")
    loop.turn()
    assert len(seen) == 1
    for end in (end for ends in pipes for end in ends):
        os.close(end)


def test_timers_that_were_cancelled_do_not_pile_up(loop):
    seen = []
    loop.call_later(0, lambda: seen.append("first"))
    for _ in range(10_000):
        loop.call_later(1000, seen.clear).cancel()
    loop.call_later(0, lambda: seen.append("last"))
    assert len(loop._timers) < 1000
    while len(seen) < 2:
        loop.turn()
    assert seen == ["first", "last"]


def test_of_many_timers_none_is_lost(loop):
    seen = []
    for number in range(1000):
        loop.call_later(0, lambda number=number: seen.append(number))
    while len(seen) < 1000:
        loop.turn()
    assert seen == list(range(1000))


def test_events_can_be_changed(loop, pipe):
    seen = []
    loop.register(pipe[1], select.EPOLLIN, seen.append)
    loop.call_later(0, lambda: None)
    loop.turn()
    assert seen == []
    loop.modify(pipe[1], select.EPOLLOUT)
    loop.turn()
    assert seen == [select.EPOLLOUT]


def test_calls_come_in_the_order_of_their_times(loop):
    seen = []
    for seconds in (0.03, 0.01, 0.02, 0.01):
        loop.call_later(seconds, lambda s=seconds: seen.append(s))
    loop.call_later(0.04, loop.stop)
    begin = time.monotonic()
    loop.run()
    assert seen == [0.01, 0.01, 0.02, 0.03]
    assert time.monotonic() - begin >= 0.04


def test_a_cancelled_call_does_not_come_and_wakes_nobody(loop):
    timer = loop.call_later(0.01, lambda: pytest.fail("called"))
    timer.cancel()
    timer.cancel()
    done = []
    loop.call_later(0.03, lambda: done.append(True))
    loop.turn()
    assert done == [True]  # one turn: it waited past the other's time


def test_an_action_may_plan_the_next(loop):
    seen = []

    def again():
        seen.append(len(seen))
        if len(seen) < 3:
            loop.call_later(0.001, again)
        else:
            loop.stop()

    loop.call_later(0, again)
    loop.run()
    assert seen == [0, 1, 2]


def test_the_end_of_the_other_side_is_an_event(loop):
    end, other = os.pipe()
    seen = []
    loop.register(end, select.EPOLLIN, seen.append)
    os.close(other)
    loop.turn()
    assert seen == [select.EPOLLHUP]
    loop.unregister(end)
    os.close(end)
