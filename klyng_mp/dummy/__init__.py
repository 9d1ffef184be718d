"""multiprocessing's interface for threads; multiprocessing.dummy's names.

Layer: above pool. Threads, locks and queues are the standard module's; `Manager` and `Pool` stay in this package.
"""

from __future__ import annotations

import sys
from multiprocessing.dummy import (
    Array,
    Barrier,
    BoundedSemaphore,
    Condition,
    DummyProcess,
    Event,
    JoinableQueue,
    Lock,
    Namespace,
    Process,
    Queue,
    RLock,
    Semaphore,
    Value,
    active_children,
    current_process,
    freeze_support,
    shutdown,
)
from typing import TYPE_CHECKING, Any

from klyng_mp.dummy.connection import Pipe
from klyng_mp.pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

__all__ = [
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "DummyProcess",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Namespace",
    "Pipe",
    "Pool",
    "Process",
    "Queue",
    "RLock",
    "Semaphore",
    "Value",
    "active_children",
    "current_process",
    "dict",
    "freeze_support",
    "list",
    "shutdown",
]

dict = dict  # noqa: A001, PLW0127 - a manager's methods
list = list  # noqa: A001, PLW0127


def Manager() -> ModuleType:  # noqa: N802 - multiprocessing's names
    """Return this module, whose functions make what a manager's methods make."""
    return sys.modules[__name__]


def Pool(  # noqa: N802
    processes: int | None = None, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
) -> ThreadPool:
    """Return a pool of threads."""
    return ThreadPool(processes, initializer, initargs)
