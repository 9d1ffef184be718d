"""Memory that travels between processes as a descriptor: large buffers are copied once, into a segment that is warm.

Layer: above native, whose core maps what is received. Ranks have slabs instead (_core/slab.c), which need no system
call.

A segment is a memfd without a name, so that nothing can be left behind. Its first byte says whether somebody uses it:
the sender sets it, and the receiver clears it when the last object over its memory is gone. Then the sender, who keeps
the segment mapped, can fill it again: pages that were used cost a copy, fresh ones several times that. A receiver that
dies with a segment costs its sender no more than that one, which is forgotten some time.

Layout: one page, of which the first byte is the flag; then the parts, each from a new cache line on.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from typing import TYPE_CHECKING

from klyng_mp.native import core

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Segment", "SegmentPool", "aligned", "receive", "table_of", "views_of"]

_LINE_BYTES = 64
_COUNT = struct.Struct("<Q")
_USED, _FREE = 1, 0
_STEP_BYTES = 1 << 16  # of sizes, so that what is a little larger finds room, too
# What a sender keeps mapped, in use or not, with two descriptors each; more are forgotten as soon as they are sent.
_KEPT_SEGMENTS = 16
_KEPT_BYTES = 1 << 28


def aligned(size: int) -> int:
    """Return where the next cache line begins."""
    return -size % _LINE_BYTES + size


class Segment:
    """One segment, as its sender has it.

    Raises:
        OSError: there is no memory, or no descriptor, left.

    Attributes:
        fd: to be sent along with what says where the parts are.
        size: its bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.fd = os.memfd_create("klyng_mp segment", os.MFD_CLOEXEC)
        try:
            os.ftruncate(self.fd, size)
            self._memory = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def free(self) -> bool:
        """Whether nobody uses it any more."""
        return self._memory[0] == _FREE

    def fill(self, parts: Sequence[bytes | memoryview]) -> None:
        """Copy the parts into it, and mark it as used."""
        self._memory[0] = _USED
        start = mmap.PAGESIZE
        for part in parts:
            end = start + len(part)
            self._memory[start:end] = part
            start = aligned(end)

    def give_back(self) -> None:
        """Mark it as free: it was not sent after all."""
        self._memory[0] = _FREE

    def close(self) -> None:
        """Forget it; whoever has received it keeps it."""
        self._memory.close()
        os.close(self.fd)


class SegmentPool:
    """The segments that this process sends, again and again.

    Threads: all may use it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        os.register_at_fork(after_in_child=self._forget)

    def fill(self, parts: Sequence[bytes | memoryview]) -> Segment:
        """Return a segment that holds the parts; give it to `keep` when it has been sent, or will not be.

        Raises:
            OSError: there is no memory, or no descriptor, left.
        """
        size = mmap.PAGESIZE + sum(aligned(len(part)) for part in parts)
        with self._lock:
            fitting = [each for each in self._segments if size <= each.size <= 4 * size and each.free]
            segment = min(fitting, key=lambda each: each.size, default=None)
            if segment is not None:
                self._segments.remove(segment)
        if segment is None:
            segment = Segment(-size % _STEP_BYTES + size)
        segment.fill(parts)
        return segment

    def keep(self, segment: Segment) -> None:
        """Keep a segment to fill it again; the oldest ones are forgotten if there are too many."""
        with self._lock:
            self._segments.append(segment)
            while len(self._segments) > _KEPT_SEGMENTS or sum(each.size for each in self._segments) > _KEPT_BYTES:
                self._segments.pop(0).close()

    def _forget(self) -> None:
        """In a fork's child, which shares the memory with its parent, who goes on using it."""
        self._lock = threading.Lock()
        while self._segments:
            self._segments.pop().close()


def receive(fd: int, sizes: Sequence[int] | None = None) -> list[memoryview]:
    """Return views of the parts of a segment whose descriptor has come, which is closed.

    Args:
        fd: the descriptor.
        sizes: of the parts; None: the first part is a table of those of the others, as `table_of` makes it.

    Raises:
        OSError: there is no room for it in this process.
    """
    try:
        whole = memoryview(core.Mapping(fd))
    finally:
        os.close(fd)
    if sizes is not None:
        return views_of(whole, sizes)
    (count,) = _COUNT.unpack_from(whole)
    return views_of(whole, struct.unpack_from(f"<{count}Q", whole, _COUNT.size), aligned(_COUNT.size * (1 + count)))


def views_of(whole: memoryview, sizes: Iterable[int], start: int = 0) -> list[memoryview]:
    """Return views of parts that begin at cache lines, one behind the other."""
    views = []
    for size in sizes:
        views.append(whole[start : start + size])
        start = aligned(start + size)
    return views


def table_of(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return a first part that says how long the others are."""
    sizes = [len(part) for part in parts]
    return _COUNT.pack(len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
