"""Memory that travels between processes as a descriptor: large buffers are copied once, into a segment that is warm.

Layer: leaf; imports nothing of klyng_mp. Ranks have slabs instead (_core/slab.c), which need no system call.

A segment is a memfd without a name, so that nothing can be left behind. Its first byte says whether somebody uses it:
the sender sets it, and the receiver clears it when the last object over its memory is gone. Then the sender, who keeps
the segment mapped, can fill it again: pages that were used cost a copy, fresh ones several times that. A receiver that
dies with a segment costs its sender no more than that one, which is forgotten some time.

Layout: one cache line, of which the first byte is the flag; then the parts, each from a new cache line on.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Mapping", "Segment", "SegmentPool"]

_LINE_BYTES = 64
_USED, _FREE = 1, 0
_STEP_BYTES = 1 << 16  # of sizes, so that what is a little larger finds room, too
# What a sender keeps mapped, in use or not; more segments than that are forgotten as soon as they are sent.
_KEPT_SEGMENTS = 16
_KEPT_BYTES = 1 << 28


def _aligned(size: int) -> int:
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
        self.fd = os.memfd_create("klyng_mp", os.MFD_CLOEXEC)
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
        start = _LINE_BYTES
        for part in parts:
            end = start + len(part)
            self._memory[start:end] = part
            start = _aligned(end)

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
        size = _LINE_BYTES + sum(_aligned(len(part)) for part in parts)
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


class Mapping(mmap.mmap):
    """A segment as its receiver has it; it is free for its sender when the last view of it is gone.

    Attributes:
        start: where the first part is.
    """

    start = _LINE_BYTES

    @classmethod
    def receive(cls, fd: int) -> Mapping:
        """Return the memory of a descriptor that has come, which is closed.

        Raises:
            OSError: there is no room for it in this process.
        """
        try:
            return cls(fd, os.fstat(fd).st_size)  # who reads it pays for its pages, sixteen at a time
        finally:
            os.close(fd)

    def parts(self, sizes: Sequence[int]) -> list[memoryview]:
        """Return views of the parts that have these sizes."""
        views = []
        start = _LINE_BYTES
        with memoryview(self) as whole:
            for size in sizes:
                views.append(whole[start : start + size])
                start = _aligned(start + size)
        return views

    def __del__(self) -> None:
        self[0] = _FREE
