"""The writing end of the pipe at which a process object waits for its process's end.

Layer: launch. The exit code goes there, or the end comes without a word: then whoever saw to the process is gone.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

__all__ = ["EXIT_CODE", "ExitPipe"]

EXIT_CODE = struct.Struct("<i")  # as multiprocessing counts them


class ExitPipe:
    """One process's.

    Args:
        fd: owned from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tell(self, exitcode: int | None) -> None:
        """Tell the exit code, or with None that nobody knows it; only the first time counts."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if exitcode is not None:
                with suppress(BrokenPipeError):  # nobody wants to know
                    os.write(fd, EXIT_CODE.pack(exitcode))
            os.close(fd)
