"""Queues between processes: multiprocessing.queues' names.

Layer: chooses between ringqueues, where there is a core, and carrierqueues.
"""

from __future__ import annotations

from queue import Empty, Full
from typing import TYPE_CHECKING

from klyng_mp.native import core

if TYPE_CHECKING or core is not None:
    from klyng_mp.ringqueues import JoinableQueue, Queue, SimpleQueue
else:
    from klyng_mp.carrierqueues import JoinableQueue, Queue, SimpleQueue

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]
