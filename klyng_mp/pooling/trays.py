"""A tray: what a worker has begun, and answers that have not left it yet, in memory that outlives it.

Layer: pooling; imports tasks.

A worker that is reached by a stream sends many small answers in one message. Until that message is with the kernel they
lie in its tray, which whoever buries the worker reads: so a worker that is killed loses no answer that it had, and it
is known which task it was at.

    word 0                 how many tasks were begun
    words 1 and 2          of the first half: the number of its first answer; count << 32 | bytes
    words 3 and 4          of the second half
    from byte 64           the answers of the first half, then of the second one, each as a task of a batch

Invariants: answers are written before the word that counts them, and each word at once; a half that is on its way is
not written to until it has left.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HALF_BYTES", "TRAY_BYTES", "TrayContent", "make_tray", "map_tray", "read_tray"]

HEAD_BYTES = 64
HALF_BYTES = 1 << 15  # of small answers: what leaves in one message
TRAY_BYTES = HEAD_BYTES + 2 * HALF_BYTES

_WORDS = struct.Struct("<5Q")


class TrayContent(NamedTuple):
    """What a worker has left.

    Attributes:
        begun: how many tasks it had begun.
        answers: (number of the first one, how many, the answers one behind the other), in the order of the numbers;
            what had left may be among it.
    """

    begun: int
    answers: Sequence[tuple[int, int, bytes]]


def make_tray() -> int:
    """Return a descriptor of the memory for a tray.

    Raises:
        OSError: there is no memory, or no descriptor.
    """
    fd = os.memfd_create("klyng_mp tray", os.MFD_CLOEXEC)
    os.ftruncate(fd, TRAY_BYTES)
    return fd


def map_tray(fd: int) -> mmap.mmap:
    """Return the memory of a tray; the descriptor is still the caller's."""
    return mmap.mmap(fd, TRAY_BYTES)


def read_tray(data: bytes) -> TrayContent:
    """Return what a tray says; nothing of what makes no sense, which its user may have written.

    Args:
        data: the bytes of the tray, of which zeros at the end may be missing.
    """
    data = data[:TRAY_BYTES].ljust(TRAY_BYTES, b"\0")
    begun, *words = _WORDS.unpack_from(data)
    answers = []
    for half in range(2):
        first, sizes = words[2 * half], words[2 * half + 1]
        count, size = sizes >> 32, sizes & 0xFFFFFFFF
        begin = HEAD_BYTES + half * HALF_BYTES
        if count and size <= HALF_BYTES:
            answers.append((first, count, data[begin : begin + size]))
    return TrayContent(begun, sorted(answers))
