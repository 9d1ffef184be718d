"""Writes what ranks of other hosts print, in a thread of its own: a slow reader must not make the driver look dead.

Layer: remote.

What was written is acknowledged to its host, which holds back the rest while too much is on its way. What comes after
output, as the word that all of a run's has been sent, has its turn when that has been written.
"""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Printer"]


class Printer:
    """One thread that writes, in the order in which it is told.

    Threads: any may call.
    """

    def __init__(self) -> None:
        self._turns: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="klyng_mp printer", daemon=True)
        self._thread.start()

    def write(self, stream: str, data: bytes, written: Callable[[int], None]) -> None:
        """Write to this program's "stdout" or "stderr", and then call ``written`` with the number of bytes."""

        def turn() -> None:
            target = getattr(sys, stream)
            if target is not None:
                with suppress(OSError, ValueError):  # whoever reads is gone, or the program has closed it
                    target.write(data.decode(errors="replace"))
                    target.flush()
            written(len(data))

        self._turns.put(turn)

    def then(self, action: Callable[[], None]) -> None:
        """Do something when all that was to be written until now has been."""
        self._turns.put(action)

    def stop(self) -> None:
        """Let the thread end when it has nothing more to write; does not wait."""
        self._turns.put(None)

    def _serve(self) -> None:
        while (turn := self._turns.get()) is not None:
            turn()
