"""Memory for shared objects.

Layer: above process. It is the standard module's, under the same name here: there is one tree of processes.
"""

from __future__ import annotations

from multiprocessing.heap import (
    Arena,
    BufferWrapper,
    Heap,
    rebuild_arena,
    reduce_arena,
)

__all__ = [
    "Arena",
    "BufferWrapper",
    "Heap",
    "rebuild_arena",
    "reduce_arena",
]
