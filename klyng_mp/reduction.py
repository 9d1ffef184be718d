"""Pickling for the drop-in: multiprocessing.reduction's names, and pickles that carry what it refuses.

Layer: above wire, whose codec does the work.

Invariants: what is made here is an ordinary pickle, which any process opens with ``pickle.loads``. Only what plain
pickle refuses, or what refers to a ``__main__`` that other processes do not have, costs more than a plain pickle.
"""

from __future__ import annotations

import copyreg
import multiprocessing.reduction as standard
import pickle
import sys
from collections import ChainMap
from multiprocessing.reduction import (
    ACKNOWLEDGE,
    HAVE_SEND_HANDLE,
    AbstractReducer,
    DupFd,
    recv_handle,
    recvfds,
    register,
    send_handle,
    sendfds,
)
from typing import TYPE_CHECKING, Any

from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

__all__ = [
    "HAVE_SEND_HANDLE",
    "AbstractReducer",
    "DupFd",
    "ForkingPickler",
    "codec",
    "dump",
    "dumps_apart",
    "loads",
    "make_codec",
    "recv_handle",
    "recvfds",
    "register",
    "send_handle",
    "sendfds",
]

# The standard module's own table, and copyreg's: whoever registers a reducer with either has it here, too.
_REDUCERS: Any = ChainMap(standard.ForkingPickler._extra_reducers, copyreg.dispatch_table)  # type: ignore[attr-defined]

_BY_REFERENCE = Codec(main_by_reference=True, reducers=_REDUCERS)
_BY_VALUE = Codec(main_by_reference=False, reducers=_REDUCERS)


_receivers_lack_main = False


def make_codec(*, main_by_reference: bool) -> Codec:
    """Return a codec for the process objects of a World.

    Args:
        main_by_reference: whether the processes have this ``__main__``, too. Where they do not, things of ``__main__``
            go by value to all processes from now on: a queue does not know who reads from it.
    """
    global _receivers_lack_main  # noqa: PLW0603 - any object of this process may reach those processes
    _receivers_lack_main |= not main_by_reference
    return Codec(main_by_reference=main_by_reference, reducers=_REDUCERS)


def codec(*, by_reference: bool | None = None) -> Codec:
    """Return the codec for messages between this process and those that it starts, or that started it.

    Where ``__main__`` is a script or a module, they have it, too: forked, or imported as ``__mp_main__``. A session
    (a notebook, ``python -c``) is only here, so its functions and classes go by value.

    Args:
        by_reference: whether things of ``__main__`` go by reference, where the caller knows better.
    """
    if by_reference is not None:
        return _BY_REFERENCE if by_reference else _BY_VALUE
    if _receivers_lack_main:
        return _BY_VALUE
    main = sys.modules["__main__"]
    if hasattr(sys, "ps1") or (getattr(main, "__spec__", None) is None and not hasattr(main, "__file__")):
        return _BY_VALUE
    return _BY_REFERENCE


class ForkingPickler(standard.ForkingPickler):
    """multiprocessing's pickler, with the same table of reducers; ``dumps`` carries what that refuses."""

    @classmethod
    def dumps(cls, obj: object, protocol: int | None = None) -> memoryview:
        """Return ``obj`` as a pickle that plain ``pickle.loads`` opens.

        Lambdas, closures, local classes and, from a session, things of ``__main__`` go by value.

        Args:
            obj: anything.
            protocol: pickle's, for what plain pickle can pickle; by default 5.

        Raises:
            CodecError: it cannot travel; names the part that cannot. Also a TypeError or AttributeError where plain
                pickle's would be. What an object's own methods raise comes as it is.
        """
        if protocol is not None:
            return memoryview(super().dumps(obj, protocol))
        return memoryview(codec().encode_pickle(obj))


def dump(obj: object, file: IO[bytes], protocol: int | None = None) -> None:
    """Write ``obj`` to a file as `ForkingPickler.dumps` makes it."""
    file.write(ForkingPickler.dumps(obj, protocol))


def dumps_apart(obj: object) -> tuple[bytes, list[memoryview]]:
    """Return ``obj`` as a pickle, and its buffers of 4 KiB and more, which are views of its own memory."""
    buffers: list[memoryview] = []
    return codec().encode_pickle(obj, buffers), buffers


def loads(data: Any, buffers: Iterable[Any] = ()) -> Any:
    """Return the object of a pickle; it may use the memory of the buffers from now on."""
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - from a process of the same program
