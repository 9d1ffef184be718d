"""Channels: connections of a job between its driver and one rank that are not their endpoints'.

Layer: remote; imported by every rank of a World that spans hosts.

A channel has a number above all ranks, which its preface has as the source. Only the driver opens channels, and proves
itself as the driver. At the rank a channel waits for whoever claims its number; one that nobody wants is closed.

Invariants: at most MOST_KEPT channels wait in a rank, for KEPT_SECONDS each; a number is claimed once.

Threads: all may offer and claim.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from klyng_mp.wire.frames import DRIVER, FIRST_CHANNEL

if TYPE_CHECKING:
    from klyng_mp.deadline import Deadline

__all__ = ["KEPT_SECONDS", "MOST_KEPT", "Channels", "is_channel"]

MOST_KEPT = 16
KEPT_SECONDS = 30.0  # a program is imported before its worker claims anything


def is_channel(number: int) -> bool:
    """Tell whether a source is a channel, and neither a rank nor the driver."""
    return FIRST_CHANNEL <= number < DRIVER


class Channels:
    """The channels of one rank that were opened, until they are claimed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kept: dict[int, tuple[float, Any]] = {}
        self._closed = False

    def offer(self, number: int, sock: Any) -> None:
        """Own a socket from now on, which is what the channel of this number is made of."""
        with self._changed:
            self._drop_old()
            if self._closed or number in self._kept or len(self._kept) >= MOST_KEPT:
                sock.close()
                return
            self._kept[number] = monotonic(), sock
            self._changed.notify_all()

    def claim(self, number: int, deadline: Deadline) -> Any:
        """Return the socket of a channel once it was opened, or None if it was not until then."""
        with self._changed:
            while number not in self._kept:
                left = deadline.left()
                if (left is not None and left <= 0) or self._closed:
                    return None
                self._changed.wait(left)
            return self._kept.pop(number)[1]

    def close(self) -> None:
        """Close what nobody has claimed; nobody will."""
        with self._changed:
            self._closed = True
            while self._kept:
                self._kept.popitem()[1][1].close()
            self._changed.notify_all()

    def _drop_old(self) -> None:
        oldest = monotonic() - KEPT_SECONDS
        for number, (since, sock) in list(self._kept.items()):
            if since < oldest:
                del self._kept[number]
                sock.close()
