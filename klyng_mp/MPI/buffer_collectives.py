"""The capital calls of communicators that all ranks make together: collectives of buffers.

Layer: MPI; each is a collective of objects, which are views of the buffers, and a copy into place of what comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.MPI.environment import IN_PLACE
from klyng_mp.MPI.object_calls import Handle, ObjectCollectives
from klyng_mp.MPI.operations import SUM, Op, on_arrays
from klyng_mp.MPI.specifications import Memory, fill
from klyng_mp.MPI.statuses import Request, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Plan = tuple[Any, Callable[[Any], None]]  # what this rank gives, and what it does with what it gets
    Plan3 = tuple[Any, Callable[[Any, Any], Any], Any]  # what this rank gives, the operator, the array for the result

__all__ = [
    "BufferCollectives",
    "BufferReductions",
    "NonBlockingBufferCollectives",
    "NonBlockingBufferReductions",
    "put",
]


class _Plans(Handle):
    """What each collective gives and what becomes of its result, for the calls that wait and those that do not."""

    __slots__ = ()

    def _plan_bcast(self, doing: str, buf: Any, root: int) -> Plan:
        memory = Memory(doing, buf)
        place = memory.whole()
        if self._own.rank == root:
            return memory.outgoing(place), _ignore
        view = memory.incoming(place)
        return None, lambda got: fill(doing, view, got)

    def _plan_gather(self, doing: str, sendbuf: Any, recvbuf: Any, root: int, *, vector: bool = False) -> Plan:
        if self._own.rank != root:
            memory = Memory(doing, sendbuf)
            return memory.outgoing(memory.whole()), _ignore
        return self._plan_allgather(doing, sendbuf, recvbuf, vector=vector)

    def _plan_allgather(self, doing: str, sendbuf: Any, recvbuf: Any, *, vector: bool = False) -> Plan:
        target, places = self.__parts(doing, recvbuf, vector=vector)
        if sendbuf is IN_PLACE:
            given = target.outgoing(places[self._own.rank])
        else:
            memory = Memory(doing, sendbuf)
            given = memory.outgoing(memory.whole())
        return given, lambda found: _fill_all(doing, target, places, found)

    def _plan_scatter(self, doing: str, sendbuf: Any, recvbuf: Any, root: int, *, vector: bool = False) -> Plan:
        given = None
        if self._own.rank == root:
            memory, places = self.__parts(doing, sendbuf, vector=vector)
            given = [memory.outgoing(place) for place in places]
            if recvbuf is IN_PLACE:
                return given, _ignore
        target = Memory(doing, recvbuf)
        view = target.incoming(target.whole())
        return given, lambda got: fill(doing, view, got)

    def _plan_alltoall(self, doing: str, sendbuf: Any, recvbuf: Any, *, vector: bool = False) -> Plan:
        target, places = self.__parts(doing, recvbuf, vector=vector)
        memory, sent = (target, places) if sendbuf is IN_PLACE else self.__parts(doing, sendbuf, vector=vector)
        given = [memory.outgoing(place) for place in sent]
        return given, lambda found: _fill_all(doing, target, places, found)

    def _plan_reduction(self, doing: str, sendbuf: Any, recvbuf: Any, op: Op, root: int | None = None) -> Plan3:
        here = root is None or self._own.rank == root
        target = Memory(doing, recvbuf) if here else None
        memory = target if target is not None and sendbuf is IN_PLACE else Memory(doing, sendbuf)
        place = memory.whole()
        out = None if target is None else target.operand(target.first(place[1]))
        return memory.operand(place), on_arrays(op, memory.datatype), out

    def _plan_reduce_scatter(
        self, doing: str, sendbuf: Any, recvbuf: Any, op: Op, recvcounts: Sequence[int] | None
    ) -> Plan3:
        """Return an array for each rank, of as many elements as its count says, and where the own result goes."""
        target = Memory(doing, recvbuf)
        memory = target if sendbuf is IN_PLACE else Memory(doing, sendbuf)
        places = memory.shares(self._own.size) if recvcounts is None else memory.split(list(recvcounts))
        out = target.operand(target.first(places[self._own.rank][1]))
        return [memory.operand(place) for place in places], on_arrays(op, memory.datatype), out

    def __parts(self, doing: str, buf: Any, *, vector: bool) -> tuple[Memory, list[tuple[int, int]]]:
        memory = Memory(doing, buf, vector=vector)
        size = self._own.size
        return memory, memory.vector(size) if vector else memory.shares(size)


class BufferCollectives(_Plans):
    """Collectives of buffers; see `specifications` for their specifications.

    Raises:
        TypeError, ValueError: what is given is no such specification; the call does not count on this rank.
        LocalProtocolError: what came is larger than its place.
    """

    __slots__ = ()

    Barrier = ObjectCollectives.barrier

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Fill all ranks' buffers with the root's."""
        given, finish = self._plan_bcast("Bcast()", buf, root)
        finish(self._own.bcast(given, root))

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Put all ranks' elements into the root's buffer, by rank."""
        given, finish = self._plan_gather("Gather()", sendbuf, recvbuf, root)
        finish(self._own.gather(given, root))

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Put all ranks' elements into the root's buffer, where it has a place for each."""
        given, finish = self._plan_gather("Gatherv()", sendbuf, recvbuf, root, vector=True)
        finish(self._own.gather(given, root))

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank one of the equal parts of the root's buffer."""
        given, finish = self._plan_scatter("Scatter()", sendbuf, recvbuf, root)
        finish(self._own.scatter(given, root))

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:
        """Give each rank its part of the root's buffer."""
        given, finish = self._plan_scatter("Scatterv()", sendbuf, recvbuf, root, vector=True)
        finish(self._own.scatter(given, root))

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:
        """Put all ranks' elements into the buffers of all, by rank."""
        given, finish = self._plan_allgather("Allgather()", sendbuf, recvbuf)
        finish(self._own.allgather(given))

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Put all ranks' elements into the buffers of all, where these have a place for each."""
        given, finish = self._plan_allgather("Allgatherv()", sendbuf, recvbuf, vector=True)
        finish(self._own.allgather(given))

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank one of the equal parts of each one's buffer."""
        given, finish = self._plan_alltoall("Alltoall()", sendbuf, recvbuf)
        finish(self._own.alltoall(given))

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:
        """Give each rank its part of each one's buffer."""
        given, finish = self._plan_alltoall("Alltoallv()", sendbuf, recvbuf, vector=True)
        finish(self._own.alltoall(given))


class BufferReductions(_Plans):
    """Reductions of buffers, element by element; see `BufferCollectives`."""

    __slots__ = ()

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> None:
        """Fill the root's buffer with what all ranks' make."""
        array, operator, out = self._plan_reduction("Reduce()", sendbuf, recvbuf, op, root)
        put(out, self._own.reduce(array, operator, root))

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Fill all ranks' buffers with what they make together."""
        array, operator, out = self._plan_reduction("Allreduce()", sendbuf, recvbuf, op)
        self._own.allreduce_into(array, out, operator)

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Fill each rank's buffer with what all ranks' equal parts for it make."""
        arrays, operator, out = self._plan_reduce_scatter("Reduce_scatter_block()", sendbuf, recvbuf, op, None)
        put(out, self._own.reduce_scatter(arrays, operator))

    def Reduce_scatter(self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM) -> None:
        """Fill each rank's buffer with what all ranks' parts for it make, of as many elements as the counts say."""
        arrays, operator, out = self._plan_reduce_scatter("Reduce_scatter()", sendbuf, recvbuf, op, recvcounts)
        put(out, self._own.reduce_scatter(arrays, operator))


class NonBlockingBufferCollectives(_Plans):
    """The collectives that return a request at once; the buffers are in use until it was waited for."""

    __slots__ = ()

    def Ibarrier(self) -> Request:
        """Start a `Barrier`."""
        return start(self._own.ibarrier())

    def Ibcast(self, buf: Any, root: int = 0) -> Request:
        """Start a `Bcast`."""
        given, finish = self._plan_bcast("Ibcast()", buf, root)
        return start(self._own.ibcast(given, root), finish)

    def Igather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Start a `Gather`."""
        given, finish = self._plan_gather("Igather()", sendbuf, recvbuf, root)
        return start(self._own.igather(given, root), finish)

    def Igatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Start a `Gatherv`."""
        given, finish = self._plan_gather("Igatherv()", sendbuf, recvbuf, root, vector=True)
        return start(self._own.igather(given, root), finish)

    def Iscatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Start a `Scatter`."""
        given, finish = self._plan_scatter("Iscatter()", sendbuf, recvbuf, root)
        return start(self._own.iscatter(given, root), finish)

    def Iscatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> Request:
        """Start a `Scatterv`."""
        given, finish = self._plan_scatter("Iscatterv()", sendbuf, recvbuf, root, vector=True)
        return start(self._own.iscatter(given, root), finish)

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start an `Allgather`."""
        given, finish = self._plan_allgather("Iallgather()", sendbuf, recvbuf)
        return start(self._own.iallgather(given), finish)

    def Iallgatherv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start an `Allgatherv`."""
        given, finish = self._plan_allgather("Iallgatherv()", sendbuf, recvbuf, vector=True)
        return start(self._own.iallgather(given), finish)

    def Ialltoall(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start an `Alltoall`."""
        given, finish = self._plan_alltoall("Ialltoall()", sendbuf, recvbuf)
        return start(self._own.ialltoall(given), finish)

    def Ialltoallv(self, sendbuf: Any, recvbuf: Any) -> Request:
        """Start an `Alltoallv`."""
        given, finish = self._plan_alltoall("Ialltoallv()", sendbuf, recvbuf, vector=True)
        return start(self._own.ialltoall(given), finish)


class NonBlockingBufferReductions(_Plans):
    """The reductions that return a request at once; the buffers are in use until it was waited for."""

    __slots__ = ()

    def Ireduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM, root: int = 0) -> Request:
        """Start a `Reduce`."""
        array, operator, out = self._plan_reduction("Ireduce()", sendbuf, recvbuf, op, root)
        return start(self._own.ireduce(array, operator, root), lambda got: put(out, got))

    def Iallreduce(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Start an `Allreduce`."""
        array, operator, out = self._plan_reduction("Iallreduce()", sendbuf, recvbuf, op)
        return start(self._own.iallreduce(array, operator), lambda got: put(out, got))

    def Ireduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Start a `Reduce_scatter_block`."""
        arrays, operator, out = self._plan_reduce_scatter("Ireduce_scatter_block()", sendbuf, recvbuf, op, None)
        return start(self._own.ireduce_scatter(arrays, operator), lambda got: put(out, got))

    def Ireduce_scatter(
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: Op = SUM
    ) -> Request:
        """Start a `Reduce_scatter`."""
        arrays, operator, out = self._plan_reduce_scatter("Ireduce_scatter()", sendbuf, recvbuf, op, recvcounts)
        return start(self._own.ireduce_scatter(arrays, operator), lambda got: put(out, got))


def _ignore(got: Any) -> None:
    del got  # this rank has no buffer for it


def _fill_all(doing: str, target: Memory, places: list[tuple[int, int]], found: list[Any]) -> None:
    for place, obj in zip(places, found, strict=True):
        fill(doing, target.incoming(place), obj)


def put(out: Any, got: Any) -> None:
    """Fill this rank's array, if it has one, with the result of a reduction, if there is one."""
    if out is not None and got is not None:
        out[...] = got
