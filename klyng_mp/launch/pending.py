"""Whether output of ranks is on its way to its reader: one byte that a supervisor shares with the ranks it forks.

Layer: launch.

A run is over for its user when its output has been written, too. Asking the supervisor costs two wake-ups of
processes; a rank whose pipes are empty while this byte is 0 knows that there is nothing to ask for. The
supervisor sets it before it reads from a pipe, and clears it after it has written what it read, so a rank that
sees an empty pipe first and the 0 then cannot have come in between.
"""

from __future__ import annotations

import array
import fcntl
import mmap
import select
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klyng_mp.deadline import Deadline

__all__ = ["count_unread", "is_quiet", "note", "share", "wait_until_read"]

_PAUSE_SECONDS = 0.001

_shared: mmap.mmap | None = None
_busy: set[int] = set()


def share() -> None:
    """Make the byte; the processes that are forked from now on have it."""
    global _shared  # noqa: PLW0603 - it belongs to the process, as the forks do
    _shared = mmap.mmap(-1, 1)


def note(owner: object, *, pending: bool) -> None:
    """In the supervisor: say whether output that ``owner`` forwards is on its way."""
    if _shared is None:
        return
    if pending:
        _busy.add(id(owner))
    else:
        _busy.discard(id(owner))
    _shared[0] = bool(_busy)


def is_quiet() -> bool:
    """In a rank: tell whether all that it has written has been read and forwarded, for sure."""
    if _shared is None:
        return False
    # None: the program has put something else there.
    return all(count_unread(fd) == 0 for fd in (1, 2)) and not _shared[0]


def count_unread(fd: int) -> int | None:
    """Return how many bytes of what was written to a pipe have not been read; None if it is no pipe."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return None
    return count[0]


def wait_until_read(deadline: Deadline) -> None:
    """Wait until what this process has printed has been read, where it goes into pipes, or the deadline is over."""
    while not deadline.over() and any(count_unread(fd) for fd in (1, 2)):
        select.select([], [], [], _PAUSE_SECONDS)  # nothing shows when a pipe becomes empty
