"""Queues between processes.

Layer: above synchronize; multiprocessing.queues' names.
"""

from __future__ import annotations

import multiprocessing.queues as standard
from queue import Empty, Full
from typing import Any

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]


class Queue(standard.Queue[Any]):
    """See ``multiprocessing.Queue``."""


class JoinableQueue(standard.JoinableQueue[Any]):
    """See ``multiprocessing.JoinableQueue``."""


class SimpleQueue(standard.SimpleQueue[Any]):
    """See ``multiprocessing.SimpleQueue``."""
