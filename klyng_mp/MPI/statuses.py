"""Statuses, requests and matched messages, as mpi4py has them.

Layer: MPI; each of them holds the communicator's own, and gives it mpi4py's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from klyng_mp.communicator import requests as own
from klyng_mp.MPI.datatypes import NAMED, Datatype
from klyng_mp.MPI.environment import ANY_SOURCE, ANY_TAG, UNDEFINED
from klyng_mp.MPI.specifications import Memory, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["MESSAGE_NULL", "REQUEST_NULL", "Message", "Request", "Status", "describe", "start"]

_BYTE = NAMED["BYTE"]


class Status:
    """What is known of a message besides its content; give one to a call, which fills it in.

    Attributes:
        source: the rank that sent it.
        tag: its tag.
        error: always 0: what goes wrong is raised.
        cancelled: its request was taken back.
    """

    __slots__ = ("_bytes", "cancelled", "error", "source", "tag")

    def __init__(self, status: Status | None = None) -> None:
        self.source: int = status.source if status else ANY_SOURCE
        self.tag: Any = status.tag if status else ANY_TAG
        self._bytes: int = status._bytes if status else 0
        self.error = 0
        self.cancelled: bool = status.cancelled if status else False

    def Get_source(self) -> int:
        """Return the rank that sent it."""
        return self.source

    def Set_source(self, source: int) -> None:
        """Set the rank that sent it."""
        self.source = source

    def Get_tag(self) -> int:
        """Return its tag."""
        return cast("int", self.tag)

    def Set_tag(self, tag: int) -> None:
        """Set its tag."""
        self.tag = tag

    def Get_error(self) -> int:
        """Return 0: what goes wrong is raised."""
        return self.error

    def Set_error(self, error: int) -> None:
        """Set the error."""
        self.error = error

    def Get_count(self, datatype: Datatype = _BYTE) -> int:
        """Return how many elements it has, UNDEFINED if it is not whole ones."""
        count, rest = divmod(self._bytes, datatype.extent)
        return UNDEFINED if rest else count

    def Get_elements(self, datatype: Datatype) -> int:
        """Return how many elements it has."""
        return self.Get_count(datatype)

    def Set_elements(self, datatype: Datatype, count: int) -> None:
        """Set how many elements it has."""
        self._bytes = count * datatype.extent

    def Is_cancelled(self) -> bool:
        """Return whether its request was taken back."""
        return self.cancelled

    def Set_cancelled(self, flag: bool) -> None:
        """Set whether its request was taken back."""
        self.cancelled = flag

    @property
    def count(self) -> int:
        """Its size in bytes."""
        return self._bytes

    @count.setter
    def count(self, count: int) -> None:
        self._bytes = count

    def __repr__(self) -> str:
        return f"<Status source={self.source} tag={self.tag!r} count={self._bytes}>"


def describe(status: Status | None, known: own.Status | None, *, cancelled: bool = False) -> None:
    """Fill in a status, if one was given, with what is known of a message; an empty one if nothing is."""
    if status is None:
        return
    known = known or own.Status(ANY_SOURCE, ANY_TAG)
    status.source, status.tag, status.count, status.cancelled = known.source, known.tag, known.count, cancelled


class _Waiting:
    """What one request can do; see `Request`."""

    __slots__ = ("_held", "_known", "_take")

    _held: own.Request | None
    _known: own.Status | None
    _take: Callable[[Any], Any] | None

    def Wait(self, status: Status | None = None) -> Literal[True]:
        """Wait until it is finished."""
        self.wait(status)
        return True

    def Test(self, status: Status | None = None) -> bool:
        """Look whether it is finished."""
        return self.test(status)[0]

    def Get_status(self, status: Status | None = None) -> bool:
        """Look whether it is finished, and leave it as it is."""
        if not _is_settled(self):
            return False
        describe(status, self._known)
        return True

    get_status = Get_status

    def Cancel(self) -> None:
        """Take it back if nothing has happened yet; wait for it all the same, and see `Status.Is_cancelled`."""
        if self._held is not None:
            self._held.cancel()

    cancel = Cancel

    def Free(self) -> None:
        """Forget it; it goes on."""
        self._held = self._take = None

    def wait(self, status: Status | None = None) -> Any:
        """Wait until it is finished; return what was received, or None."""
        held, take = self._held, self._take
        if held is None:
            describe(status, None)
            return None
        result = held.wait()
        self._held = self._take = None
        describe(status, self._known, cancelled=held.cancelled)
        return result if take is None or held.cancelled else take(result)

    def test(self, status: Status | None = None) -> tuple[bool, Any | None]:
        """Look whether it is finished; return that, and what was received."""
        return (True, self.wait(status)) if _is_settled(self) else (False, None)

    def __bool__(self) -> bool:
        return self._held is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Waiting):
            return NotImplemented
        return self._held is other._held

    def __hash__(self) -> int:
        return hash(id(self._held))

    def __repr__(self) -> str:
        return f"<MPI {self._held!r}>" if self._held else "REQUEST_NULL"


class _ManyBuffers(_Waiting):
    """What several requests of buffers can do."""

    __slots__ = ()

    @classmethod
    def Waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> Literal[True]:
        """Wait until all are finished."""
        _wait_all(requests, statuses)
        return True

    @classmethod
    def Waitany(cls, requests: Sequence[Request], status: Status | None = None) -> int:
        """Wait until one is finished; return its index, UNDEFINED if none is left."""
        return _wait_any(requests, status)[0]

    @classmethod
    def Waitsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """Wait until some are finished; return their indices, None if none is left."""
        return _some(requests, statuses, wait=True)[0]

    @classmethod
    def Testall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> bool:
        """Look whether all are finished."""
        return _test_all(requests, statuses)[0]

    @classmethod
    def Testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool]:
        """Look whether one is finished; return its index and whether there is one."""
        return _test_any(requests, status)[:2]

    @classmethod
    def Testsome(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[int] | None:
        """Look which are finished; return their indices, None if none is left."""
        return _some(requests, statuses, wait=False)[0]


class Request(_ManyBuffers):
    """Something that was started; false once it was waited for, as REQUEST_NULL is."""

    __slots__ = ()

    def __init__(self, request: Request | None = None) -> None:
        self._held = request._held if request else None
        self._take = request._take if request else None
        self._known = request._known if request else None

    @classmethod
    def waitall(cls, requests: Sequence[Request], statuses: list[Status] | None = None) -> list[Any]:
        """Wait until all are finished; return what was received."""
        return _wait_all(requests, statuses)

    @classmethod
    def waitany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, Any]:
        """Wait until one is finished; return its index, UNDEFINED if none is left, and what was received."""
        return _wait_any(requests, status)

    @classmethod
    def waitsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Wait until some are finished; return their indices and what was received, None if none is left."""
        return _some(requests, statuses, wait=True)

    @classmethod
    def testall(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[bool, list[Any] | None]:
        """Look whether all are finished; return that, and what was received."""
        return _test_all(requests, statuses)

    @classmethod
    def testany(cls, requests: Sequence[Request], status: Status | None = None) -> tuple[int, bool, Any | None]:
        """Look whether one is finished; return its index, whether there is one, and what was received."""
        return _test_any(requests, status)

    @classmethod
    def testsome(
        cls, requests: Sequence[Request], statuses: list[Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """Look which are finished; return their indices and what was received, None if none is left."""
        return _some(requests, statuses, wait=False)


def start(held: own.Request, take: Callable[[Any], Any] | None = None, known: own.Status | None = None) -> Request:
    """Return a request of mpi4py's kind.

    Args:
        held: the communicator's own.
        take: what is done once with its result; makes the result that is returned.
        known: what the communicator fills in when it is finished.
    """
    request = Request()
    request._held, request._take, request._known = held, take, known
    return request


def _is_settled(request: _Waiting) -> bool:
    held = request._held
    if held is None or held.settled:
        return True
    held.endpoint.progress()
    return held.settled


def _statuses_for(statuses: list[Status] | None, count: int) -> Sequence[Status | None]:
    """Return a status for each of several, those that were given first; the list gets what it lacks, as mpi4py's."""
    if statuses is None:
        return [None] * count
    statuses.extend(Status() for _ in range(count - len(statuses)))
    return statuses


def _wait_all(requests: Sequence[Request], statuses: list[Status] | None) -> list[Any]:
    own.waitall([one._held for one in requests if one._held is not None])
    return [one.wait(status) for one, status in zip(requests, _statuses_for(statuses, len(requests)), strict=False)]


def _wait_any(requests: Sequence[Request], status: Status | None) -> tuple[int, Any]:
    left = [index for index, one in enumerate(requests) if one]
    if not left:
        describe(status, None)
        return UNDEFINED, None
    place, _ = own.waitany([cast("own.Request", requests[index]._held) for index in left])
    return left[place], requests[left[place]].wait(status)


def _test_all(requests: Sequence[Request], statuses: list[Status] | None) -> tuple[bool, list[Any] | None]:
    finished = [_is_settled(one) for one in requests]
    return (True, _wait_all(requests, statuses)) if all(finished) else (False, None)


def _test_any(requests: Sequence[Request], status: Status | None) -> tuple[int, bool, Any | None]:
    left = [index for index, one in enumerate(requests) if one]
    for index in left:
        if _is_settled(requests[index]):
            return index, True, requests[index].wait(status)
    describe(status, None)
    return UNDEFINED, not left, None


def _some(
    requests: Sequence[Request], statuses: list[Status] | None, *, wait: bool
) -> tuple[list[int] | None, list[Any] | None]:
    left = [index for index, one in enumerate(requests) if one]
    if not left:
        return None, None
    if wait:
        ready = own.waitsome([cast("own.Request", requests[index]._held) for index in left])
        found = [left[place] for place, _ in ready]
    else:
        found = [index for index in left if _is_settled(requests[index])]
    given = _statuses_for(statuses, len(found))
    return found, [requests[index].wait(status) for index, status in zip(found, given, strict=False)]


REQUEST_NULL = Request()


class Message:
    """A message that `Comm.mprobe` found, and that only its own receive can take."""

    __slots__ = ("_held",)

    def __init__(self, message: Message | None = None) -> None:
        self._held: Any = message._held if message else None

    @classmethod
    def probe(cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        """Wait for a message; see `Comm.mprobe`."""
        return cast("Message", comm.mprobe(source, tag, status))

    @classmethod
    def iprobe(
        cls, comm: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None
    ) -> Message | None:
        """Look for a message; see `Comm.improbe`."""
        return cast("Message | None", comm.improbe(source, tag, status))

    Probe = probe
    Iprobe = iprobe

    def recv(self, status: Status | None = None) -> Any:
        """Receive it, as an object."""
        held, self._held = self._held, None
        describe(status, held.status)
        return held.recv()

    def Recv(self, buf: Any, status: Status | None = None) -> None:
        """Receive it into a buffer.

        Raises:
            LocalProtocolError: it does not fit; it is gone.
        """
        memory = Memory("Message.Recv()", buf)
        view = memory.incoming(memory.whole())
        obj = self.recv(status)
        if obj is not None:  # as from PROC_NULL
            fill("Message.Recv()", view, obj)

    def __bool__(self) -> bool:
        return self._held is not None

    def __eq__(self, other: object) -> bool:
        return self._held is other._held if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._held))


MESSAGE_NULL = Message()
