"""Queues between processes.

Layer: above synchronize; multiprocessing.queues' names.
"""

from __future__ import annotations

import multiprocessing.queues as standard
from queue import Empty, Full

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


class Queue(standard.Queue):  # type: ignore[type-arg]
    """See ``multiprocessing.Queue``."""


class JoinableQueue(standard.JoinableQueue):  # type: ignore[type-arg]
    """See ``multiprocessing.JoinableQueue``."""


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """See ``multiprocessing.SimpleQueue``."""
