"""A process that ends when another one does, whatever either of them does then.

Layer: leaf; imports nothing of klyng_mp.

A leash is a pipe whose write end only the holder has. When the kernel closes it, the process at the other end is
killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from multiprocessing.popen_fork import Popen

__all__ = ["hold", "put_on_leash"]

_F_SETSIG = 10  # Linux's number, the same on every architecture that Python runs on; not in module fcntl


def put_on_leash(leash: int, owner: int) -> None:
    """Let the kernel kill a process, or a whole group, when the leash's other end is closed.

    A pipe's end raises SIGIO for whoever asked for it; which signal and whom it hits can be chosen.
    Unlike PR_SET_PDEATHSIG this does not follow a thread, and unlike reading the pipe it also ends a
    process that computes.

    Args:
        leash: descriptor of the pipe's read end; nothing must ever be written to it.
        owner: the process to kill, or minus the group.
    """
    fcntl.fcntl(leash, fcntl.F_SETOWN, owner)
    fcntl.fcntl(leash, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC)
    os.set_blocking(leash, False)
    try:
        gone = os.read(leash, 1) == b""
    except BlockingIOError:
        return
    if gone:  # it ended before anybody was told to look
        os.kill(os.getpid(), signal.SIGKILL)


_held: WeakSet[Popen] = WeakSet()


def hold(popen: Popen) -> None:
    """Remember that this process holds the leash of a child: those forked later must not hold it, too."""
    _held.add(popen)


def _let_go() -> None:
    for popen in list(_held):
        finalizer: Any = popen.finalizer
        if finalizer.still_active():
            for fd in finalizer._args:
                if fd != popen.sentinel:
                    os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
