"""Pools of worker processes.

Layer: is given its context; multiprocessing.pool's names.
"""

from __future__ import annotations

import multiprocessing.pool as standard

__all__ = ["Pool", "ThreadPool"]

ThreadPool = standard.ThreadPool


class Pool(standard.Pool):
    """See ``multiprocessing.Pool``."""
