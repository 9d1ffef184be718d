"""Ends every process below this one, also those that have cut themselves loose from their parents.

Layer: remote.

A subreaper is the parent of whatever loses its own below it, so nothing can escape from the tree but by a fork storm
that is faster than the sweep: first all are stopped, so that no more are born, then all are killed.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

__all__ = ["become_subreaper", "children_of", "sweep"]

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100


def become_subreaper() -> None:
    """Be the parent of processes below that lose theirs."""
    import ctypes  # noqa: PLC0415 - there is no other way to the call

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> list[int]:
    """Return the children of a process, zombies among them."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    return found


def sweep(spared: frozenset[int] = frozenset()) -> int:
    """Kill all processes below this one; return how many there were.

    Args:
        spared: children that stay, with all that is below them.
    """
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        below = _descendants(spared)
        if not below:
            break
        for pid in below:
            _signal(pid, signal.SIGSTOP)
        for pid in _descendants(spared):
            _signal(pid, signal.SIGKILL)
            killed.add(pid)
        _reap(spared)
    return len(killed)


def _descendants(spared: frozenset[int]) -> list[int]:
    found: list[int] = []
    todo = [pid for pid in children_of(os.getpid()) if pid not in spared]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children_of(pid)
    return found


def _signal(pid: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _reap(spared: frozenset[int]) -> None:
    """Wait for the children that were killed; what was below them becomes ours and is met in the next round."""
    for pid in children_of(os.getpid()):
        if pid not in spared:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
