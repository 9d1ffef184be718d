"""The communicator that this process is in, and klyng's short program shape on top of it.

Layer: communicator. What brings a rank to life calls ``set_current``; everything else asks.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from klyng_mp.communicator.awaiting import complete
from klyng_mp.communicator.buffers import allocate
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.errors import NoRankError
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import make_context
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from klyng_mp.communicator.requests import Status

__all__ = [
    "comm", "empty", "end", "finding", "forbid", "init", "rank", "recv", "recv_into", "send", "set_current", "size",
    "sleep", "yield_",
]  # fmt: skip

Result = TypeVar("Result")

_current: Communicator | None = None
_find: Callable[[], Communicator | None] | None = None  # where ranks take turns in a process
_reason = ""  # why this process must have none


def set_current(communicator: Communicator | None) -> None:
    """Make ``communicator`` the one that ``comm()`` returns in this process; None for a world of one."""
    global _current  # noqa: PLW0603 - a process is in one World at a time, and all its threads share it
    _current = communicator


@contextmanager
def finding(find: Callable[[], Communicator | None]) -> Iterator[None]:
    """Have ``comm()`` ask a function first: the ranks of a process take turns within this block."""
    global _find  # noqa: PLW0603 - as above
    before, _find = _find, find
    try:
        yield
    finally:
        _find = before


def forbid(reason: str) -> None:
    """Let ``comm()`` raise NoRankError with this sentence in this process."""
    global _reason  # noqa: PLW0603 - as above
    _reason = reason


def comm() -> Communicator:
    """Return this rank's communicator: all ranks of its World, for the present run.

    Outside of any World that is a world of one (rank 0, size 1), so that a program also runs by itself.

    Raises:
        NoRankError: this process was started from a World that had no place free.
    """
    if _find is not None and (found := _find()) is not None:
        return found
    if _reason:
        raise NoRankError(_reason)
    if _current is None:
        codec = Codec(main_by_reference=True)
        set_current(Communicator(Endpoint(0), codec, context=make_context(1), rank=0, members=[0]))
    assert _current is not None  # noqa: S101 - for the type checker
    return _current


def init(main: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Result:
    """Start the program at its entry function: call ``main(*args, **kwargs)`` in this rank, return its result.

    A coroutine function runs in an event loop of its own, by ``asyncio.run``.

    This is klyng's way to begin; a program that calls its main by itself is the same.
    """
    return cast("Result", complete(main(*args, **kwargs)))


def end() -> None:
    """Say that this rank's program sends and receives no more; later calls raise ClosedError.

    This is klyng's way to end. A program that just ends does the same; one that goes on to compute
    alone can say so early.
    """
    comm().close()


def rank() -> int:
    """Return the number of this rank, from 0; 0 outside of any World."""
    return comm().rank


def size() -> int:
    """Return the number of ranks of this World; 1 outside of any."""
    return comm().size


def yield_() -> None:
    """Let others run: in a green rank those that take turns with it, else the processes that wait for a processor."""
    if (here := _here()) is not None:
        here.endpoint.give_way()
    else:
        os.sched_yield()


def sleep(seconds: float) -> None:
    """Do nothing for so many seconds, while others run: ``time.sleep``, also for a rank that takes turns with others.

    Raises:
        ValueError: there are fewer than 0.
        PeerLostError: the run was ended meanwhile, in a green rank.
    """
    if (here := _here()) is not None:
        here.endpoint.sleep(seconds)
    else:
        time.sleep(seconds)


def _here() -> Communicator | None:
    """Return this rank's communicator, if it has one already."""
    found = None if _find is None else _find()
    return _current if found is None else found


def send(obj: object, dest: int, tag: int | str = 0, *, move: bool = False, timeout: float | None = None) -> None:
    """Send ``obj`` to rank ``dest``; see ``Communicator.send``."""
    comm().send(obj, dest, tag, move=move, timeout=timeout)


def empty(shape: int | Sequence[int], dtype: Any = float) -> Any:
    """Return a new NumPy array, not initialised, whose memory can be given to another rank without a copy.

    It is as any other array, until ``send(array, dest, move=True)`` gives it away. It lies in the memory that the ranks
    of this host share, if it has 32 KiB or more and there is room (256 MiB a rank, which what receivers keep counts
    against); else in ordinary memory, and `send` copies it as usual.

    Args:
        shape: an int, or a sequence of ints.
        dtype: anything that NumPy takes for a dtype of plain memory.

    Raises:
        ImportError: NumPy is not installed.
        TypeError: the dtype is made of Python objects.
    """
    return allocate(comm().endpoint.port, shape, dtype)


def recv_into(
    buffer: Any,
    source: int = ANY_SOURCE,
    tag: int | str = ANY_TAG,
    *,
    timeout: float | None = None,
    status: Status | None = None,
) -> int:
    """Receive an array or bytes into memory that is there already; see ``Communicator.recv_into``."""
    return comm().recv_into(buffer, source, tag, timeout=timeout, status=status)


def recv(
    source: int = ANY_SOURCE,
    tag: int | str = ANY_TAG,
    *,
    timeout: float | None = None,
    status: Status | None = None,
) -> Any:
    """Receive the next object that matches; see ``Communicator.recv``."""
    return comm().recv(source, tag, timeout=timeout, status=status)
