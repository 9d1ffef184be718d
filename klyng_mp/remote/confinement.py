"""What a process that serves a stranger may use of the machine, and that nobody looks into one that has secrets.

Layer: remote; part of beacons and sessions. Only soft limits are set: whoever has logged in is given back what the
user's own limits were, and so are the ranks.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import NamedTuple

__all__ = ["Confinement", "keep_to_itself"]

_PR_SET_DUMPABLE = 4
_MEMORY_BYTES = 128 << 20  # besides what the beacon has already; a login takes 1 MiB
_CPU_SECONDS = 5  # a login takes 20 ms
_FILES = 64  # new ones have the lowest numbers there are


def keep_to_itself() -> None:
    """Let no core be dumped of this process, and no other process of this user look into it.

    What it forks inherits that, what it executes does not.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


class _Limit(NamedTuple):
    kind: int
    soft: int
    hard: int


class Confinement:
    """What this process is confined to, until `lift`: little memory, processor time and files, and some seconds.

    The kernel ends it when they are over, also where nobody else does.

    Args:
        seconds: until then.
    """

    def __init__(self, seconds: float) -> None:
        self._before: list[_Limit] = []
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        self._limit(resource.RLIMIT_AS, _size_bytes() + _MEMORY_BYTES)
        self._limit(resource.RLIMIT_CPU, _CPU_SECONDS)
        self._limit(resource.RLIMIT_NOFILE, _FILES)

    def _limit(self, kind: int, most: int) -> None:
        soft, hard = resource.getrlimit(kind)
        self._before.append(_Limit(kind, soft, hard))
        for known in (soft, hard):
            most = most if known == resource.RLIM_INFINITY else min(most, known)
        resource.setrlimit(kind, (most, hard))

    def lift(self) -> None:
        """Give back what it had."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for kind, soft, hard in self._before:
            resource.setrlimit(kind, (soft, hard))


def _size_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
