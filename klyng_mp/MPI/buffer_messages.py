"""The capital calls of communicators for messages between two ranks: of buffers.

Layer: MPI; each is a call of the communicator that it holds, on memory that `specifications` finds.
"""

from __future__ import annotations

from typing import Any

from klyng_mp.communicator.requests import Status as Known
from klyng_mp.errors import LocalProtocolError
from klyng_mp.MPI.environment import ANY_SOURCE, ANY_TAG
from klyng_mp.MPI.object_calls import Handle, ObjectMessages
from klyng_mp.MPI.specifications import Memory, fill
from klyng_mp.MPI.statuses import Request, Status, describe, start

__all__ = ["BufferMessages"]


class BufferMessages(Handle):
    """Messages of buffers; see `specifications` for their specifications.

    Raises:
        TypeError, ValueError: it is no buffer specification; nothing was sent or taken.
        LocalProtocolError: what came is larger than the buffer. A receive that waits has not taken it.
    """

    __slots__ = ()

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a buffer's elements; they have been copied when this returns."""
        self._own.send(_outgoing("Send()", buf), dest, tag)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        """Send a buffer's elements, and wait until they have been received."""
        self._own.ssend(_outgoing("Ssend()", buf), dest, tag)

    def Recv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> None:
        """Receive elements into a buffer, which may be larger."""
        self.__receive("Recv()", buf, source, tag, status)

    def Isend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Start to send a buffer's elements; they have been copied when this returns."""
        return start(self._own.isend(_outgoing("Isend()", buf), dest, tag))

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> Request:
        """Start to send a buffer's elements; the request is finished when they have been received."""
        return start(self._own.issend(_outgoing("Issend()", buf), dest, tag))

    def Irecv(self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Start to receive elements, which are in the buffer once the request was waited for."""
        view = _incoming("Irecv()", buf)
        known = Known()
        return start(self._own.irecv(source, tag, status=known), lambda obj: _take("Irecv()", view, obj), known)

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send a buffer's elements and receive others into another buffer, at once."""
        sending = self._own.isend(_outgoing("Sendrecv()", sendbuf), dest, sendtag)
        self.__receive("Sendrecv()", recvbuf, source, recvtag, status)
        sending.wait()

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> None:
        """Send a buffer's elements and receive others into the same buffer, at once."""
        self.Sendrecv(buf, dest, sendtag, buf, source, recvtag, status)

    Probe = ObjectMessages.probe
    Iprobe = ObjectMessages.iprobe
    Mprobe = ObjectMessages.mprobe
    Improbe = ObjectMessages.improbe

    def __receive(self, doing: str, buf: Any, source: int, tag: int, status: Status | None) -> None:
        view = _incoming(doing, buf)
        known = None if status is None else Known()
        try:
            self._own.recv_into(view, source, tag, status=known)
        except (TypeError, ValueError) as error:
            raise LocalProtocolError(str(error)) from None
        describe(status, known)


def _outgoing(doing: str, buf: Any) -> Any:
    memory = Memory(doing, buf)
    return memory.outgoing(memory.whole())


def _incoming(doing: str, buf: Any) -> memoryview:
    memory = Memory(doing, buf)
    return memory.incoming(memory.whole())


def _take(doing: str, view: memoryview, obj: Any) -> None:
    if obj is not None:  # what comes from PROC_NULL
        fill(doing, view, obj)
