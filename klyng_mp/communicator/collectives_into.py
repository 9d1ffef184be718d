"""Collectives whose results go into arrays that are there already.

Layer: communicator; the same steps as `collectives`, and one copy at the end where they end elsewhere.

A buffer is a NumPy array or anything writable with the buffer protocol, contiguous as C has it. It may be larger than
what comes, whose bytes are then its first. What does not fit is refused before anything is sent, on each rank that can
know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.buffers import Target
from klyng_mp.communicator.collectives import Collectives, run
from klyng_mp.communicator.reductions import SUM, Operation, is_array
from klyng_mp.communicator.shortcuts import moving_bytes, reducing_arrays, take_shortcut

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.collectives import Opened
    from klyng_mp.transports.shortcuts import Shortcut

    Operator = Callable[[Any, Any], Any]

__all__ = ["CollectivesInto"]


class CollectivesInto(Collectives):
    """The collectives that fill buffers.

    Raises:
        TypeError, ValueError: a buffer does not fit.
        Others: as `Collectives`. After an error a buffer's content is undefined, and the call is over on this rank.
    """

    __slots__ = ()

    def bcast_into(self, buffer: Any, root: int = 0, *, timeout: float | None = None) -> None:
        """Fill all ranks' buffers with the root's, which is only read; see `bcast`."""
        here = self.rank == self.check_rank("bcast_into", "root", root)
        content = _content("bcast_into", buffer)
        place = None if here else _Place("bcast_into", buffer)
        opened = self._bcast(content if here else None, root, timeout)
        if self._is_done(opened, lambda: moving_bytes("bcast", None, buffer, self.size, root=root, here=here)):
            return
        got = run(opened)
        if place is not None:
            place.fill(0, 1, got)

    def scatter_into(self, array: Any, buffer: Any, root: int = 0, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with one of the equal parts of the root's array, None elsewhere; see `scatter`."""
        here = self.rank == self.check_rank("scatter_into", "root", root)
        parts = _parts("scatter_into", array, self.size) if here else None
        place = _Place("scatter_into", buffer, 1, parts[0] if parts else None)
        opened = self._scatter(parts, root, timeout)
        given = array if here else None
        if not self._is_done(opened, lambda: moving_bytes("scatter", given, buffer, self.size, root=root, here=here)):
            place.fill(0, 1, run(opened))

    def gather_into(self, array: Any, buffer: Any, root: int = 0, *, timeout: float | None = None) -> None:
        """Fill the root's buffer with the arrays of all ranks, by rank; it is None elsewhere; see `gather`."""
        here = self.rank == self.check_rank("gather_into", "root", root)
        content = _content("gather_into", array)
        place = _Place("gather_into", buffer, self.size, array) if here else None
        opened = self._gather(content, root, timeout)
        filled = buffer if here else None
        if self._is_done(opened, lambda: moving_bytes("gather", array, filled, self.size, root=root, here=here)):
            return
        found = run(opened)
        if place is not None and found is not None:
            place.fill_all(found, root)

    def allgather_into(self, array: Any, buffer: Any, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with the arrays of all, by rank; see `allgather`."""
        content = _content("allgather_into", array)
        place = _Place("allgather_into", buffer, self.size, array)
        opened = self._allgather(content, timeout)
        if not self._is_done(opened, lambda: moving_bytes("allgather", array, buffer, self.size)):
            place.fill_all(run(opened), self.rank)

    def alltoall_into(self, array: Any, buffer: Any, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer, by rank, with its part of all arrays, each of equal parts; see `alltoall`."""
        parts = _parts("alltoall_into", array, self.size)
        place = _Place("alltoall_into", buffer, self.size, parts[0])
        opened = self._alltoall(parts, timeout)
        if not self._is_done(opened, lambda: moving_bytes("alltoall", array, buffer, self.size)):
            place.fill_all(run(opened), self.rank)

    def reduce_into(
        self, array: Any, buffer: Any, op: Operator = SUM, root: int = 0, *, timeout: float | None = None
    ) -> None:
        """Fill the root's buffer, which is None elsewhere, with what all arrays make; see `reduce`."""
        here = self.rank == self.check_rank("reduce_into", "root", root)
        _content("reduce_into", array)
        place = _Place("reduce_into", buffer, 1, _result_like(array, op)) if here else None
        opened = self._reduce(array, op, root, timeout)
        filled = buffer if here else None
        if self._is_done(opened, lambda: reducing_arrays("reduce", array, filled, op, root=root)):
            return
        got = run(opened)
        if place is not None:
            place.fill_result(got, op)

    def allreduce_into(self, array: Any, buffer: Any, op: Operator = SUM, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with what all arrays make; it may be the array itself; see `allreduce`."""
        _content("allreduce_into", array)
        place = _Place("allreduce_into", buffer, 1, _result_like(array, op))
        fits = is_array(buffer) and is_array(array) and (buffer.shape, buffer.dtype) == (array.shape, array.dtype)
        opened = self._allreduce(array, op, timeout, buffer if fits else None)
        if self._is_done(opened, lambda: reducing_arrays("allreduce", array, buffer, op)):
            return
        got = run(opened)
        if got is not buffer:
            place.fill_result(got, op)

    def reduce_scatter_into(self, array: Any, buffer: Any, op: Operator = SUM, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with what its parts of all arrays make, each of equal parts; see `reduce_scatter`."""
        parts = _parts("reduce_scatter_into", array, self.size)
        place = _Place("reduce_scatter_into", buffer, 1, _result_like(parts[0], op))
        opened = self._reduce_scatter(parts, op, timeout)
        if not self._is_done(opened, lambda: reducing_arrays("reduce_scatter", array, buffer, op, parts=self.size)):
            place.fill_result(run(opened), op)

    def scan_into(self, array: Any, buffer: Any, op: Operator = SUM, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with what the arrays up to its own make; see `scan`."""
        _content("scan_into", array)
        place = _Place("scan_into", buffer, 1, _result_like(array, op))
        opened = self._scan(array, op, timeout)
        if not self._is_done(opened, lambda: reducing_arrays("scan", array, buffer, op)):
            place.fill_result(run(opened), op)

    def exscan_into(self, array: Any, buffer: Any, op: Operator = SUM, *, timeout: float | None = None) -> None:
        """Fill each rank's buffer with what the arrays before its own make; rank 0's stays as it is; see `exscan`."""
        _content("exscan_into", array)
        place = _Place("exscan_into", buffer, 1, _result_like(array, op))
        opened = self._exscan(array, op, timeout)
        if self._is_done(opened, lambda: reducing_arrays("exscan", array, buffer, op)):
            return
        got = run(opened)
        if self.rank:
            place.fill_result(got, op)

    def _is_done(self, opened: Opened, wanted: Callable[[], Shortcut]) -> bool:
        """Do a call by the transport's own means, if it has such; return whether that was possible on all ranks."""
        return self.natives is not None and take_shortcut(opened[0], self.natives, wanted())


class _Place:
    """A buffer for several equal parts.

    Args:
        doing: for errors.
        buffer: the user's.
        parts: how many.
        like: what one of them is like, if that is known.

    Raises:
        TypeError, ValueError: it cannot be written to, is of another dtype, or has no room for so many.
    """

    def __init__(self, doing: str, buffer: Any, parts: int = 1, like: Any = None) -> None:
        self._doing = doing
        self._flat: Any = buffer.reshape(-1) if is_array(buffer) and buffer.flags.c_contiguous else buffer
        try:
            self._target = Target(buffer)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{doing}(): {error}") from None
        room = self._target.view.nbytes
        if is_array(self._flat) and is_array(like) and like.dtype != self._flat.dtype:
            raise TypeError(f"{doing}(): the array is one of {like.dtype}, and the buffer one of {self._flat.dtype}")
        if like is not None and _size_of(like) * parts > room:
            raise ValueError(
                f"{doing}(): the buffer has {room} bytes, and {_size_of(like) * parts} are needed: {parts} x "
                f"{_size_of(like)}"
            )

    def fill_all(self, found: list[Any], own: int) -> None:
        """Put all parts; first this rank's own, which may lie in the buffer, where another is to be."""
        self.fill(own, len(found), found[own])
        for index, obj in enumerate(found):
            if index != own:
                self.fill(index, len(found), obj)

    def fill_result(self, obj: Any, op: Operator) -> None:
        """Put what a reduction made; truth values, which logical operations make, become what the buffer has."""
        if type(op) is Operation and not op.keeps_dtype and is_array(obj) and is_array(self._flat):
            obj = obj.astype(self._flat.dtype)
        self.fill(0, 1, obj)

    def fill(self, index: int, parts: int, obj: Any) -> None:
        """Put one of the parts where it belongs.

        Raises:
            TypeError, ValueError: it is of another dtype, or larger than there is room.
        """
        if not is_array(self._flat):
            start, end = (self._target.view.nbytes * place // parts for place in (index, index + 1))
            Target(self._target.view[start:end]).put(obj, f"{self._doing}(): what came")
            return
        start, end = (self._flat.size * place // parts for place in (index, index + 1))
        Target(self._flat[start:end]).put(obj, f"{self._doing}(): what came")


def _result_like(array: Any, op: Operator) -> Any:
    """Return what a reduction of arrays makes one like of, or None if that is not known."""
    return array if type(op) is Operation and op.keeps_dtype else None


def _content(doing: str, obj: Any) -> Any:
    """Return what travels in place of something with bytes; refuse what no buffer can be filled with."""
    if is_array(obj):
        return obj
    try:
        view = memoryview(obj)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{doing}() needs an array, or bytes: {error}") from None
    if view.format == "O":
        raise TypeError(f"{doing}() needs an array, or bytes, and was given an array of Python objects")
    return obj if type(obj) in (bytes, bytearray) else bytes(view)


def _size_of(obj: Any) -> int:
    return int(obj.nbytes) if is_array(obj) else memoryview(obj).nbytes


def _parts(doing: str, array: Any, count: int) -> list[Any]:
    """Return the equal parts of an array, as views."""
    try:
        flat = array.reshape(-1) if is_array(array) else memoryview(array).cast("B")
    except TypeError as error:
        raise TypeError(f"{doing}() needs an array, or bytes: {error}") from None
    length = len(flat)
    if length % count:
        raise ValueError(f"{doing}(): an array of {length} elements has no {count} equal parts, one for each rank")
    step = length // count
    parts = [flat[index * step : (index + 1) * step] for index in range(count)]
    return parts if is_array(array) else [bytes(part) for part in parts]  # a memoryview cannot travel
