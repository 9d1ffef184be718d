"""The waiting room: one thread polls, the others sleep, nobody is forgotten."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import pytest
from contracts.ranks import LIMIT, Background, when_in

from klyng_mp.communicator.waiters import Waiter
from klyng_mp.communicator.waiting import WaitingRoom
from klyng_mp.deadline import Deadline

NEVER = Deadline(None)


class Bed:
    """A port, as far as one naps on it."""

    def __init__(self):
        self.naps = []

    def doze(self, *how):
        """Sleep, for no time, until the bell rings."""
        self.naps.append(how)
        return True


@pytest.fixture
def room():
    spoiled = []
    made = WaitingRoom(lambda: spoiled.append(True))
    made.spoiled = spoiled
    yield made
    with made.lock:
        made.stopped = True
        made.close()


@pytest.fixture
def pipe(room):
    """Give a pipe that the room watches; ``got`` holds what was read from it."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    got = []
    with room.lock:
        room.poller.register(reader, 1, lambda _: got.append(os.read(reader, 1)))
    yield writer, got
    with room.lock:
        room.poller.unregister(reader)
    os.close(reader)
    os.close(writer)


def wait(room, ready, timeout=None):
    with room.lock:
        return room.wait(ready, Deadline(timeout))


def test_what_is_ready_is_not_waited_for(room):
    room.poller.wait = None  # it would fail
    assert wait(room, lambda: True)


@pytest.mark.parametrize("timeout", [0, 0.02, -1])
def test_the_deadline(room, timeout):
    start = time.monotonic()
    assert not wait(room, lambda: False, timeout)
    assert time.monotonic() - start >= max(timeout, 0)


def test_a_deadline_that_is_over_still_moves_what_can_be_moved(room, pipe):
    writer, got = pipe
    os.write(writer, b"x")
    assert wait(room, lambda: bool(got), 0)


def test_a_deadline_beyond_what_the_kernel_can_count(room, pipe):
    writer, got = pipe
    seen = when_in(room, 2)
    calls = [Background(lambda: wait(room, lambda: bool(got), 1e12)) for _ in range(2)]
    assert seen.wait(LIMIT)
    os.write(writer, b"x")
    assert [call.result() for call in calls] == [True, True]


def test_whoever_polls_wakes_the_one_that_is_ready_only(room, pipe):
    writer, got = pipe
    seen = when_in(room, 5)
    calls = [Background(lambda n=n: wait(room, lambda: len(got) > n)) for n in range(5)]
    assert seen.wait(LIMIT)
    for number in range(5):
        os.write(writer, b"x")
        assert calls[number].result()
    assert room._waiters == []
    assert room._polling is None


def test_what_is_waited_is_counted_by_whom_it_is_for(room):
    assert wait(room, lambda: True)
    assert room.waited == {}
    assert not wait(room, lambda: False, 0.02)
    with room.lock:
        for _ in range(2):
            assert not room.wait(lambda: False, Deadline(0.02), "", 3)
    bed = Bed()
    assert room.nap(bed, 7, 5)
    assert bed.naps == [(room.lock, room.poller.fileno(), 7)]
    assert set(room.waited) == {None, 3, 5}
    assert room.waited[5][1] == 1
    assert room.waited[None][1] == 1
    assert room.waited[3][1] == 2
    assert 20_000_000 <= room.waited[None][0] < room.waited[3][0]


def test_the_last_to_come_takes_over_when_the_poller_leaves(room, pipe):
    writer, got = pipe
    leave = []
    seen = when_in(room, 1)
    first = Background(lambda: wait(room, lambda: bool(leave)))
    assert seen.wait(LIMIT)
    seen = when_in(room, 2)
    second = Background(lambda: wait(room, lambda: bool(got)))
    assert seen.wait(LIMIT)
    with room.lock:
        leave.append(True)
        room.notify()
    assert first.result()
    os.write(writer, b"x")
    assert second.result()


def test_a_sleeper_gives_up_at_its_own_time(room):
    seen = when_in(room, 1)
    leave = []
    first = Background(lambda: wait(room, lambda: bool(leave)))
    assert seen.wait(LIMIT)
    assert not wait(room, lambda: False, 0.02)
    with room.lock:
        leave.append(True)
        room.notify()
    assert first.result()


def test_stopping_ends_all_waits(room):
    seen = when_in(room, 4)
    calls = [Background(lambda: wait(room, lambda: False)) for _ in range(4)]
    assert seen.wait(LIMIT)
    with room.lock:
        room.stopped = True
        room.notify()
    assert [call.result() for call in calls] == [True] * 4


def test_closing_waits_for_the_threads_to_leave(room):
    seen = when_in(room, 2)
    calls = [Background(lambda: wait(room, lambda: False)) for _ in range(2)]
    assert seen.wait(LIMIT)
    with room.lock:
        room.stopped = True
        room.close()
    for call in calls:
        assert call.result()
    assert room._doorbell == -1


def test_an_error_of_a_condition_is_its_own_threads(room, pipe):
    writer, got = pipe

    def fails():
        if got:
            raise LookupError("mine")
        return False

    seen = when_in(room, 2)
    calls = [Background(lambda: wait(room, lambda: bool(got))), Background(lambda: wait(room, fails))]
    assert seen.wait(LIMIT)
    os.write(writer, b"x")
    assert calls[0].result()
    with pytest.raises(LookupError, match="mine"):
        calls[1].result()
    assert room.spoiled == []


def test_a_callback_may_not_wait(room):
    complaints = []

    def callback(_events):
        try:
            room.wait(lambda: False, NEVER)
        except RuntimeError as error:
            complaints.append(str(error))
            os.read(reader, 1)

    reader, ours = os.pipe()
    with room.lock:
        room.poller.register(reader, 1, callback)
    os.write(ours, b"x")
    assert wait(room, lambda: bool(complaints))
    assert "a callback of the poller may not wait" in complaints[0]
    with room.lock:
        room.poller.unregister(reader)
    os.close(reader)
    os.close(ours)


def test_an_exception_that_escapes_a_callback_spoils(room):
    reader, ours = os.pipe()
    with room.lock:
        room.poller.register(reader, 1, lambda _: 1 // 0)
    os.write(ours, b"x")
    with pytest.raises(ZeroDivisionError):
        wait(room, lambda: False)
    assert room.spoiled == [True]
    with room.lock:
        room.poller.unregister(reader)
    os.close(reader)
    os.close(ours)


def test_a_callback_may_unregister_another_that_is_due(room):
    pairs = [os.pipe() for _ in range(2)]
    called = []

    def callback(index):
        called.append(index)
        for reader, _ in pairs:
            room.poller.unregister(reader)

    with room.lock:
        for index, (reader, writer) in enumerate(pairs):
            room.poller.register(reader, 1, lambda _, index=index: callback(index))
            os.write(writer, b"x")
    assert wait(room, lambda: bool(called))
    assert len(called) == 1
    for fd in (fd for pair in pairs for fd in pair):
        os.close(fd)


@pytest.mark.parametrize("others", [0, 1])
def test_ctrl_c_is_seen_at_once_by_the_poller_and_by_a_sleeper(room, others):
    leave = []
    seen = when_in(room, 1)
    calls = [Background(lambda: wait(room, lambda: bool(leave))) for _ in range(others)]
    assert not others or seen.wait(LIMIT)
    about_to_wait = when_in(room, others + 1)

    def interrupt():
        assert about_to_wait.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        wait(room, lambda: False)
    interrupter.result()
    assert not room.lock._is_owned()
    assert room.spoiled == []
    with room.lock:
        leave.append(True)
        room.notify()
    for call in calls:
        assert call.result()
    assert not wait(room, lambda: False, 0)


def test_an_idle_wait_uses_no_cpu(room):
    before = time.process_time()
    assert not wait(room, lambda: False, 0.3)
    assert time.process_time() - before < 0.1


class Watched:
    """A poller's ``wait`` that takes note of how long it was to wait, and finds something at a given time."""

    def __init__(self, wait, finds_at=None):
        self.wait = wait
        self.pauses = []
        self.finds_at = finds_at

    def __call__(self, seconds, most):
        self.pauses.append(seconds)
        if self.finds_at is not None and len(self.pauses) >= self.finds_at:
            return self.wait(seconds, most)
        return [] if seconds == 0 else self.wait(seconds, most)


def test_a_spin_finds_what_comes_soon_without_a_sleep(room, pipe):
    writer, got = pipe
    room.spin_seconds = 30.0
    room.poller.wait = watched = Watched(room.poller.wait, finds_at=5)
    os.write(writer, b"x")
    assert wait(room, lambda: bool(got))
    assert watched.pauses == [0] * 5


def test_spins_in_vain_become_rare_and_come_back(room, pipe):
    writer, got = pipe
    room.spin_seconds = 1e-9
    room.poller.wait = watched = Watched(room.poller.wait)
    spins = []
    for number in range(1, 30):
        watched.pauses.clear()
        os.write(writer, b"x")
        assert wait(room, lambda number=number: len(got) == number)
        spins.append(0 in watched.pauses)
    assert [index for index, spun in enumerate(spins) if spun] == [0, 2, 6, 14]
    room._spins_to_skip, watched.finds_at, room.spin_seconds = 0, 1, 30.0
    for number in (30, 31):
        os.write(writer, b"x")
        assert wait(room, lambda number=number: len(got) == number)
        assert watched.pauses[-1] == 0


def test_progress_wakes_who_it_served(room, pipe):
    writer, got = pipe
    seen = when_in(room, 1)
    call = Background(lambda: wait(room, lambda: bool(got)))
    assert seen.wait(LIMIT)
    os.write(writer, b"x")
    with room.lock:
        room.progress()
    assert call.result()


def test_nobody_silences_a_doorbell_that_rings_for_another(room):
    seen = when_in(room, 1)
    done = []
    call = Background(lambda: wait(room, lambda: bool(done)))
    assert seen.wait(LIMIT)
    with room.lock:
        done.append(True)
        room.notify()
        for _ in range(100):
            room.progress()
    assert call.result()


@pytest.mark.parametrize("others", [0, 1])
def test_a_signal_just_before_the_kernels_call_is_seen_soon(room, others):
    """No sleep is long, and the first one is short where another thread can send a signal just then."""
    seen = when_in(room, 1)
    leave, pauses = [], []
    poll = room.poller.wait

    def note(seconds, max_events):
        pauses.append(seconds)
        return poll(0, max_events) if others else leave.append(True) or []

    other = threading.Event()
    calls = [Background(lambda: other.wait(LIMIT)) for _ in range(others)]
    room.poller.wait = note
    assert not others or not wait(room, lambda: False, 0.05)
    assert others or wait(room, lambda: bool(leave))
    assert pauses[0] == (0.02 if others else 1.0)
    assert all(seconds <= 1.0 for seconds in pauses)
    other.set()
    assert all(call.result() for call in calls)
    assert others or seen.is_set()


def test_what_another_thread_has_served_meanwhile_is_not_served_again(room, pipe):
    writer, got = pipe
    poll, looked = room.poller.wait, []

    def progress():
        with room.lock:
            room.progress()

    def overtaken(seconds, max_events):
        events = poll(seconds, max_events)
        if not looked:
            looked.append(events)
            Background(progress).result()
        return events

    os.write(writer, b"x")
    room.poller.wait = overtaken
    assert wait(room, lambda: bool(got))
    assert looked[0] != []
    assert (got, room.spoiled) == ([b"x"], [])


# -- who waits, for whoever asks -----------------------------------------------------------------------


def test_who_waits_can_be_asked_what_for(room, pipe):
    writer, got = pipe
    seen = []
    callback = room.poller.callbacks.popitem()

    def look(events):
        callback[1](events)
        seen.extend((one.call, one.peers, one.deadline, one.since) for one in room.waiters)

    room.poller.callbacks[callback[0]] = look
    os.write(writer, b"x")
    deadline = Deadline(30)
    begin = time.monotonic()
    with room.lock:
        assert room.waiters == []
        assert room.wait(lambda: bool(got), deadline, "probe()", 3)
        assert room.waiters == []
    ((call, peers, limit, since),) = seen
    assert (call, peers, limit) == ("probe()", (3,), deadline)
    assert begin <= since <= time.monotonic()


def test_the_words_are_made_when_somebody_asks():
    def describe(name, source):
        return f"{name}({source})"

    waiter = Waiter(lambda: False, NEVER, (describe, "recv", 4), lambda: {2, 1})
    assert (waiter.call, waiter.peers) == ("recv(4)", (1, 2))
    assert Waiter(lambda: False, NEVER, "", None).peers is None
    assert Waiter(lambda: False, NEVER, "", list).peers is None


# -- guests


class Visitor:
    """A guest that notes how often it is woken."""

    def __init__(self, ready=lambda: False):
        self.called = False
        self.woken = 0
        self.is_ready = ready

    def wake(self):
        self.woken += 1


@pytest.fixture
def welcome(room):
    """Give a function that makes a guest; all leave in the end."""
    there = []

    def make(ready=lambda: False):
        there.append(Visitor(ready))
        with room.lock:
            room.welcome(there[-1])
        return there[-1]

    yield make
    with room.lock:
        for guest in there:
            room.dismiss(guest)


def test_a_guest_is_woken_by_what_a_thread_has_moved(room, pipe, welcome):
    writer, got = pipe
    guest, other = welcome(lambda: bool(got)), welcome()
    os.write(writer, b"x")
    assert wait(room, lambda: bool(got))
    assert guest.woken == other.woken == 1, "the one has something to do, and both have to say that they sleep"
    with room.lock:
        room.notify()
    assert guest.woken == 1, "it has not looked yet"
    guest.called = other.called = False
    with room.lock:
        room.notify()
    assert (guest.woken, other.woken) == (2, 1)


def test_guests_are_told_when_no_thread_watches_any_more(room, welcome):
    guest = welcome()
    assert not wait(room, lambda: False, 0.01)
    assert guest.woken == 1


def test_a_guest_need_not_watch_while_a_thread_does(room, welcome):
    guest, leave, asked = welcome(), [], []

    def is_quiet(before_sleep):
        asked.append(before_sleep)
        return False

    seen = when_in(room)
    call = Background(lambda: wait(room, lambda: bool(leave)))
    assert seen.wait(LIMIT)
    with room.lock:
        room.poller.attend(-1, is_quiet)
        assert room.rest() == math.inf
        assert asked == []
        leave.append(True)
        room.notify()
    assert call.result()
    assert guest.woken == 1
    with room.lock:
        assert room.rest() == 0
        room.poller.unregister(-1)
    assert asked == [True]


def test_progress_of_a_guest_is_told_to_the_others(room, pipe, welcome):
    writer, got = pipe
    first, second = welcome(), welcome()
    first.called = True
    os.write(writer, b"x")
    with room.lock:
        room.progress()
    assert got == [b"x"]
    assert (first.woken, second.woken) == (0, 1)


def test_stopping_wakes_guests_and_closing_waits_for_them(room, welcome):
    guest = welcome()
    with room.lock:
        room.stopped = True
        room.notify()
        assert guest.woken == 1
        room.close()
        assert room.poller.fileno() >= 0
        assert room.rest() == math.inf
        room.dismiss(guest)
        assert room._doorbell == -1
        room.guests.append(guest)
        room.lock.waiting += 1


def test_nobody_naps_while_there_is_a_guest(room, welcome):
    welcome()
    assert not room.nap(Bed())


def test_what_callbacks_left_to_be_done_is_done_after_them():
    reader, writer = os.pipe()
    done = []
    room = WaitingRoom(lambda: None, lambda: done.append("after"))
    with room.lock:
        room.poller.register(reader, 1, lambda _: done.append(os.read(reader, 1)))
        os.write(writer, b"x")
        room.progress()
        room.progress()
        assert done == [b"x", "after"]
        room.poller.unregister(reader)
        room.close()
    os.close(reader)
    os.close(writer)
