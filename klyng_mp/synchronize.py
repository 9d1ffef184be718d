"""Locks, semaphores, conditions, events and barriers, under multiprocessing's names, that survive a killed holder.

Layer: between connection and queues; each class is one of ``multiprocessing.synchronize`` with a part of `robust` put
before it. Without the C core they are the standard library's, and what is said here of killed processes does not hold.

What happens when a process is killed (SIGKILL, a crash, ``os._exit``):

* It held a Lock or RLock, or a Condition's: who waits, and whoever acquires later, gets `BrokenLockError` within two
  seconds. The lock stays broken, since what it guards may be half-written; only the program can tell, and make both
  anew.
* It had permits of a Semaphore or BoundedSemaphore: as long as others are to be had nothing happens; who finds none
  gets `BrokenLockError`. A semaphore that starts at 0, or whose permits are given back by processes that have taken
  none, is a signal: its permits belong to nobody, and it is never broken. Whoever knows of the death may ``release``
  instead of the dead process, once for each of its permits.
* It waited, for a lock, a Condition or an Event: the others go on. It waited in a Barrier: the others get
  `BrokenBarrierError` within two seconds. A barrier cannot know of a party that died before it came.

A process that ends by itself breaks nothing: as in the standard library, what it holds stays taken, and others may
release it. Only who would wait for such a lock for ever gets `BrokenLockError`.
"""

from __future__ import annotations

import multiprocessing.synchronize as standard
from typing import TYPE_CHECKING, Any

from klyng_mp.native import core

if TYPE_CHECKING:
    from klyng_mp.robust import Context

__all__ = [
    "RECURSIVE_MUTEX",
    "SEMAPHORE",
    "SEM_VALUE_MAX",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "SemLock",
    "Semaphore",
    "UnownedSemaphore",
]

RECURSIVE_MUTEX, SEMAPHORE = range(2)
SEM_VALUE_MAX: int = standard.SEM_VALUE_MAX  # type: ignore[attr-defined]


if TYPE_CHECKING or core is not None:
    from klyng_mp.robust import RobustBarrier, RobustCondition, RobustEvent, RobustParties, RobustSemLock
else:

    class _Nothing:
        """What stands in the place of a robust part where there is no core."""

    class _NothingMore(_Nothing):
        """What stands in the place of the part that goes before another."""

    RobustBarrier = RobustCondition = RobustEvent = RobustSemLock = _Nothing
    RobustParties = _NothingMore


class SemLock(RobustSemLock, standard.SemLock):
    """What Lock, RLock and the semaphores are made of."""


class Lock(SemLock, standard.Lock):
    """A lock that any process or thread may release; see the module for what happens when its holder is killed."""

    def __init__(self, *, ctx: Context | None) -> None:
        SemLock.__init__(self, SEMAPHORE, 1, 1, ctx=ctx)


class RLock(SemLock, standard.RLock):
    """A lock that its thread may take several times, and only it may release."""

    def __init__(self, *, ctx: Context | None) -> None:
        SemLock.__init__(self, RECURSIVE_MUTEX, 1, 1, ctx=ctx)


class Semaphore(SemLock, standard.Semaphore):
    """A number of permits; a process that is killed with some of them is noticed when none is left."""

    def __init__(self, value: int = 1, *, ctx: Context | None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)


class BoundedSemaphore(Semaphore, standard.BoundedSemaphore):
    """A Semaphore that cannot be released beyond its first value."""

    def __init__(self, value: int = 1, *, ctx: Context | None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)


class UnownedSemaphore(BoundedSemaphore):
    """A BoundedSemaphore whose permits belong to nobody, as the places of a queue: it is never broken."""

    _owned = False


class Condition(RobustCondition, standard.Condition):
    """A condition variable; ``notify`` wakes only processes that live."""


class Event(RobustEvent, standard.Event):
    """A flag that processes can wait for."""


class _Parties(RobustParties, Condition):
    """A barrier's condition."""


class Barrier(RobustBarrier, standard.Barrier):
    """A barrier; it breaks when a process is killed that waits in it."""

    def _make_condition(self, ctx: Any) -> _Parties:
        return _Parties(ctx=ctx)
