"""C types in shared memory, with locks or without; multiprocessing.sharedctypes' names.

Layer: above synchronize and heap, which has the memory.
"""

from __future__ import annotations

import ctypes
import multiprocessing.sharedctypes as standard
from multiprocessing.context import assert_spawning
from multiprocessing.sharedctypes import (  # type: ignore[attr-defined]
    make_property,
    prop_cache,
    rebuild_ctype,
    reduce_ctype,
    template,
    typecode_to_type,
)
from typing import Any
from weakref import WeakKeyDictionary

from klyng_mp import heap
from klyng_mp.process import START_METHOD

__all__ = [
    "Array",
    "RawArray",
    "RawValue",
    "Synchronized",
    "SynchronizedArray",
    "SynchronizedBase",
    "SynchronizedString",
    "Value",
    "class_cache",
    "copy",
    "make_property",
    "prop_cache",
    "rebuild_ctype",
    "reduce_ctype",
    "synchronized",
    "template",
    "typecode_to_type",
]


def _new_value(type_: Any) -> Any:
    return rebuild_ctype(type_, heap.BufferWrapper(ctypes.sizeof(type_)), None)


def _zeros(type_: Any) -> Any:
    made = _new_value(type_)
    ctypes.memset(ctypes.addressof(made), 0, ctypes.sizeof(made))  # the block may have been somebody's before
    return made


def RawValue(typecode_or_type: Any, *args: Any) -> Any:
    """Return a ctypes object in shared memory; see ``multiprocessing.sharedctypes.RawValue``."""
    made = _zeros(typecode_to_type.get(typecode_or_type, typecode_or_type))
    made.__init__(*args)
    return made


def RawArray(typecode_or_type: Any, size_or_initializer: Any) -> Any:
    """Return a ctypes array in shared memory; see ``multiprocessing.sharedctypes.RawArray``."""
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _zeros(type_ * size_or_initializer)
    made = _new_value(type_ * len(size_or_initializer))
    made.__init__(*size_or_initializer)
    return made


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes object in shared memory, with a lock; see ``multiprocessing.Value``."""
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """Return a ctypes array in shared memory, with a lock; see ``multiprocessing.Array``."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock is True or lock is None:
        lock = (ctx or START_METHOD.context()).RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx)


def copy(obj: Any) -> Any:
    """Return a copy of a ctypes object in shared memory."""
    made = _new_value(type(obj))
    ctypes.pointer(made)[0] = obj
    return made


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a ctypes object with a lock; see ``multiprocessing.sharedctypes.synchronized``."""
    if isinstance(obj, standard.SynchronizedBase):
        raise AssertionError("object already synchronized")  # noqa: TRY004 - as the standard module says it
    if isinstance(obj, ctypes._SimpleCData):
        return Synchronized(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        kind = SynchronizedString if obj._type_ is ctypes.c_char else SynchronizedArray
        return kind(obj, lock, ctx)
    return _synchronized_class(type(obj))(obj, lock, ctx)


def _synchronized_class(cls: Any) -> Any:
    if cls not in class_cache:
        properties = {field[0]: make_property(field[0]) for field in cls._fields_}
        class_cache[cls] = type(f"Synchronized{cls.__name__}", (SynchronizedBase,), properties)
    return class_cache[cls]


class SynchronizedBase(standard.SynchronizedBase):  # type: ignore[type-arg]
    """A ctypes object with a lock; see ``multiprocessing.Value``."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        super().__init__(obj, lock or (ctx or START_METHOD.context()).RLock())

    def __reduce__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        return synchronized, (self._obj, self._lock)  # type: ignore[attr-defined]


class Synchronized(standard.Synchronized, SynchronizedBase):  # type: ignore[type-arg]
    """A simple ctypes object with a lock."""


class SynchronizedArray(standard.SynchronizedArray, SynchronizedBase):  # type: ignore[type-arg]
    """A ctypes array with a lock."""


class SynchronizedString(standard.SynchronizedString, SynchronizedArray):
    """A ctypes array of characters with a lock."""


class_cache: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
