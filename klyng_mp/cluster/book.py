"""The guests of the ranks of one job, as its driver keeps account of them.

Layer: cluster. Its methods are called with the lock of the driver's endpoint held.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.launch.exitpipe import ExitPipe

if TYPE_CHECKING:
    from klyng_mp.launch.driver import Order

__all__ = ["GuestBook"]


class _Entry(NamedTuple):
    name: str
    rank: int
    exit_pipe: ExitPipe


class GuestBook:
    """Those that have come and have not left."""

    def __init__(self) -> None:
        self._serial = 0
        self._entries: dict[int, _Entry] = {}

    def enter(self, order: Order, exit_pipe: int) -> int:
        """Return the serial number of a process that is about to come; the pipe's end is still the caller's."""
        self._serial += 1
        self._entries[self._serial] = _Entry(order.name, order.rank, ExitPipe(os.dup(exit_pipe)))
        return self._serial

    def find(self, serial: int) -> list[tuple[int, str, int]]:
        """Return serial number, name and rank of one that is there, or with 0 of all."""
        return [(number, name, rank) for number, (name, rank, _) in self._entries.items() if serial in {0, number}]

    def leave(self, serial: int, exitcode: int | None) -> None:
        """Tell its process object the exit code of one, or with None that nobody knows it."""
        self._entries.pop(serial).exit_pipe.tell(exitcode)

    def close(self) -> None:
        """Let who waits for any of them know that nobody will say how they ended."""
        for serial in list(self._entries):
            self.leave(serial, None)
