"""Collectives: calls that all ranks of a communicator make together, as free functions over send and receive.

Layer: communicator.

Every call has a number, which is the tag of its messages, in the communicator's collective context: the
messages of different calls never mix, nor with those of users. All steps of a call share one deadline.

After an error (DeadlineError, PeerLostError) the call is over on this rank only. Its late messages meet
nobody; the next call starts afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.wire.frames import Message, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.communicator.communicator import Communicator

__all__ = ["barrier", "bcast", "gather"]

_Encoded = tuple[int, bytes, "Sequence[Part]"]


class _Call:
    """One collective call of this rank."""

    __slots__ = ("_comm", "_context", "_deadline", "_doing", "_tag")

    def __init__(self, comm: Communicator, doing: str, timeout: float | None) -> None:
        comm.check_open(doing)
        self._comm = comm
        self._doing = doing
        self._deadline = Deadline(timeout)
        self._context = comm.context | 1
        self._tag = comm.next_call()

    def send(self, dest: int, encoded: _Encoded) -> None:
        endpoint = self._comm.endpoint
        peer = self._comm.members[dest]
        message = Message(self._context, endpoint.number, self._tag, endpoint.incarnations.get(peer, 0), *encoded)
        endpoint.send(peer, message, deadline=self._deadline, doing=self._doing)

    def receive(self, source: int) -> Message:
        return self._comm.endpoint.receive(
            self._context, self._comm.members[source], self._tag, deadline=self._deadline, doing=self._doing
        )


def barrier(comm: Communicator, *, timeout: float | None = None) -> None:
    """Wait until all ranks have called it.

    Raises:
        DeadlineError: not all came in time; those that wait for this rank may still pass.
        PeerLostError: one of them never will.

    Cost: ceil(log2(size)) rounds; size messages a round, without content.
    """
    call = _Call(comm, "barrier()", timeout)
    nothing = comm.codec.encode(None)
    distance = 1
    while distance < comm.size:
        call.send((comm.rank + distance) % comm.size, nothing)
        call.receive((comm.rank - distance) % comm.size)
        distance *= 2


def bcast(comm: Communicator, obj: Any = None, root: int = 0, *, timeout: float | None = None) -> Any:
    """Give the root's object to all ranks.

    Args:
        comm: the communicator.
        obj: the object; read at the root only.
        root: the rank that has it; the same on all ranks.
        timeout: seconds for all of it.

    Returns:
        At the root ``obj`` itself, elsewhere a copy.

    Raises:
        DeadlineError: it did not come, or could not be passed on, in time; ranks that wait for this one may miss it.
        PeerLostError: it never will.

    Cost: ceil(log2(size)) rounds; size - 1 messages, each with the object's bytes. It is encoded once.
    """
    root = comm.check_rank("bcast", "root", root)
    call = _Call(comm, f"bcast(root={root})", timeout)
    place = (comm.rank - root) % comm.size
    encoded: _Encoded
    if place == 0:
        encoded = comm.codec.encode(obj) if comm.size > 1 else (0, b"", ())
    else:
        message = call.receive((root + (place & (place - 1))) % comm.size)  # the parent lacks the lowest bit
        encoded = (message.code, message.head, message.buffers)
    reach = place & -place if place else 1 << (comm.size - 1).bit_length()
    while reach > 1:
        reach //= 2
        if place + reach < comm.size:
            call.send((root + place + reach) % comm.size, encoded)
    return obj if place == 0 else comm.codec.decode(*encoded)


def gather(comm: Communicator, obj: object, root: int = 0, *, timeout: float | None = None) -> list[Any] | None:
    """Bring one object of each rank to the root.

    Args:
        comm: the communicator.
        obj: this rank's.
        root: the rank that gets all; the same on all ranks.
        timeout: seconds for all of it.

    Returns:
        At the root a list of `size` items, index = rank, with its own ``obj`` itself; elsewhere None.

    Raises:
        DeadlineError: not all came in time; what had come is gone.
        PeerLostError: one of them never will.

    Cost: one round; size - 1 messages, received by the root.
    """
    root = comm.check_rank("gather", "root", root)
    call = _Call(comm, f"gather(root={root})", timeout)
    if comm.rank != root:
        call.send(root, comm.codec.encode(obj))
        return None
    gathered: list[Any] = [obj] * comm.size
    for source in range(comm.size):
        if source != root:
            message = call.receive(source)
            gathered[source] = comm.codec.decode(message.code, message.head, message.buffers)
    return gathered
