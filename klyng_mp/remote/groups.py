"""A control group for the processes of one job, where this user may make one: then none of them can escape its end.

Layer: remote. Only version 2 of control groups can kill all at once; elsewhere the sweep has to do.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

__all__ = ["JobGroup"]

_EMPTY_SECONDS = 5.0  # the kernel takes milliseconds to empty a group that was killed


class JobGroup:
    """A group that exists from now on, beside this process's own.

    Raises:
        OSError: there is none to be had; `make` returns None then.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.mkdir(folder)

    @classmethod
    def make(cls, name: str, *, root: str = "/") -> JobGroup | None:
        """Return a new group; None where control groups are of version 1, or not this user's to make.

        Args:
            name: of the group.
            root: where the file system begins.
        """
        try:
            with open(os.path.join(root, "proc/self/cgroup")) as file:
                own = next(line[3:].strip() for line in file if line.startswith("0::"))
            parent = os.path.join(root, "sys/fs/cgroup", own.strip("/"))
            if not os.path.exists(os.path.join(parent, "cgroup.kill")):
                return None
            return cls(os.path.join(parent, name))
        except (OSError, StopIteration):
            return None

    def add(self, pid: int) -> bool:
        """Put a process into it, with all that it is going to start; tell whether that could be done."""
        try:
            self._write("cgroup.procs", str(pid))
        except OSError:
            return False
        return True

    def end(self) -> None:
        """Kill all that is in it, and remove it."""
        with suppress(OSError):  # nothing is in it any more, or the sweep finds it
            self._write("cgroup.kill", "1")
        deadline = time.monotonic() + _EMPTY_SECONDS
        while time.monotonic() < deadline:
            try:
                os.rmdir(self.folder)
            except FileNotFoundError:
                return
            except OSError:
                os.sched_yield()  # there is nothing to wait on: the file that tells is removed with the group
            else:
                return

    def _write(self, name: str, text: str) -> None:
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)
