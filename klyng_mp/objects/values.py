"""Values and arrays that processes on any host of a World use, element by element, under multiprocessing's names.

Layer: objects; imported only by who makes or gets one, as it needs ctypes.

Invariant: memory cannot be shared between machines, so there is no buffer: each access is an order to the driver, which
takes effect at once, and not while another thread has the lock.

Cost: each access is a message to the driver and one back; so of an array take slices. In the driver, none.
"""

from __future__ import annotations

import ctypes
from functools import partial
from multiprocessing.sharedctypes import typecode_to_type  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.native import core
from klyng_mp.objects.asking import How
from klyng_mp.objects.cells import CellState
from klyng_mp.objects.locks import Acquired, RLock, SharedLock
from klyng_mp.objects.orders import What
from klyng_mp.objects.semaphores import SemaphoreState
from klyng_mp.objects.shared import Shared, check_broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from klyng_mp.objects.semaphores import Answer
    from klyng_mp.objects.shared import Numbers

__all__ = ["Array", "RawArray", "RawValue", "Value"]

_POINTERS = "PzZO"
_UNBUFFERED: Any = object if core is None else core.Unbuffered
_READ, _WRITE = How("reading a shared value"), How("writing a shared value")


def _simple_type(wanted: Any) -> Any:
    """Return the ctypes type that a code or a type means."""
    type_ = typecode_to_type.get(wanted, wanted)
    if not isinstance(type_, type):
        raise TypeError(f"a code of one letter or a ctypes type is needed, not {wanted!r}")
    if not issubclass(type_, ctypes._SimpleCData) or getattr(type_, "_type_", _POINTERS) in _POINTERS:
        raise NotAcrossHostsError(
            f"a shared {type_.__name__}", "share simple ctypes, such as 'i' or ctypes.c_double, one for each field"
        )
    return type_


class _Cells(Shared, _UNBUFFERED):  # type: ignore[misc]
    """What values and arrays have in common."""

    _type: Any
    _length: int
    _lock: SharedLock | None

    def __init__(self, numbers: Numbers, data: Any, length: int, lock: SharedLock | None) -> None:
        if lock is not None and not isinstance(lock, SharedLock):
            raise TypeError(f"the lock of a shared value has to be a Lock or RLock of its World, not {lock!r}")
        self._set_state(type(data) if length < 0 else data._type_, length, lock)
        super().__init__(numbers, partial(self._make, data=bytes(data)))

    def _make(self, answer: Answer, data: bytes) -> CellState:
        state = None if self._lock is None else self._lock._desk.state(self._lock._number)
        return CellState(answer, data, state if isinstance(state, SemaphoreState) else None)

    def _state(self) -> tuple[Any, ...]:
        return self._type, self._length, self._lock

    def _set_state(self, type_: Any, length: int, lock: SharedLock | None) -> None:  # type: ignore[override]
        self._type, self._length, self._lock = type_, length, lock
        self._size = ctypes.sizeof(type_)

    def _read(self, start: int, count: int) -> Any:
        """Return a ctypes array of copies of some elements."""
        numbers = start * self._size, count * self._size, 0
        answer = self._desk.ask(self._number, What.READ, numbers, how=_READ)
        self._check(answer)
        return (self._type * count).from_buffer_copy(answer.content[1])

    def _write(self, start: int, step: int, data: Any) -> None:
        """Write the elements of a ctypes array."""
        numbers = start * self._size, step * self._size, self._size
        self._check(self._desk.ask(self._number, What.WRITE, numbers, content=(0, bytes(data), ()), how=_WRITE))

    def _check(self, answer: Any) -> None:
        if self._lock is not None:
            check_broken(answer, self._lock._label)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._type.__name__} of a World with hosts>"

    def __buffer__(self, flags: int) -> NoReturn:
        del flags
        self.get_obj()

    def get_obj(self) -> NoReturn:
        """Raise NotAcrossHostsError: there is no memory that processes of several hosts share."""
        raise NotAcrossHostsError(
            f"the memory of a shared {type(self).__name__}",
            "read a copy (value[:]) and write it back, or send arrays through a queue",
        )

    @property
    def __array_interface__(self) -> NoReturn:
        self.get_obj()


class _Locked(Acquired, _Cells):
    """What those with a lock have besides."""

    def _own_lock(self) -> SharedLock:
        assert self._lock is not None  # noqa: S101 - those with a lock have one
        return self._lock

    def get_lock(self) -> SharedLock:
        """Return the lock."""
        return self._own_lock()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock; see `SharedLock.acquire`."""
        return self._own_lock().acquire(block, timeout)

    def release(self) -> None:
        """Release the lock."""
        self._own_lock().release()


class RawValue(_Cells):
    """A value without a lock; see ``multiprocessing.RawValue``."""

    def __init__(self, numbers: Numbers, typecode_or_type: Any, *args: Any, lock: SharedLock | None = None) -> None:
        super().__init__(numbers, _simple_type(typecode_or_type)(*args), -1, lock)

    @property
    def value(self) -> Any:
        """The value."""
        return self._read(0, 1)[0]

    @value.setter
    def value(self, value: Any) -> None:
        self._write(0, 1, (self._type * 1)(value))


class Value(_Locked, RawValue):
    """A value with a lock; see ``multiprocessing.Value``."""

    def __init__(self, numbers: Numbers, typecode_or_type: Any, *args: Any, lock: Any = None) -> None:
        super().__init__(numbers, typecode_or_type, *args, lock=RLock(numbers) if lock in {None, True} else lock)


class RawArray(_Cells):
    """An array without a lock; see ``multiprocessing.RawArray``."""

    def __init__(
        self,
        numbers: Numbers,
        typecode_or_type: Any,
        size_or_initializer: int | Iterable[Any],
        *,
        lock: SharedLock | None = None,
    ) -> None:
        type_ = _simple_type(typecode_or_type)
        if isinstance(size_or_initializer, int):
            data = (type_ * size_or_initializer)()
        else:
            items = list(size_or_initializer)
            data = (type_ * len(items))(*items)
        super().__init__(numbers, data, len(data), lock)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return self._read(self._place(index), 1)[0]
        places = range(self._length)[index]
        if not places:
            return self._read(0, 0)[:]
        low = min(places[0], places[-1])
        found = self._read(low, abs(places[-1] - places[0]) + 1)
        return found[:: places.step] if places.step > 0 else found[places[0] - low :: places.step]

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if not isinstance(index, slice):
            self._write(self._place(index), 1, (self._type * 1)(value))
            return
        places = range(self._length)[index]
        items = list(value) if not isinstance(value, (bytes, str)) else value
        if len(items) != len(places):
            raise ValueError("Can only assign sequence of same size")
        if places:
            self._write(places[0], places.step, (self._type * len(places))(*items))

    def _place(self, index: int) -> int:
        try:
            return range(self._length)[index]
        except IndexError:
            raise IndexError("invalid index") from None

    def _characters(self) -> None:
        if self._type is not ctypes.c_char:
            raise AttributeError(f"{type(self).__name__} of {self._type.__name__} has no attribute 'value'")

    @property
    def value(self) -> bytes:
        """The characters before the first zero byte; only of arrays of c_char."""
        return self.raw.partition(b"\0")[0]

    @value.setter
    def value(self, value: bytes) -> None:
        self._characters()
        if len(value) > self._length:
            raise ValueError("byte string too long")
        self[: min(self._length, len(value) + 1)] = (value + b"\0")[: self._length]

    @property
    def raw(self) -> bytes:
        """All characters; only of arrays of c_char."""
        self._characters()
        return bytes(self._read(0, self._length))

    @raw.setter
    def raw(self, value: bytes) -> None:
        self._characters()
        if len(value) > self._length:
            raise ValueError("byte string too long")
        self[: len(value)] = value


class Array(_Locked, RawArray):
    """An array with a lock; see ``multiprocessing.Array``."""

    def __init__(
        self, numbers: Numbers, typecode_or_type: Any, size_or_initializer: int | Iterable[Any], *, lock: Any = None
    ) -> None:
        own = RLock(numbers) if lock in {None, True} else lock
        super().__init__(numbers, typecode_or_type, size_or_initializer, lock=own)
