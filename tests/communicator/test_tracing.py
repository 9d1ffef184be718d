"""communicator.tracing: a traced communicator does what any does, and its trace says what was done."""

from __future__ import annotations

import marshal
import threading
import time
from types import FunctionType, SimpleNamespace

import pytest
from contracts.collectives import CollectivesContract
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp import native
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.requests import Status, waitall
from klyng_mp.communicator.tracing import (
    ARRIVED,
    NOBODY,
    RECEIVES,
    SENDS,
    Trace,
    TracedCommunicator,
    TracedEndpoint,
    trace_class,
)
from klyng_mp.errors import DeadlineError
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import make_context


@pytest.mark.slow
class TestTracedByStream(CommunicatorContract):
    transport = "traced stream"


@pytest.mark.slow
class TestTracedCollectives(CollectivesContract):
    transport = "traced memory"


if native.core is not None:

    class TestTracedByShm(CommunicatorContract):
        transport = "traced shm"


@pytest.fixture(params=["stream"] if native.core is None else ["stream", "shm"])
def pair(request):
    with ranks(2, f"traced {request.param}") as made:
        yield made.comms


def take(comm):
    """Return what the trace has by now, as (name, peer, tag, bytes), and forget it."""
    events = comm.endpoint.trace.events
    taken = [(name, *rest[3:6]) for name, *rest in events]
    assert all(begin <= end for _, begin, end, *_ in events)
    assert {event[3] for event in events} <= {threading.get_ident()}
    assert {event[7] for event in events if event[0] != "wait"} <= {comm.context}
    events.clear()
    return taken


def test_every_public_call_that_communicates_is_an_event():
    quiet = {"check_open", "check_rank", "close", "rank_of"}
    calls = {
        name
        for name in dir(Communicator)
        if not name.startswith("_") and type(getattr(Communicator, name)) is FunctionType
    }
    assert {name for name in calls if name in vars(TracedCommunicator)} == calls - quiet
    assert issubclass(TracedCommunicator, Communicator)
    assert all(
        getattr(TracedCommunicator, name).__doc__
        and getattr(TracedCommunicator, name) is not getattr(Communicator, name)
        for name in calls - quiet
    )


def test_messages_between_two(pair):
    one, other = pair
    for _ in range(2):  # the second goes the short way, if there is one
        one.send(b"abc", 1, 7)
        assert other.recv(0, 7) == b"abc"
        assert take(one) == [("send", 1, 7, 3)]
        assert take(other)[0][:3] == ("recv", 0, 7)
    one.isend("text", 1, tag="word").wait()
    assert other.recv() == "text"
    assert take(one)[0] == ("isend", 1, "word", 4)
    name, peer, tag, size = take(other)[0]
    assert (name, peer, tag) == ("recv", 0, "word")
    assert size >= 4


def test_what_is_not_known_has_no_size(pair):
    one, other = pair
    one.send({"a": 1}, 1)
    other.recv(0, 0)
    assert take(one) == [("send", 1, 0, -1)]


def test_a_users_status_is_filled_in(pair):
    one, other = pair
    one.send("x", 1, 3)
    one.send("y", 1, 4)
    one.send("z", 1, 5)
    one.send("own", 0, 6)
    statuses = [Status() for _ in range(4)]
    assert other.recv(status=statuses[0]) == "x"
    assert other.irecv(status=statuses[1]).wait() == "y"
    buffer = bytearray(10)
    one.send(b"12345", 1, 6)
    assert other.recv(tag=5) == "z"
    assert other.recv_into(buffer, status=statuses[2]) == 5
    assert one.sendrecv("w", 1, 0, 0, 6, status=statuses[3]) == "own"
    assert [(status.source, status.tag) for status in statuses] == [(0, 3), (0, 4), (0, 6), (0, 6)]


def test_a_request_is_an_event_when_it_is_started_waited_for_and_handed_out(pair):
    one, other = pair
    requests = [other.irecv(0, 1), other.irecv()]
    one.send("first", 1, 1)
    one.send("second", 1, 2)
    assert waitall(requests) == ["first", "second"]
    posted = {event[5]: event[8] for event in other.endpoint.trace.events if event[0] == ARRIVED}
    assert posted[1] < posted[2]
    events = take(other)
    assert [event[0] for event in events if event[0] != "wait"] == ["irecv", "irecv", ARRIVED, ARRIVED]
    assert [event[:3] for event in events if event[0] == ARRIVED] == [(ARRIVED, 0, 1), (ARRIVED, 0, 2)]
    assert ("wait", NOBODY, "irecv(source=0, tag=1)", -1) in events


def test_a_call_that_raises_is_an_event_with_its_error(pair):
    one, _ = pair
    for call, name in (
        (lambda: one.recv(1, timeout=0.001), "recv (DeadlineError)"),
        (lambda: one.recv_into(bytearray(1), 1, timeout=0.001), "recv_into (DeadlineError)"),
        (lambda: one.sendrecv(1, 1, 0, 1, 1, timeout=0.001), "sendrecv (DeadlineError)"),
        (lambda: one.probe(timeout=0.001), "probe (DeadlineError)"),
        (lambda: one.barrier(timeout=0.001), "barrier (DeadlineError)"),
    ):
        with pytest.raises(DeadlineError):
            call()
        assert [event for event in take(one) if event[0] != "wait"] == [(name, NOBODY, "", -1)]
    with pytest.raises(ValueError, match="dest"):
        one.send(1, 9)
    assert take(one) == [("send (ValueError)", NOBODY, "", -1)]


def test_a_wait_is_as_long_as_it_was(pair):
    one, other = pair
    seen = when_waiting(other.endpoint)
    receiving = Background(lambda: other.recv(0, "x", timeout=LIMIT))
    assert seen.wait(LIMIT)
    sent = time.perf_counter_ns()
    one.send(1, 1, "x")
    assert receiving.result() == 1
    ((_, begin, end, *_),) = other.endpoint.trace.events
    assert begin < sent < end


def test_names_with_a_message_are_of_calls_that_there_are_or_may_be():
    assert {name for name in SENDS | RECEIVES if hasattr(Communicator, name)} >= {"send", "isend", "sendrecv", "recv"}


def test_there_is_a_bound_and_the_rest_is_counted():
    trace = Trace(most=3)
    for number in range(5):
        trace.record(("x", number))
    assert (len(trace.events), trace.dropped) == (3, 2)
    assert marshal.loads(trace.pack()) == [("x", 0), ("x", 1), ("x", 2)]


def test_numbers_and_words_of_other_types_are_packed_as_what_they_are():
    class Word(str):
        __slots__ = ()

    class Number(int):
        pass

    trace = Trace()
    trace.record(("send", 1, 2, 3, Number(4), Word("tag"), 5, 6))
    assert marshal.loads(trace.pack()) == [("send", 1, 2, 3, 4, "tag", 5, 6)]


def test_a_world_of_one():
    endpoint = TracedEndpoint(0)
    comm = TracedCommunicator(endpoint, Codec(main_by_reference=True), context=make_context(1), rank=0, members=[0])
    comm.send("x", 0)
    assert comm.iprobe() is not None
    assert comm.recv() == "x"
    assert [event[0] for event in take(comm)] == ["send", "iprobe", "recv"]
    endpoint.close()


def test_communicators_that_are_made_of_a_traced_one_are_traced():
    class Making(Communicator):
        """One that makes others, as all do that can be split."""

        __slots__ = ()

        def _make(self, kind, context):
            return kind(self.endpoint, self.codec, context=context, rank=0, members=[0])

        def dup(self):
            return self._make(Communicator, make_context(1) + 2)

        def mprobe(self):
            """As of one that has it: what it returns has the message's status."""
            status = Status()
            self.irecv(status=status).wait()
            return SimpleNamespace(status=status)

        def improbe(self):
            return None

    endpoint = TracedEndpoint(0)
    kind = trace_class(Making)
    comm = kind(endpoint, Codec(main_by_reference=True), context=make_context(1), rank=0, members=[0])
    assert trace_class(Making) is kind
    made = comm.dup()
    assert type(made) is TracedCommunicator
    made.send("x", 0, 5)
    assert made.recv() == "x"
    assert [(event[0], event[7] - comm.context) for event in endpoint.trace.events] == [
        ("dup", 0),
        ("send", 2),
        ("recv", 2),
    ]
    endpoint.trace.events.clear()
    comm.send("abc", 0, "word")
    assert comm.improbe() is None
    assert comm.mprobe().status.tag == "word"
    assert [event[0] for event in endpoint.trace.events if event[4] != NOBODY] == ["send", ARRIVED, "mprobe"]
    endpoint.close()


def test_coroutine_functions_are_left_alone():
    class Awaitable(Communicator):
        """One with a coroutine function: the calls of tasks would overlap in a lane."""

        __slots__ = ()

        async def later(self):
            """Do nothing."""

    assert trace_class(Awaitable).later is Awaitable.later
