"""Locks and other things to wait for, between processes.

Layer: above context's parts; multiprocessing.synchronize's names.
"""

from __future__ import annotations

import multiprocessing.synchronize as standard

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


class Lock(standard.Lock):
    """See ``multiprocessing.Lock``."""


class RLock(standard.RLock):
    """See ``multiprocessing.RLock``."""


class Semaphore(standard.Semaphore):
    """See ``multiprocessing.Semaphore``."""


class BoundedSemaphore(standard.BoundedSemaphore):
    """See ``multiprocessing.BoundedSemaphore``."""


class Condition(standard.Condition):
    """See ``multiprocessing.Condition``."""


class Event(standard.Event):
    """See ``multiprocessing.Event``."""


class Barrier(standard.Barrier):
    """See ``multiprocessing.Barrier``."""
