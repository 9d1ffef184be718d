"""Buffer specifications: what a program of mpi4py gives for memory, as memory.

Layer: MPI; imports NumPy only to combine what is no array of it.

A specification is a buffer, or a list of it and what is known of it: ``data``, ``[data, MPI.DOUBLE]``,
``[data, count]``, ``[data, count, MPI.INT]``, ``[data, (count, displacement), MPI.INT]``; for calls with counts
``[data, counts]``, ``[data, (counts, displacements), MPI.INT]``, ``[data, counts, displacements, MPI.INT]``. Counts and
displacements are in elements.

What arrives is taken as bytes, whatever its type, as MPI does. What is sent is an array of NumPy where it is one and is
large, so that it moves without further copies, and bytes where it is small.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.buffers import Target
from klyng_mp.errors import LocalProtocolError
from klyng_mp.MPI.datatypes import DATATYPE_NULL, Datatype, datatype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Memory", "fill"]

_SMALL_BYTES = 4096  # the codec has arrays of this size and more in the message as they are, and pickles smaller ones


class Memory:
    """Elements in memory.

    Args:
        doing: the call, for errors.
        spec: the user's specification.
        vector: it has a count for each rank.

    Raises:
        TypeError, ValueError: it is none.
    """

    __slots__ = ("_array", "_bytes", "_count", "_doing", "_kind", "_nbytes", "_size", "_source", "_start")

    def __init__(self, doing: str, spec: Any, *, vector: bool = False) -> None:
        self._doing = doing
        self._source: Any = spec
        self._count: Any = None
        self._start: Any = None
        self._kind: Datatype | None = None
        if type(spec) in (list, tuple):
            self._source, self._count, self._start, self._kind = _split(doing, spec, vector=vector)
        self._array: Any = _flatten(doing, self._source) if _is_array(self._source) else None
        self._bytes: memoryview | None = None
        if self._array is not None:
            self._nbytes: int = self._array.nbytes
            size = self._array.itemsize
        else:
            self._bytes, size = _bytes_of(doing, self._source)
            self._nbytes = self._bytes.nbytes
        self._size: int = size if self._kind is None else self._kind.extent

    @property
    def datatype(self) -> Datatype:
        """The datatype that was said, or the buffer's own; DATATYPE_NULL where MPI has no name for it."""
        if self._kind is not None:
            return self._kind
        if self._array is not None:
            code = self._array.dtype.char if self._array.dtype.isnative else ""
        else:
            code = memoryview(self._source).format if self._source is not None else "B"
        try:
            return datatype_of(code)
        except ValueError:
            return DATATYPE_NULL

    @property
    def length(self) -> int:
        """How many elements are there, whatever the counts say."""
        return self._nbytes // self._size

    def whole(self) -> tuple[int, int]:
        """Return where the elements start, and how many there are, of a specification with one count."""
        start = self._start or 0
        return self._check(start, self.length - start if self._count is None else self._count)

    def first(self, count: int) -> tuple[int, int]:
        """Return where the elements start, and a count, if there are so many."""
        return self._check(self.whole()[0], count)

    def split(self, counts: list[int]) -> list[tuple[int, int]]:
        """Return (start, count) of parts that follow each other."""
        start = self.whole()[0]
        return [self._check(start + sum(counts[:index]), count) for index, count in enumerate(counts)]

    def shares(self, parts: int) -> list[tuple[int, int]]:
        """Return (start, count) of each of the equal parts of a specification with one count, which is a part's."""
        count = self._count
        if count is None:
            count, rest = divmod(self.length, parts)
            if rest:
                raise ValueError(f"{self._doing}: {self.length} elements are no {parts} equal parts, one for each rank")
        return [self._check((self._start or 0) + index * count, count) for index in range(parts)]

    def vector(self, parts: int) -> list[tuple[int, int]]:
        """Return (start, count) of each part of a specification with a count for each."""
        if self._count is None:
            return self.shares(parts)
        counts = [int(self._count)] * parts if _is_number(self._count) else [int(count) for count in self._count]
        if self._start is None:
            starts = [sum(counts[:index]) for index in range(len(counts))]
        else:
            starts = [int(start) for start in self._start]
        if len(counts) != parts or len(starts) != parts:
            raise ValueError(f"{self._doing}: {parts} counts and displacements are needed, one for each rank")
        return [self._check(start, count) for start, count in zip(starts, counts, strict=True)]

    def outgoing(self, place: tuple[int, int]) -> Any:
        """Return elements as an object to send; it may be a view of them."""
        first, last = place[0] * self._size, (place[0] + place[1]) * self._size
        if self._array is None:
            whole = type(self._source) in (bytes, bytearray) and last - first == self._nbytes
            return self._source if whole else bytes(self.incoming(place))
        array = self._array
        if last - first < _SMALL_BYTES or not array.flags.writeable or array.dtype.isbuiltin != 1:
            return array.tobytes() if last - first == self._nbytes else bytes(self.incoming(place))
        if last - first == self._nbytes:
            return array
        size = array.itemsize
        if first % size or last % size:
            return array.view("u1")[first:last]
        return array[first // size : last // size]

    def incoming(self, place: tuple[int, int]) -> memoryview:
        """Return elements as memory to receive into."""
        view = self._bytes
        if view is None:
            view = self._bytes = self._array.view("u1").data if self._nbytes else memoryview(bytearray())
        first, last = place[0] * self._size, (place[0] + place[1]) * self._size
        return view if last - first == self._nbytes else view[first:last]

    def operand(self, place: tuple[int, int]) -> Any:
        """Return elements as an array of their datatype, to be combined with others; it is their memory.

        Raises:
            ImportError: NumPy is not installed.
        """
        import numpy as np  # noqa: PLC0415 - imported already in whoever uses arrays, and needless to others

        start, count = place
        if self._array is not None and (not self.datatype or self._array.dtype == self.datatype._dtype):
            return self._array[start : start + count]
        return np.frombuffer(self.incoming(place), np.dtype(self.datatype._dtype))

    def _check(self, start: int, count: int) -> tuple[int, int]:
        if start < 0 or count < 0 or (start + count) * self._size > self._nbytes:
            raise ValueError(
                f"{self._doing}: {count} elements of {self._size} bytes from element {start} are not in a buffer of "
                f"{self._nbytes} bytes"
            )
        return start, count


def fill(doing: str, view: memoryview, obj: Any) -> None:
    """Copy what has come into memory.

    Raises:
        LocalProtocolError: it is larger, or no array or bytes; nothing was copied.
        TypeError: the memory is read-only.
    """
    target = Target(view)
    try:
        target.put(obj, "what came")
    except (TypeError, ValueError) as error:
        raise LocalProtocolError(f"{doing}: {error}") from None


def _split(doing: str, parts: Sequence[Any], *, vector: bool) -> tuple[Any, Any, Any, Datatype | None]:
    """Return the buffer, its count(s), displacement(s), and datatype; None for what is not said."""
    if not 1 <= len(parts) <= 4:
        raise ValueError(
            f"{doing}: a buffer specification has 1 to 4 parts, as [data, count, MPI.INT], not {len(parts)}"
        )
    source, *rest = parts
    kind = rest.pop() if rest and isinstance(rest[-1], Datatype | str) else None
    count, start = (*rest, None, None)[:2]
    if kind == "" or kind is DATATYPE_NULL:
        raise ValueError(f"{doing}: {kind!r} is no datatype")
    if len(rest) > 2:
        raise ValueError(f"{doing}: {parts!r} is no buffer specification: the last of four parts is the datatype")
    pair = isinstance(count, tuple) if vector else isinstance(count, tuple | list)
    if start is None and pair:
        count, start = count
    return source, count, start, datatype_of(kind) if isinstance(kind, str) else kind


def _bytes_of(doing: str, source: Any) -> tuple[memoryview, int]:
    """Return the memory of what is no array of NumPy, and the size of its elements."""
    if source is None:
        return memoryview(bytearray()), 1
    try:
        view = memoryview(source)
    except TypeError as error:
        raise TypeError(f"{doing}: a buffer is an array, or anything else with the buffer protocol: {error}") from None
    if not view.c_contiguous:
        raise ValueError(f"{doing}: the buffer must be contiguous: send a contiguous copy of it")
    return (view.cast("B") if view.nbytes else memoryview(bytearray())), view.itemsize


def _flatten(doing: str, array: Any) -> Any:
    if array.dtype.hasobject:
        raise TypeError(f"{doing}: an array of {array.dtype} is made of Python objects: send it with send()")
    numpy = sys.modules["numpy"]
    if type(array) is not numpy.ndarray:
        array = numpy.asarray(array)  # a matrix, for one, never gets one dimension
    if array.flags.c_contiguous:
        return array.reshape(-1) if array.ndim != 1 else array
    if not array.flags.f_contiguous:
        raise ValueError(f"{doing}: the array must be contiguous: send numpy.ascontiguousarray(array)")
    return array.reshape(-1, order="F")


def _is_array(obj: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.ndarray)


def _is_number(obj: object) -> bool:
    return hasattr(obj, "__index__") and not hasattr(obj, "__len__")
