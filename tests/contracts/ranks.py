"""Ranks for the contract suites: endpoints joined by a transport, one thread each."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from itertools import combinations, permutations

import pytest
from greenlet import getcurrent, greenlet

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.tracing import TracedCommunicator, TracedEndpoint
from klyng_mp.deadline import Deadline
from klyng_mp.green.endpoint import Hall
from klyng_mp.green.scheduler import Scheduler
from klyng_mp.transports.memory import MemoryHub, MemoryTransport
from klyng_mp.transports.shm import Segment, ShmTransport
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message, make_context

FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
LIMIT = 30 * FACTOR  # seconds; nothing here takes so long unless it hangs


class Ranks:
    """As many endpoints as asked for, all connected, with a communicator each."""

    def __init__(self, size, join, kinds=(Endpoint, Communicator)):
        make_endpoint, make_communicator = kinds
        self.endpoints = [make_endpoint(number, incarnation=1) for number in range(size)]
        self._tidy = join(self.endpoints)
        for one in self.endpoints:
            for other in self.endpoints:
                if one is not other:
                    one.mark_present(other.number, 1)
        codec = Codec(main_by_reference=True)
        self.comms = [
            make_communicator(endpoint, codec, context=make_context(1), rank=endpoint.number, members=range(size))
            for endpoint in self.endpoints
        ]
        for one in self.endpoints:
            one.find_call = self._find_call

    def _find_call(self, number, context, call):
        """Look into another endpoint's log, as ranks that are processes do through their supervisor."""
        log = self.endpoints[number].call_logs.get(context)
        return None if log is None else log.find(call)

    def run(self, *functions):
        """Call one function for all ranks, or one for each, with its communicator; return the results by rank."""

        def call(function, comm):
            result = function(comm)
            comm.endpoint.flush(Deadline(LIMIT))  # as ranks do when their program is over
            return result

        chosen = functions if len(functions) > 1 else functions * len(self.comms)
        return together([lambda f=f, c=c: call(f, c) for f, c in zip(chosen, self.comms, strict=True)], self.stop)

    def stop(self):
        for endpoint in self.endpoints:
            endpoint.close()
        if self._tidy is not None:
            self._tidy()
            self._tidy = None


class Turns(Scheduler):
    """A scheduler for tests: the greenlet that drives may be any rank, and so may others, one after the other."""

    def sleep(self, number):
        self._greenlets[number] = getcurrent()
        super().sleep(number)

    def nap(self, number):
        self._greenlets[number] = getcurrent()
        return super().nap(number)

    def give_way(self, number):
        self._greenlets[number] = getcurrent()
        super().give_way(number)

    def _switch(self):
        if getcurrent() is not self._hub:
            self._hub.switch()
            return
        self._ring_alarms()
        if not self._let_one_run() and not (self._alarms or self._wake_nappers()):
            raise AssertionError("nothing goes on, and the test waits")

    def until(self, ready):
        """Let ranks run until something is so."""
        limit = time.monotonic() + LIMIT
        while not ready():
            assert time.monotonic() < limit, "it hangs"
            self._switch()


class GreenRanks:
    """Ranks that take turns in this thread: each call of `run`, and each `Background`, is a greenlet."""

    def __init__(self, size):
        self.scheduler = Turns()
        self._hall = Hall(self.scheduler, size)
        self.endpoints = [self._hall.enter(number) for number in range(size)]
        codec = Codec(main_by_reference=True)
        self.comms = [
            Communicator(endpoint, codec, context=make_context(1), rank=endpoint.number, members=range(size))
            for endpoint in self.endpoints
        ]
        self.scheduler.mind_nappers(lambda number: not self.endpoints[number].waiters)
        self.scheduler.populate([None] * size, [])

    def run(self, *functions):
        chosen = functions if len(functions) > 1 else functions * len(self.comms)
        calls = [Background(lambda f=f, c=c: f(c)) for f, c in zip(chosen, self.comms, strict=True)]
        self.scheduler.until(lambda: any(call.failed for call in calls) or all(call.over for call in calls))
        failed = [call for call in calls if call.failed]
        if failed:
            self.stop()
        return [call.result() for call in failed or calls]

    def stop(self):
        for endpoint in self.endpoints:
            endpoint.abort("is over", None)


_green = None  # the GreenRanks of the test that runs


def together(calls, stop=lambda: None):
    """Make all calls at once, each in a thread; return their results or raise the first error."""
    results, errors = [None] * len(calls), []

    def body(index):
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    hanging = [thread for thread in threads if thread.join(LIMIT) or thread.is_alive()]
    if hanging:
        stop()
        raise AssertionError(f"{len(hanging)} of {len(calls)} hang; errors of others: {errors}")
    if errors:
        raise errors[0]
    return results


@contextmanager
def interrupted(desk):
    """Interrupt this thread, the main one, once it waits for an answer to what it asks within.

    It does not move messages at that moment: an endpoint does not survive an interrupt of that.
    """

    def press():
        while not desk.waits:
            pass
        with desk.endpoint.lock:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    thread.join()


class Background:
    """One call in a thread of its own, or where ranks take turns in a greenlet."""

    def __init__(self, call):
        self._outcome = []
        if _green is not None:
            self._greenlet = greenlet(self._body)
            self._greenlet.switch(call)
            return
        self._thread = threading.Thread(target=self._body, args=(call,), daemon=True)
        self._thread.start()

    def _body(self, call):
        try:
            self._outcome.append((call(), None))
        except BaseException as error:
            self._outcome.append((None, error))

    @property
    def over(self):
        return bool(self._outcome)

    @property
    def failed(self):
        return self.over and self._outcome[0][1] is not None

    def result(self):
        if _green is not None:
            _green.scheduler.until(lambda: self.over)
        else:
            self._thread.join(LIMIT)
        assert self._outcome, "it hangs"
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value


def by_memory(endpoints):
    hub = MemoryHub()
    for endpoint in endpoints:
        endpoint.use(MemoryTransport(endpoint, endpoint.poller, hub=hub, number=endpoint.number))


def by_stream(endpoints):
    transports = []
    for endpoint in endpoints:
        transport = StreamTransport(endpoint, endpoint.poller, connect=lambda _: None)
        endpoint.use(transport)
        transports.append(transport)
    for one, other in combinations(range(len(endpoints)), 2):
        first, second = socket.socketpair()
        transports[one].adopt(other, first)
        transports[other].adopt(one, second)


def by_shm(endpoints):
    segment = Segment(len(endpoints))
    transports = []
    for endpoint in endpoints:
        number = endpoint.number
        place = os.dup(segment.fd), os.dup(segment.bells[number]), len(endpoints), number, endpoint.incarnation
        transport = ShmTransport(
            endpoint, endpoint.poller, place=place, spin=False, call=segment.ring, progress=endpoint.progress
        )
        endpoint.use(transport, transport.port)
        transports.append(transport)
    for one, other in permutations(range(len(endpoints)), 2):  # who never met is not told of an end
        transports[one].send(other, Message(0, one, 0, 0, 1, b"to nobody", []), copy=False)
        transports[one]._shut(other)
    return segment.close


JOINS = {"memory": by_memory, "stream": by_stream, "shm": by_shm}


@contextmanager
def ranks(size, transport="stream"):
    """Give `Ranks` that are closed in the end.

    "traced shm" are such that have a trace, "plain shm" such whose collectives know no shortcuts through the memory,
    "attended stream" such that have an attendant each.
    """
    *kind, name = transport.split()
    if name == "green":
        global _green  # noqa: PLW0603 - one test runs at a time
        made = GreenRanks(size)
        before, _green = _green, made
        try:
            yield made
        finally:
            made.stop()
            _green = before
        return
    traced = kind == ["traced"]
    made = Ranks(size, JOINS[name], (TracedEndpoint, TracedCommunicator) if traced else (Endpoint, Communicator))
    if kind == ["attended"]:
        for endpoint in made.endpoints:
            endpoint.attend()
    if kind == ["plain"]:
        for comm in made.comms:
            comm.direct, comm.meeting = False, None
    try:
        yield made
    finally:
        made.stop()


def when_waiting(endpoint, count=1):
    """Return an event that is set once ``count`` threads are about to wait in the endpoint."""
    if _green is not None:
        return _Waiting(endpoint)
    return when_in(endpoint._room, count)


class _Waiting:
    """As an event: that a green rank waits."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def wait(self, _seconds):
        _green.scheduler.until(lambda: self._endpoint.waiters)
        return True


def when_in(room, count=1):
    """Return an event that is set once ``count`` threads are about to wait in the room."""
    waiting = threading.Event()

    def spied(original):
        def spy(waiter, seconds):
            if len(room._waiters) >= count:
                waiting.set()
            return original(waiter, seconds)

        return spy

    room._poll, room._sleep = spied(room._poll), spied(room._sleep)
    return waiting


def leave_out(contract, why, *names):
    """Skip tests of a contract, and say why."""
    for name in names:
        setattr(contract, name, pytest.mark.skip(reason=why)(getattr(contract, name)))
