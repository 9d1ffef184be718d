"""Memory for large parts of messages that come over a stream.

Layer: wire.

Invariant: what is handed out is referred to by nobody else, however it was handed on by those who had it before.
"""

from __future__ import annotations

from collections import deque
from sys import getrefcount
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

__all__ = ["allocate"]

_KEPT_SIZE = 64 * 1024 * 1024  # of large blocks, used or not, that are known here
_UNUSED = 2  # references to a block that only we have: a variable, and the argument of `getrefcount`
_MAP_SIZE = 8 * 1024 * 1024  # malloc returns such blocks to the system, so they come fresh: huge pages fill 5x faster

_kept: deque[mmap.mmap] = deque()


def allocate(size: int) -> bytearray | memoryview:
    """Return writable memory, which costs real memory only as it is filled where it is large.

    Large blocks that nobody refers to any more are handed out again: the first touch of fresh pages takes as long as
    half of what the network does.
    """
    if size < _MAP_SIZE:
        return bytearray(size)
    import mmap  # noqa: PLC0415 - a shared library that most programs never need

    if not hasattr(mmap, "MAP_PRIVATE"):
        return bytearray(size)
    for _ in range(len(_kept)):
        try:
            block = _kept.popleft()  # so that no other thread looks at it
        except IndexError:
            break
        view = None
        if size <= len(block) <= size + size // 4 and getrefcount(block) == _UNUSED:
            view = memoryview(block)[:size]
        _kept.append(block)
        if view is not None:
            return view
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(block)
    if size <= _KEPT_SIZE:
        _kept.append(block)
        while sum(map(len, _kept)) > _KEPT_SIZE:
            _kept.popleft()
    return view
