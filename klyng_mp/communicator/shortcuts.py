"""Collectives that the transport has itself, for buffers and named reductions: what is asked of it, and the wait.

Layer: communicator. All ranks first say what they are about to do, by the transport's own means; where that is the
same, and possible, on all of them, it is done there, else by messages, as everywhere. Who agrees takes part, even if
its caller gives up: so that the ranks' calls there never get out of step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.agreement import mismatch
from klyng_mp.communicator.buffers import bytes_of
from klyng_mp.communicator.reductions import Operation, is_array
from klyng_mp.errors import ClosedError
from klyng_mp.transports.shortcuts import ANY_ROOM, Shortcut

if TYPE_CHECKING:
    from klyng_mp.communicator.call import Call
    from klyng_mp.errors import CollectiveMismatchError, PeerLostError
    from klyng_mp.transports.shortcuts import Natives, Taken

__all__ = ["moving_bytes", "reducing_arrays", "take_shortcut"]

# The kinds of numbers of which an operation makes the same as NumPy does; an extreme does not, where one is no number.
_KINDS = {"SUM": "iufc", "PROD": "iufc", "MAX": "iu", "MIN": "iu", "BAND": "iu", "BOR": "iu", "BXOR": "iu"}
_HALF_BYTES = 2  # of a number with a fraction, of which MPI has no kind so small,
_MOST_BYTES = 16  # nor so large


def moving_bytes(
    kind: str, array: Any, buffer: Any, size: int, *, root: int | None = None, here: bool = True
) -> Shortcut:
    """Return what is asked for in a collective that only moves.

    Args:
        kind: of the call.
        array: what this rank gives, or None.
        buffer: what it fills, or None; in a broadcast, also what the root gives.
        size: how many ranks there are.
        root: its rank, where there is one.
        here: whether this rank is it.
    """
    given = None if array is None else bytes_of(array)
    filled = None if buffer is None else bytes_of(buffer, writable=kind != "bcast" or not here)
    if (given is None) != (array is None) or (filled is None) != (buffer is None):
        return Shortcut(kind, None)
    names = {one[0] for one in (given, filled) if one is not None}
    if len(names) != 1:
        return Shortcut(kind, None)
    send, receive = (None if one is None else one[1] for one in (given, filled))
    made = Shortcut(kind, (kind, *names, root), send, receive, root=root or 0)
    given_bytes = 0 if send is None else send.nbytes
    room = ANY_ROOM if receive is None else receive.nbytes
    if kind == "bcast":
        made.size, made.room = room if here else 0, room
    elif kind == "scatter":
        made.size, made.room = given_bytes // size, room
    else:  # where all know
        made.size = given_bytes // size if kind == "alltoall" else given_bytes
        made.room = room if receive is None else room // size
        made.alike = kind, *names, root, made.size
    return made


def reducing_arrays(
    kind: str, array: Any, buffer: Any, op: Any, *, root: int | None = None, parts: int = 1
) -> Shortcut:
    """Return what is asked for in a reduction.

    Args:
        kind: of the call.
        array: what this rank gives.
        buffer: what it fills, or None.
        op: by which elements are combined.
        root: its rank, where there is one.
        parts: how many results there are of the array, of which this rank has one.
    """
    if type(op) is not Operation or not _is_native(array, op) or not (buffer is None or _is_native(buffer, op)):
        return Shortcut(kind, None)
    count = array.size // parts
    if buffer is not None and (buffer.dtype != array.dtype or buffer.size < count or not buffer.flags.writeable):
        return Shortcut(kind, None)
    receive = None if buffer is None else buffer.reshape(-1)[:count]
    alike = kind, array.dtype.str, array.size, op.name, root
    return Shortcut(kind, alike, array.reshape(-1), receive, root=root or 0, operation=op.name)


def _is_native(array: Any, op: Operation) -> bool:
    """Whether MPI knows the numbers of an array, and does with them what NumPy does."""
    if not is_array(array) or not array.flags.c_contiguous or not array.dtype.isnative:
        return False
    kind, size = array.dtype.kind, array.dtype.itemsize
    return kind in _KINDS.get(op.name, "") and (kind in "iu" or _HALF_BYTES < size <= _MOST_BYTES)


def take_shortcut(call: Call, natives: Natives, shortcut: Shortcut) -> bool:
    """Do a call by the transport's own means; return False where all ranks have to do it by messages.

    Raises:
        Others: as the call. It has then come to its end on this rank only. Memory that the transport has begun to use
            belongs to it until the other ranks have come.
    """
    comm, endpoint = call.comm, call.comm.endpoint
    taken: Taken | None = None
    try:
        with endpoint.lock:
            endpoint.check_run(comm.context | 1, call.doing)
            taken = natives.begin(call.tag, shortcut)
            if not endpoint.lock.waiting:
                natives.look(taken)
            if not taken.is_over:
                natives.waits_in = taken.number
                _wait(call, natives, taken)
    except BaseException:
        comm.call_log.abandoned.add(call.number)
        if taken is not None:
            with endpoint.lock:
                taken.give_up()
        raise
    finally:
        natives.waits_in = 0
    if taken.strangers:
        raise _mismatch(call, taken)
    return taken.was_possible


def _mismatch(call: Call, taken: Taken) -> CollectiveMismatchError:
    rank, tag = next(iter(taken.strangers.items()))
    return mismatch(call.comm, call.tag, call.comm.members[rank], tag, ask=True)


def _wait(call: Call, natives: Natives, taken: Taken) -> None:
    comm, endpoint = call.comm, call.comm.endpoint
    others = [member for member in comm.members if member != endpoint.number]

    def loss() -> PeerLostError | None:
        if not endpoint.has_losses:
            return None
        return endpoint.find_loss(natives.gone_before(taken.number), call.doing)

    def ready() -> bool:
        return taken.is_over or loss() is not None or call.find_stranger() is not None

    endpoint.wait_within(ready, call.deadline, call.doing, lambda: others)
    if not taken.is_over:
        call.check_agreement()
        raise loss() or ClosedError(f"this communicator is closed, so {call.doing} cannot be done")
