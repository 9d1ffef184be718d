"""MPI's own collectives, for buffers and named reductions.

Layer: transports; see `klyng_mp.transports.mpi`.

MPI has no answer to ranks that make different calls. So each call begins with one of always the same form: an allreduce
of what the rank is about to do. If that is the same on all, and possible, MPI's own collective follows, else nothing
does. Both are non-blocking ones, so that timeouts, signals and messages have their turn; calls are begun in the order
in which they are made, each when the one before is over, also where its caller has given it up: then it goes on with
memory of its own, as the others wait for it.

Invariants: MPI is called with the endpoint's lock held. Whether a call is possible is known to all ranks, or to none.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from functools import lru_cache
from hashlib import blake2b
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from klyng_mp.transports.shortcuts import Shortcut

__all__ = ["MpiNatives"]

# For which it is looked at once; where no core is free to wait on, with turns of others in between.
_LOOK_SECONDS = 0.001
_BITS = 62  # of the number that stands for what is the same on all ranks
_IMPOSSIBLE = -1


class _Taken:
    """See `klyng_mp.transports.shortcuts.Taken`."""

    __slots__ = (
        "_found", "_owner", "_request", "_said", "_shortcut", "_tags", "is_over", "number", "strangers", "was_possible",
    )  # fmt: skip

    def __init__(self, owner: MpiNatives, number: int, tag: int, shortcut: Shortcut) -> None:
        self.number = number
        self.is_over = self.was_possible = False
        self.strangers: dict[int, int] = {}
        self._owner = owner
        self._shortcut = shortcut
        self._request: Any = None
        self._tags: array[int] | None = None
        alike = _IMPOSSIBLE if shortcut.alike is None else _number_of(shortcut.alike)
        self._said = array("q", (alike, -alike, tag, -tag, shortcut.size, -shortcut.room))
        self._found = array("q", bytes(8 * len(self._said)))

    def advance(self) -> bool:
        """Do what can be done without waiting; return whether it is over."""
        if self._request is None:
            self._request = self._owner.ask(self._said, self._found)
        while self._request is not None and self._request.Test():
            self._request = self._next()
        self.is_over = self._request is None
        return self.is_over

    def _next(self) -> Any:
        """Begin what follows what has just ended; return None where nothing does."""
        alike, minus_alike, tag, minus_tag, size, minus_room = self._found
        if self.was_possible:
            return None
        if self._tags is not None:
            own = self._said[2]
            self.strangers = {rank: other for rank, other in enumerate(self._tags) if other != own}
            return None
        if tag != -minus_tag:
            self._tags = array("q", bytes(8 * self._owner.size))
            return self._owner.tell_tags(self._said[2:3], self._tags)
        if alike != -minus_alike or alike == _IMPOSSIBLE or size > -minus_room:
            return None
        self.was_possible = True
        return self._owner.start(self._shortcut, size)

    def give_up(self) -> None:
        """See `Taken`."""
        if not (self.is_over or self.was_possible):
            self._shortcut.copy()


class MpiNatives:
    """Those of one communicator; see `klyng_mp.transports.shortcuts.Natives`.

    Args:
        comm: MPI's, which is used for nothing else.
        spin: whether a core is free to wait on.

    Attributes:
        begun: how many calls were.
        left: how many calls had been begun by peers that have left, by rank.
        waits_in: see `Natives`.
        size: how many ranks there are.
    """

    def __init__(self, comm: Any, *, spin: bool) -> None:
        from mpi4py import MPI  # noqa: PLC0415 - to import it is to start MPI

        self._mpi = MPI
        self._comm = comm
        self._spin = spin
        self.size = int(comm.Get_size())
        self._pending: deque[_Taken] = deque()
        self.begun = self.waits_in = 0
        self.left: dict[int, int] = {}

    def begin(self, tag: int, shortcut: Shortcut) -> _Taken:
        """See `Natives.begin`."""
        self.begun += 1
        taken = _Taken(self, self.begun, tag, shortcut)
        self._pending.append(taken)
        self.advance()
        return taken

    def advance(self) -> bool:
        """Let calls go on; return whether one has come to its end."""
        moved = False
        while self._pending and self._pending[0].advance():
            self._pending.popleft()
            moved = True
        return moved

    def look(self, taken: _Taken) -> None:
        """See `Natives.look`."""
        end = perf_counter() + _LOOK_SECONDS
        while not taken.is_over:
            self.advance()
            if perf_counter() > end:
                return
            if not self._spin:
                os.sched_yield()

    def gone_before(self, number: int) -> list[int]:
        """See `Natives.gone_before`."""
        return [peer for peer, begun in self.left.items() if begun < number]

    # -- for a call

    def ask(self, said: array[int], found: array[int]) -> Any:
        """Begin to find the largest of what ranks say, place by place."""
        kind = self._mpi.INT64_T
        return self._comm.Iallreduce((said, kind), (found, kind), self._mpi.MAX)

    def tell_tags(self, own: array[int], found: array[int]) -> Any:
        """Begin to find what ranks call."""
        kind = self._mpi.INT64_T
        return self._comm.Iallgather((own, kind), (found, kind))

    def start(self, shortcut: Shortcut, size: int) -> Any:
        """Begin a collective that all ranks have agreed on, of which each part has so many bytes; None: it is over."""
        kind = shortcut.kind
        if kind == "barrier":
            return None
        send, receive = shortcut.send, shortcut.receive
        if kind == "bcast":
            return self._comm.Ibcast((receive[:size], self._mpi.BYTE), shortcut.root)
        if send is not None and receive is not None and self._overlap(send, receive):
            shortcut.send = send = send.copy() if shortcut.operation else bytes(send)
        if shortcut.operation:
            return self._start_reduction(kind, send, receive, shortcut)
        byte = self._mpi.BYTE
        parts = self.size if "gather" in kind or kind == "alltoall" else 1
        out = None if send is None else (send, byte)
        room = None if receive is None else (receive[: size * parts], byte)
        call = getattr(self._comm, f"I{kind}")
        return call(out, room, shortcut.root) if kind in {"scatter", "gather"} else call(out, room)

    # -- inside

    def _start_reduction(self, kind: str, send: Any, receive: Any, shortcut: Shortcut) -> Any:
        op = getattr(self._mpi, shortcut.operation)
        if kind == "reduce":
            return self._comm.Ireduce(send, receive, op, shortcut.root)
        if kind == "exscan" and not self._comm.Get_rank():
            shortcut.receive = receive = receive.copy()  # it stays as it is, and MPI says nothing about that
        call = getattr(self._comm, "Ireduce_scatter_block" if kind == "reduce_scatter" else f"I{kind}")
        return call(send, receive, op)

    def _overlap(self, one: Any, other: Any) -> bool:
        first, second = (int(self._mpi.Get_address(it)) if it.nbytes else 0 for it in (one, other))
        return bool(first < second + other.nbytes and second < first + one.nbytes)


@lru_cache(maxsize=256)
def _number_of(alike: tuple[Any, ...]) -> int:
    """Return a number that is the same in all processes, and not `_IMPOSSIBLE`."""
    return int.from_bytes(blake2b(repr(alike).encode(), digest_size=8).digest(), "little") >> (64 - _BITS)
