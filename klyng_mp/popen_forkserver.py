"""Children that are forks of a server process.

Layer: above process. There is one server for this and the standard module.
"""

from __future__ import annotations

import multiprocessing.popen_forkserver as standard

from klyng_mp.process import Launching

__all__ = ["Popen"]


class Popen(Launching, standard.Popen):
    """See ``multiprocessing.popen_forkserver.Popen``."""

    def duplicate_for_child(self, fd: int) -> int:
        """Let the child have a descriptor, and return its place; asked for twice where pickling needs two attempts."""
        fds: list[int] = self._fds  # type: ignore[attr-defined]
        if fd not in fds:
            fds.append(fd)
        return fds.index(fd)
