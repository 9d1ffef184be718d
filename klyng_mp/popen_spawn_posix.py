"""Children that are fresh interpreters.

Layer: above process.
"""

from __future__ import annotations

import multiprocessing.popen_spawn_posix as standard

from klyng_mp.process import Launching

__all__ = ["Popen"]


class Popen(Launching, standard.Popen):
    """See ``multiprocessing.popen_spawn_posix.Popen``."""

    def duplicate_for_child(self, fd: int) -> int:
        """Let the child have a descriptor under the same number; asked for twice where pickling needs two attempts."""
        fds: list[int] = self._fds  # type: ignore[attr-defined]
        if fd not in fds:
            fds.append(fd)
        return fd
