"""How descriptors travel in ordinary pickles.

Layer: above process. It is the standard module's, under the same name here: there is one tree of processes.
"""

from __future__ import annotations

from multiprocessing.resource_sharer import (
    DupFd,
    stop,
)

__all__ = [
    "DupFd",
    "stop",
]
