"""Records what a rank's program does with its communicator: each call, when it began and ended, and with whom.

Layer: communicator. `TracedEndpoint` and `TracedCommunicator` stand in the place of the classes that they are made of
where a trace is wanted, and only there: without one, no code of this file is on any way.

An event is a tuple of plain values: (name, begin, end, thread, peer, tag, bytes, context), and of what is received by
a request also when that was posted. Times are nanoseconds of the clock that all processes of a host share; peers are
endpoints' numbers. The n-th message that a rank sends to another with a context and a tag is the n-th that this one
posts a receive for: so a sender and a receiver need not exchange anything to know which message is which.

Threads: any; an event is appended in one step.
"""

from __future__ import annotations

import marshal
from _thread import get_ident
from collections.abc import Callable
from functools import cache, wraps
from time import perf_counter_ns
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.requests import Status
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

if TYPE_CHECKING:
    from typing import Self

    from klyng_mp.wire.frames import Message

__all__ = ["ARRIVED", "NOBODY", "RECEIVES", "SENDS", "Trace", "TracedCommunicator", "TracedEndpoint", "trace_class"]

ARRIVED = "received"
"""The name of the event of a message whose receive was another call: a request, or `sendrecv`."""
SENDS = {"send", "isend", "ssend", "issend", "sendrecv"}
"""Calls whose peer and tag are of a message that was sent."""
RECEIVES = {"recv", "recv_into", "mprobe", "improbe", ARRIVED}
"""Calls whose peer and tag are of a message that was received."""
NOBODY = -2
"""The peer of an event that is of no single message."""

_COROUTINE = 0x80  # as `inspect` has it, which is slow to import; the calls of tasks would overlap in a thread's lane
_MOST_EVENTS = 1_000_000  # of a process: about 200 MB of memory
_UNKNOWN = -1  # bytes
_QUIET = {"check_open", "check_rank", "close", "rank_of"}  # public, but no communication

_SIZED = frozenset({bytes, bytearray, str})
_WITHOUT_SIZE = frozenset({NoneType, bool, int, float, list, tuple, dict})  # to look takes a tenth of a microsecond

_Event = tuple[Any, ...]
_Call = Callable[..., Any]


class Trace:
    """The events of one process.

    Args:
        most: how many are kept; those that come later are counted only.

    Attributes:
        events: in the order in which they ended.
        dropped: how many more there were.
    """

    __slots__ = ("dropped", "events", "most")

    def __init__(self, most: int = _MOST_EVENTS) -> None:
        self.events: list[_Event] = []
        self.dropped = 0
        self.most = most

    def record(self, event: _Event) -> None:
        """Keep an event."""
        if len(self.events) < self.most:
            self.events.append(event)
        else:
            self.dropped += 1

    def pack(self) -> bytes:
        """Return the events as bytes, by `marshal`, which takes a tenth of pickle's time."""
        try:
            return marshal.dumps(self.events)
        except ValueError:  # a peer or a tag is an int or a str by more than its own type
            return marshal.dumps([tuple(map(_plain, event)) for event in self.events])


def _plain(value: Any) -> int | str:
    return str.__str__(value) if isinstance(value, str) else int(value)


def _size_of(obj: Any) -> int:
    """Return the bytes of what says by itself how many it has."""
    kind = type(obj)
    if kind in _WITHOUT_SIZE:
        return _UNKNOWN
    if kind in _SIZED:
        return len(obj)
    size = getattr(obj, "nbytes", _UNKNOWN)
    return size if type(size) is int else _UNKNOWN


class _Arrival(Status):
    """The status of a receive that is another call's; its message is an event when it is handed out."""

    __slots__ = ("_comm", "_posted", "_theirs")

    def __init__(self, comm: Any, theirs: Status | None) -> None:
        super().__init__()
        self._comm = comm
        self._theirs = theirs
        self._posted = perf_counter_ns()

    def describe(self, message: Message, source: int) -> Self:
        """See `Status.describe`."""
        begin = perf_counter_ns()
        super().describe(message, source)
        if self._theirs is not None:
            self._theirs.describe(message, source)
        comm, envelope = self._comm, (message.source, message.tag, message.nbytes)
        event = (ARRIVED, begin, perf_counter_ns(), get_ident(), *envelope, comm.context, self._posted)
        comm.endpoint.trace.record(event)
        return self


class TracedEndpoint(Endpoint):
    """An endpoint that has a trace, and whose requests' waits are in it.

    Attributes:
        trace: the events.
    """

    def __init__(self, number: int, *, incarnation: int = 0) -> None:
        super().__init__(number, incarnation=incarnation)
        self.trace = Trace()


def _trace_wait(name: str, original: _Call) -> _Call:
    del name

    @wraps(original)
    def call(self: TracedEndpoint, *arguments: Any, **keywords: Any) -> Any:
        begin = perf_counter_ns()
        try:
            return original(self, *arguments, **keywords)
        finally:
            doing = keywords["doing"] if "doing" in keywords else arguments[2]
            self.trace.record(("wait", begin, perf_counter_ns(), get_ident(), NOBODY, doing, _UNKNOWN, 0))

    return call


_WAITS = ("wait", "wait_matched", "wait_received", "wait_sent")  # all have a `doing`, `wait` as its third argument

for _name in _WAITS:
    if hasattr(Endpoint, _name):
        setattr(TracedEndpoint, _name, _trace_wait(_name, getattr(Endpoint, _name)))


# -- the calls of a communicator


def _note(comm: Any, name: str, begin: int, envelope: tuple[int, int | str, int] = (NOBODY, "", _UNKNOWN)) -> None:
    """Record a call that ends now; its envelope is the peer, the tag and the bytes."""
    comm.endpoint.trace.record((name, begin, perf_counter_ns(), get_ident(), *envelope, comm.context))


def _note_failure(comm: Any, name: str, begin: int, error: BaseException) -> None:
    _note(comm, f"{name} ({type(error).__name__})", begin)


def _number(comm: Any, rank: int) -> int:
    """Return a rank's number as an endpoint; MPI's PROC_NULL, which nothing comes from or goes to, is nobody."""
    return NOBODY if rank < 0 else comm.members[rank]


def _trace_send(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(self: Any, obj: object, dest: int, tag: int | str = 0, **keywords: Any) -> Any:
        begin = perf_counter_ns()
        try:
            result = original(self, obj, dest, tag, **keywords) if keywords else original(self, obj, dest, tag)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        peer = self.members[dest] if dest >= 0 else NOBODY
        self.endpoint.trace.record(
            (name, begin, perf_counter_ns(), get_ident(), peer, tag, _size_of(obj), self.context)
        )
        return result

    return call


def _trace_recv(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(
        self: Any,
        source: int = ANY_SOURCE,
        tag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> Any:
        begin = perf_counter_ns()
        if status is None and (source == ANY_SOURCE or tag == ANY_TAG):
            status = Status()  # the short way, which has none, takes neither of them
        try:
            received = original(self, source, tag, timeout=timeout, status=status)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        if status is not None:
            source, tag = status.source, status.tag
        size = _size_of(received) if status is None else status.count
        peer = self.members[source] if source >= 0 else NOBODY
        self.endpoint.trace.record((name, begin, perf_counter_ns(), get_ident(), peer, tag, size, self.context))
        return received

    return call


def _trace_recv_into(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(self: Any, *arguments: Any, status: Status | None = None, **keywords: Any) -> Any:
        begin = perf_counter_ns()
        status = Status() if status is None else status
        try:
            size = original(self, *arguments, status=status, **keywords)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        _note(self, name, begin, (_number(self, status.source), status.tag, size))
        return size

    return call


def _trace_irecv(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(self: Any, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, status: Status | None = None) -> Any:
        begin = perf_counter_ns()
        try:
            request = original(self, source, tag, status=_expect(self, source, status))
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        _note(self, name, begin)
        return request

    return call


def _trace_sendrecv(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(
        self: Any,
        obj: object,
        dest: int,
        sendtag: int | str = 0,
        source: int = ANY_SOURCE,
        *arguments: Any,
        status: Status | None = None,
        **keywords: Any,
    ) -> Any:
        begin = perf_counter_ns()
        status = _expect(self, source, status)
        try:
            received = original(self, obj, dest, sendtag, source, *arguments, status=status, **keywords)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        _note(self, name, begin, (_number(self, dest), sendtag, _size_of(obj)))
        return received

    return call


def _expect(comm: Any, source: int, status: Status | None) -> Status | None:
    """Return the status with which a receive tells when its message is handed out."""
    return status if source == NOBODY else _Arrival(comm, status)


def _trace_matching(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        begin = perf_counter_ns()
        try:
            matched = original(self, *arguments, **keywords)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        if matched is None:
            _note(self, name, begin)
        else:
            status = matched.status
            _note(self, name, begin, (_number(self, status.source), status.tag, status.count))
        return matched

    return call


def _trace_any(name: str, original: _Call) -> _Call:
    @wraps(original)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        begin = perf_counter_ns()
        try:
            result = original(self, *arguments, **keywords)
        except BaseException as error:
            _note_failure(self, name, begin, error)
            raise
        _note(self, name, begin)
        return result

    return call


def _trace_make(name: str, original: _Call) -> _Call:
    """Let communicators that are made of a traced one be traced, too."""
    del name

    @wraps(original)
    def call(self: Any, kind: type[Communicator], *arguments: Any, **keywords: Any) -> Any:
        traced = trace_class(kind)  # type: ignore[arg-type]  # mypy takes a class for unhashable
        return original(self, traced, *arguments, **keywords)

    return call


_WAYS: dict[str, Callable[[str, _Call], _Call]] = {
    "_make": _trace_make,
    "improbe": _trace_matching,
    "irecv": _trace_irecv,
    "isend": _trace_send,
    "issend": _trace_send,
    "mprobe": _trace_matching,
    "recv": _trace_recv,
    "recv_into": _trace_recv_into,
    "send": _trace_send,
    "sendrecv": _trace_sendrecv,
    "ssend": _trace_send,
}
"""How calls are traced that are of one message, or make communicators; whichever there are. Others are just spans."""


@cache
def trace_class(kind: type[Communicator]) -> type[Communicator]:
    """Return a class that does what a class of communicators does, and records all public calls that communicate."""
    calls: dict[str, Any] = {"__slots__": (), "__doc__": kind.__doc__}
    for name in dir(kind):
        original = getattr(kind, name)
        is_call = type(original) is FunctionType and not original.__code__.co_flags & _COROUTINE
        if is_call and (name in _WAYS or not (name.startswith("_") or name in _QUIET)):
            calls[name] = _WAYS.get(name, _trace_any)(name, original)
    return type(f"Traced{kind.__name__}", (kind,), calls)


TracedCommunicator: type[Communicator] = trace_class(Communicator)
"""A communicator whose calls are events of the trace of its endpoint, which is a `TracedEndpoint`."""
