"""Collectives: the calls that all ranks of a communicator make together, on objects and on arrays.

Layer: communicator; checks what is asked, and leaves the steps to `algorithms` and `reducing`.

Of all: every rank makes the same calls in the same order, one at a time on a communicator. What a rank gives is
encoded before anything of it is sent, and is its own again when the call returns. ``timeout`` is in seconds, for all
of the call; None for no limit.

After an error the call is over on this rank only. Its late messages meet nobody, and the next call starts afresh; other
ranks may have had what they wanted, or wait for this one, in vain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator import algorithms, reducing
from klyng_mp.communicator.call import Call
from klyng_mp.communicator.point_to_point import PointToPoint
from klyng_mp.communicator.reductions import SUM
from klyng_mp.communicator.shortcuts import take_shortcut
from klyng_mp.transports.shortcuts import Shortcut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.communicator.call import Steps

    Opened = tuple[Call, Steps[Any]]
    Operator = Callable[[Any, Any], Any]

__all__ = ["Collectives", "Openings", "run"]


_MOST_MEETINGS = 2**32 - 1  # from there on the core's count is too short


class Openings(PointToPoint):
    """How each collective begins: it is checked, counted, and has its steps ready; see `Base` for its arguments.

    What is asked wrongly is refused here, before it counts, or anything is sent, on each rank that can know.
    """

    __slots__ = ()

    def _ibarrier(self) -> Opened:
        call = Call(self, "ibarrier", None)  # by messages always, so it is no barrier that waits
        return call, algorithms.barrier(call)

    def _bcast(self, obj: Any, root: int, timeout: float | None) -> Opened:
        root = self.check_rank("bcast", "root", root)
        call = Call(self, "bcast", timeout, root)
        return call, algorithms.bcast(call, obj, root)

    def _scatter(self, objs: Sequence[Any] | None, root: int, timeout: float | None) -> Opened:
        root = self.check_rank("scatter", "root", root)
        items = self._check_items("scatter", objs) if self.rank == root else None
        call = Call(self, "scatter", timeout, root)
        return call, algorithms.scatter(call, items, root)

    def _gather(self, obj: Any, root: int, timeout: float | None) -> Opened:
        root = self.check_rank("gather", "root", root)
        call = Call(self, "gather", timeout, root)
        return call, algorithms.gather(call, obj, root)

    def _allgather(self, obj: Any, timeout: float | None) -> Opened:
        call = Call(self, "allgather", timeout)
        return call, algorithms.allgather(call, obj)

    def _alltoall(self, objs: Sequence[Any], timeout: float | None) -> Opened:
        items = self._check_items("alltoall", objs)
        call = Call(self, "alltoall", timeout)
        return call, algorithms.alltoall(call, items)

    def _reduce(self, obj: Any, op: Operator, root: int, timeout: float | None) -> Opened:
        root = self.check_rank("reduce", "root", root)
        _check_operator("reduce", op)
        call = Call(self, "reduce", timeout, root)
        return call, reducing.reduce(call, obj, op, root)

    def _allreduce(self, obj: Any, op: Operator, timeout: float | None, out: Any = None) -> Opened:
        _check_operator("allreduce", op)
        call = Call(self, "allreduce", timeout)
        return call, reducing.allreduce(call, obj, op, self.endpoint.port, out)

    def _reduce_scatter(self, objs: Sequence[Any], op: Operator, timeout: float | None) -> Opened:
        _check_operator("reduce_scatter", op)
        items = self._check_items("reduce_scatter", objs)
        call = Call(self, "reduce_scatter", timeout)
        return call, reducing.reduce_scatter(call, items, op)

    def _scan(self, obj: Any, op: Operator, timeout: float | None) -> Opened:
        _check_operator("scan", op)
        call = Call(self, "scan", timeout)
        return call, reducing.scan(call, obj, op)

    def _exscan(self, obj: Any, op: Operator, timeout: float | None) -> Opened:
        _check_operator("exscan", op)
        call = Call(self, "exscan", timeout)
        return call, reducing.exscan(call, obj, op)

    def _check_items(self, doing: str, objs: Any) -> Sequence[Any]:
        try:
            count = len(objs)
        except TypeError:
            raise TypeError(
                f"{doing}() needs a sequence of {self.size} items, one for each rank, not {objs!r}"
            ) from None
        if count != self.size:
            raise ValueError(f"{doing}() needs {self.size} items, one for each rank, and was given {count}")
        items: Sequence[Any] = objs
        return items if hasattr(items, "__getitem__") and not hasattr(items, "keys") else list(items)


def _check_operator(doing: str, op: Any) -> None:
    if not callable(op):
        raise TypeError(f"{doing}(): op must be SUM, MAX or the like, or a function of two operands, not {op!r}")


def run(opened: Opened) -> Any:
    """Take all steps of a call; return what they return."""
    call, steps = opened
    return call.run(steps)


class Collectives(Openings):
    """The collectives that wait.

    Raises:
        ValueError, TypeError: an argument is not what it should be; the call does not count.
        DeadlineError: it was not over in time.
        PeerLostError: a rank that it needs is gone, or the run was ended.
        CollectiveMismatchError: another rank makes another call, or has another root.
        CodecError: an object cannot travel, or cannot be rebuilt here.
    """

    __slots__ = ()

    def barrier(self, *, timeout: float | None = None) -> None:
        """Wait until all ranks have come here.

        Cost: see `algorithms.barrier`; without messages where the ranks share memory.

        At the deadline those that wait for this rank may still pass.
        """
        call = Call(self, "barrier", timeout)
        if self.meeting is not None and call.number < _MOST_MEETINGS:
            call.meet(self.meeting)
        elif self.natives is None or not take_shortcut(call, self.natives, Shortcut("barrier", ("barrier",))):
            call.run(algorithms.barrier(call))

    def bcast(self, obj: Any = None, root: int = 0, *, timeout: float | None = None) -> Any:
        """Give the root's object to all ranks.

        Args:
            obj: read at the root only.
            root: the rank that has it; the same on all.
            timeout: see above.

        Returns:
            At the root ``obj`` itself, elsewhere a copy.

        Cost: see `algorithms.bcast`.
        """
        return run(self._bcast(obj, root, timeout))

    def scatter(self, objs: Sequence[Any] | None = None, root: int = 0, *, timeout: float | None = None) -> Any:
        """Give each rank one of the root's objects.

        Args:
            objs: a sequence of `size` items, or an array of as many rows; read at the root only.
            root: the rank that has them; the same on all.
            timeout: see above.

        Returns:
            The item whose index is this rank; at the root it is the item itself.

        Cost: see `algorithms.scatter`.
        """
        return run(self._scatter(objs, root, timeout))

    def gather(self, obj: Any, root: int = 0, *, timeout: float | None = None) -> list[Any] | None:
        """Bring one object of each rank to the root.

        Returns:
            At the root a list of `size` items, index = rank, with its own ``obj`` itself; elsewhere None.

        Cost: see `algorithms.gather`.
        """
        found: list[Any] | None = run(self._gather(obj, root, timeout))
        return found

    def allgather(self, obj: Any, *, timeout: float | None = None) -> list[Any]:
        """Bring one object of each rank to all.

        Returns:
            A list of `size` items, index = rank, with this rank's own ``obj`` itself.

        Cost: see `algorithms.allgather`.
        """
        found: list[Any] = run(self._allgather(obj, timeout))
        return found

    def alltoall(self, objs: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """Give each rank one object of each.

        Args:
            objs: a sequence of `size` items; the one whose index is a rank goes there.
            timeout: see above.

        Returns:
            A list of `size` items, index = the rank that it comes from; the own item is itself.

        Cost: see `algorithms.alltoall`.
        """
        found: list[Any] = run(self._alltoall(objs, timeout))
        return found

    def reduce(self, obj: Any, op: Operator = SUM, root: int = 0, *, timeout: float | None = None) -> Any:
        """Combine one object of each rank at the root.

        Args:
            obj: this rank's; arrays are combined element by element under a named operation.
            op: a named operation (`SUM`), or an associative function of two operands, which is applied in rank order.
            root: the rank that gets the result; the same on all.
            timeout: see above.

        Returns:
            At the root what all objects make, elsewhere None.

        Cost: see `reducing.reduce`.
        """
        return run(self._reduce(obj, op, root, timeout))

    def allreduce(self, obj: Any, op: Operator = SUM, *, timeout: float | None = None) -> Any:
        """Combine one object of each rank, for all; see `reduce`.

        Returns:
            The same on all ranks, to the last bit.

        Cost: see `reducing.allreduce`.
        """
        return run(self._allreduce(obj, op, timeout))

    def reduce_scatter(self, objs: Sequence[Any], op: Operator = SUM, *, timeout: float | None = None) -> Any:
        """Combine, for each rank, one object of each.

        Args:
            objs: a sequence of `size` items; the one whose index is a rank is that rank's part of the reduction there.
            op: see `reduce`.
            timeout: see above.

        Returns:
            What all ranks' items for this rank make.

        Cost: see `reducing.reduce_scatter`.
        """
        return run(self._reduce_scatter(objs, op, timeout))

    def scan(self, obj: Any, op: Operator = SUM, *, timeout: float | None = None) -> Any:
        """Combine the objects of this rank and all before it; see `reduce`.

        Cost: see `reducing.scan`.
        """
        return run(self._scan(obj, op, timeout))

    def exscan(self, obj: Any, op: Operator = SUM, *, timeout: float | None = None) -> Any:
        """Combine the objects of all ranks before this one; None at rank 0. See `reduce`.

        Cost: see `reducing.exscan`.
        """
        return run(self._exscan(obj, op, timeout))
