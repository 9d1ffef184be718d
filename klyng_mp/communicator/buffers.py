"""Memory that messages need not be copied from or to: arrays that can be given away, buffers to receive into.

Layer: communicator; imports NumPy only where it is asked for an array.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.wire.arrays import array_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp._core import Port, Slab
    from klyng_mp.communicator.receiving import Ground
    from klyng_mp.wire.frames import Message, Part
    from klyng_mp.wire.mailbox import Receive

__all__ = ["Gift", "Target", "allocate", "give_unshared"]

_LONE_REFERENCES = 3  # a list's, a name's, and that of the call that counts

_CONTIGUOUS = "recv_into() needs a contiguous buffer: receive with recv(), and assign what it returns"


def allocate(port: Port | None, shape: Any, dtype: Any) -> Any:
    """Return a new array, in shared memory where there is a port and it has room; see `klyng_mp.empty`."""
    import numpy as np  # noqa: PLC0415 - imported already in whoever uses arrays, and needless to others

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise TypeError(f"empty() makes arrays of plain memory, and {dtype} is made of Python objects")
    size = math.prod(shape if isinstance(shape, Iterable) else (shape,)) * dtype.itemsize
    slab = None if port is None or size < 0 else port.allocate(size)
    return np.empty(shape, dtype) if slab is None else np.ndarray(shape, dtype, memoryview(slab))


class Gift:
    """The memory of a message that its sender gives away, as far as it can be.

    Args:
        port: the core's, or None.
        message: not sent yet; those of its buffers that are slabs become them.
        obj: what it is made of; only an array is given away, as only an array can be made read-only.
    """

    def __init__(self, port: Port | None, message: Message, obj: object) -> None:
        self._array: Any = obj if _is_array(obj) else None
        self._slabs: list[Slab] = []
        if port is not None and self._array is not None and message.buffers:
            found: list[Any] = [port.find_slab(buffer) for buffer in message.buffers]
            self._slabs = [slab for slab in found if slab is not None]
            message.buffers = [
                buffer if slab is None else slab for buffer, slab in zip(message.buffers, found, strict=True)
            ]

    def close(self) -> None:
        """See to it that the array is not written to any more, if it was given away."""
        if self._array is not None and any(slab.given for slab in self._slabs):
            self._array.setflags(write=False)


def give_unshared(port: Port, buffers: list[Any]) -> list[Any]:
    """Return the buffers of a message that is not sent yet, so that slabs that are nobody's but its own are given away.

    Args:
        port: the core's.
        buffers: views; the list is emptied, and nothing else may keep what they are of.
    """
    found = [port.find_slab(buffer) for buffer in buffers]
    if not any(found):
        return buffers
    rest = [buffer if slab is None else None for buffer, slab in zip(buffers, found, strict=True)]
    buffers.clear()  # what made them goes now, unless somebody still has it
    given: list[Any] = []
    for index, buffer in enumerate(rest):
        slab = found[index]
        alone = slab is not None and sys.getrefcount(slab) == _LONE_REFERENCES
        given.append(buffer if slab is None else slab if alone else memoryview(slab))
    return given


class _Decoder(Protocol):
    def decode(self, code: int, head: bytes, buffers: Sequence[Part]) -> object: ...


class Target:
    """A buffer that a message is received into.

    Args:
        buffer: the user's.

    Raises:
        TypeError: it is no buffer, or not one to write to, or not of plain memory.
        ValueError: it is not contiguous.
    """

    def __init__(self, buffer: Any) -> None:
        self._array = buffer if _is_array(buffer) else None
        if self._array is not None and self._array.flags.c_contiguous:
            buffer = _as_bytes(buffer)  # C has no name for some dtypes, and then memoryview refuses them
        elif self._array is not None:
            raise ValueError(_CONTIGUOUS)
        try:
            view = memoryview(buffer)
        except TypeError as error:
            raise TypeError(f"recv_into() needs something to write to, as an array or a bytearray: {error}") from None
        if view.readonly:
            raise TypeError("recv_into() needs something to write to, and this is read-only")
        if not view.c_contiguous:
            raise ValueError(_CONTIGUOUS)
        self.view = view.cast("B") if view.nbytes else memoryview(bytearray())

    def prepare(self, ground: Ground, receive: Receive) -> None:
        """See `Landing.prepare`."""
        source, tag = receive.source, receive.tag
        head = None if self._array is None else array_head(self._array)
        known = self._array is None or head is not None
        if known and isinstance(tag, int) and 0 <= source < ground.size and source != ground.rank:
            ground.land(self, source, receive.context, tag, self.view, head)

    def take(self, message: Message, codec: _Decoder) -> int:
        """Copy what a message has, unless it is there already; return how many bytes it is.

        Raises:
            TypeError, ValueError: the message does not fit; nothing was copied.
            CodecError: it cannot be decoded.
        """
        if message.buffers and message.buffers[0] is self.view:
            return self.view.nbytes
        return self.put(codec.decode(message.code, message.head, message.buffers), "the message")

    def put(self, obj: Any, what: str) -> int:
        """Copy an array, or bytes; return how many bytes it is.

        Raises:
            TypeError, ValueError: it does not fit; nothing was copied.
        """
        data = self._bytes_of(obj, what)
        if data.nbytes > self.view.nbytes:
            raise ValueError(f"{what} has {data.nbytes} bytes, and the buffer {self.view.nbytes}")
        self.view[: data.nbytes] = data
        return data.nbytes

    def _bytes_of(self, obj: Any, what: str) -> memoryview:
        if _is_array(obj):
            if self._array is not None and obj.dtype != self._array.dtype:
                raise TypeError(f"{what} is an array of {obj.dtype}, and the buffer one of {self._array.dtype}")
            obj = _as_bytes(obj)
        try:
            view = memoryview(obj)
        except TypeError:
            raise TypeError(f"{what} is neither an array nor bytes, but of the type {type(obj).__name__}") from None
        return view.cast("B") if view.nbytes else memoryview(b"")


def bytes_of(obj: Any, *, writable: bool = False) -> tuple[str, memoryview] | None:
    """Return what kind of elements something has, "" for bytes, and its memory.

    Returns:
        None where its memory is not in one piece, is not to be written to and should be, or has elements of which this
        does not tell the kind.
    """
    if _is_array(obj):
        if not obj.flags.c_contiguous or obj.dtype.kind in "OV" or (writable and not obj.flags.writeable):
            return None
        return obj.dtype.str, memoryview(_as_bytes(obj))
    try:
        view = memoryview(obj)
    except (TypeError, ValueError):
        return None
    if not view.c_contiguous or view.format == "O" or (writable and view.readonly):
        return None
    return "", view.cast("B") if view.nbytes else memoryview(b"")


def _is_array(obj: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.ndarray)


def _as_bytes(array: Any) -> Any:
    """Return an array's elements as an array of bytes, in C's order; of its own memory where that is possible."""
    if array.dtype.hasobject:
        raise TypeError(f"an array of {array.dtype} has no bytes, but Python objects")
    return array.reshape(-1).view("u1")
