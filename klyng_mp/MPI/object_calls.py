"""The lower-case calls of communicators: messages and collectives of objects.

Layer: MPI; each is a call of the communicator that it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from klyng_mp.communicator.requests import Status as Known
from klyng_mp.errors import LocalProtocolError
from klyng_mp.MPI.environment import ANY_SOURCE, ANY_TAG
from klyng_mp.MPI.operations import SUM, Op, on_objects
from klyng_mp.MPI.statuses import Message, Request, Status, describe, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.communicator.communicator import Communicator

    Operator = Op | Callable[[Any, Any], Any]

__all__ = ["Handle", "ObjectCollectives", "ObjectMessages", "message_of"]


class Handle:
    """What the communicators of this room have in common: the one of klyng_mp that they stand for."""

    __slots__ = ("_held", "_label")

    _held: Communicator | None
    _label: str

    @property
    def _own(self) -> Communicator:
        if self._held is None:
            raise LocalProtocolError("COMM_NULL has no ranks: this rank is in none of the communicators that were made")
        return self._held


class ObjectMessages(Handle):
    """Messages of objects between two ranks.

    The ``buf`` of mpi4py, memory for the pickle, is ignored: there is none to be provided.
    """

    __slots__ = ()

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object to a rank; it has been copied when this returns."""
        self._own.send(obj, dest, tag)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """Send an object to a rank, and wait until it has been received."""
        self._own.ssend(obj, dest, tag)

    def recv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Any:
        """Receive an object."""
        del buf
        if status is None:
            return self._own.recv(source, tag)
        known = Known()
        obj = self._own.recv(source, tag, status=known)
        describe(status, known)
        return obj

    def isend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Start to send an object; it has been copied when this returns."""
        return start(self._own.isend(obj, dest, tag))

    def issend(self, obj: Any, dest: int, tag: int = 0) -> Request:
        """Start to send an object; the request is finished when it has been received."""
        return start(self._own.issend(obj, dest, tag))

    def irecv(self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Request:
        """Start to receive an object, which the request's ``wait`` returns."""
        del buf
        known = Known()
        return start(self._own.irecv(source, tag, status=known), known=known)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: Status | None = None,
    ) -> Any:
        """Send an object and receive another, at once."""
        del recvbuf
        known = Known()
        obj = self._own.sendrecv(sendobj, dest, sendtag, source, recvtag, status=known)
        describe(status, known)
        return obj

    def probe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Literal[True]:
        """Wait for a message and leave it there."""
        describe(status, self._own.probe(source, tag))
        return True

    def iprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> bool:
        """Look for a message and leave it there; return whether there is one."""
        known = self._own.iprobe(source, tag)
        if known is not None:
            describe(status, known)
        return known is not None

    def mprobe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message:
        """Wait for a message, and keep it for the receive of what is returned."""
        return message_of(self._own.mprobe(source, tag), status)

    def improbe(self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Status | None = None) -> Message | None:
        """Look for a message; if there is one, keep it for the receive of what is returned."""
        found = self._own.improbe(source, tag)
        return None if found is None else message_of(found, status)


class ObjectCollectives(Handle):
    """Collectives on objects."""

    __slots__ = ()

    def barrier(self) -> None:
        """Wait until all ranks have come here."""
        self._own.barrier()

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """Return the root's object."""
        return self._own.bcast(obj, root)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """Return all ranks' objects at the root, None elsewhere."""
        return self._own.gather(sendobj, root)

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """Return this rank's one of the root's objects."""
        return self._own.scatter(sendobj, root)

    def allgather(self, sendobj: Any) -> list[Any]:
        """Return all ranks' objects."""
        return self._own.allgather(sendobj)

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """Return each rank's object for this one."""
        return self._own.alltoall(sendobj)

    def reduce(self, sendobj: Any, op: Operator = SUM, root: int = 0) -> Any | None:
        """Return what all ranks' objects make at the root, None elsewhere."""
        return self._own.reduce(sendobj, on_objects(op), root)

    def allreduce(self, sendobj: Any, op: Operator = SUM) -> Any:
        """Return what all ranks' objects make."""
        return self._own.allreduce(sendobj, on_objects(op))


def message_of(found: Any, status: Status | None) -> Message:
    """Return a matched message of mpi4py's kind, and fill in the status if one was given."""
    message = Message()
    message._held = found
    describe(status, found.status)
    return message
