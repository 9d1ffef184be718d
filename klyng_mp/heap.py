"""Memory for shared objects, in files that have no name; multiprocessing.heap's names.

Layer: above process. The standard module's own heap stays as it is.

Invariant: an arena is a memfd. Nobody has to remove it, whoever is killed, and the size of /dev/shm does not matter.
"""

from __future__ import annotations

import mmap
import multiprocessing.heap as standard
import os
from typing import Any

from klyng_mp.reduction import DupFd, register
from klyng_mp.util import Finalize, info

__all__ = ["Arena", "BufferWrapper", "Heap", "rebuild_arena", "reduce_arena"]


class Arena(standard.Arena):
    """A piece of memory that processes share.

    Args:
        size: in bytes.
        fd: the descriptor of its file, which is the arena's from now on; -1: it is made.
    """

    def __init__(self, size: int, fd: int = -1) -> None:
        if fd == -1 and hasattr(os, "memfd_create"):
            fd = os.memfd_create("klyng-heap")
            os.ftruncate(fd, size)
        if fd != -1:
            Finalize(self, os.close, (fd,))
        super().__init__(size, fd)


def reduce_arena(a: Arena) -> tuple[Any, ...]:
    """Return how an arena travels to a process that is being started."""
    return rebuild_arena, (a.size, DupFd(a.fd))


def rebuild_arena(size: int, dupfd: Any) -> Arena:
    """Return an arena from what has travelled of it; pickles call this."""
    return Arena(size, dupfd.detach())


register(Arena, reduce_arena)


class Heap(standard.Heap):
    """Arenas, and the blocks that are given out of them."""

    _size: int
    _arenas: list[Any]

    def _new_arena(self, size: int) -> tuple[Arena, int, int]:
        length = self._roundup(max(self._size, size), mmap.PAGESIZE)  # type: ignore[attr-defined]
        if self._size < self._DOUBLE_ARENA_SIZE_UNTIL:  # type: ignore[attr-defined]
            self._size *= 2
        info("allocating a new mmap of length %d", length)
        arena = Arena(length)
        self._arenas.append(arena)
        return arena, 0, length


class BufferWrapper(standard.BufferWrapper):
    """A block of the heap, given back when nobody here refers to this any more."""

    _heap = Heap()

    def __init__(self, size: int) -> None:
        heap = BufferWrapper._heap
        block = heap.malloc(size)
        self._state = block, size
        Finalize(self, heap.free, args=(block,))
