"""Queues where there is no core: the standard library's, in which an object travels as a pickle of ours.

Layer: above reduction. ``put`` pickles in the caller, so that the error is raised where the mistake is.
"""

from __future__ import annotations

import multiprocessing.queues as standard
from typing import Any

from klyng_mp.reduction import ForkingPickler, loads

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class _Carrier:
    """An object that is pickled already; its pickle opens to the object."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return loads, (self._data,)


class Queue(standard.Queue):  # type: ignore[type-arg]
    """A queue of objects for many putters and many getters; see ``multiprocessing.Queue``."""

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue, as it is now; a CodecError names what cannot travel."""
        super().put(_Carrier(bytes(ForkingPickler.dumps(obj))), block, timeout)


class JoinableQueue(Queue, standard.JoinableQueue):  # type: ignore[type-arg]
    """A queue that can be joined: until each object that was put is done."""


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a bound of its own; see ``multiprocessing.SimpleQueue``."""

    def put(self, obj: Any) -> None:
        """Put an object into the queue; a CodecError names what cannot travel."""
        super().put(_Carrier(bytes(ForkingPickler.dumps(obj))))
