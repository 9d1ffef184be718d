"""How many connections a rank lets prove themselves at a time: whoever replays a preface costs it no thread for each.

Layer: remote. A preface that was overheard can be sent as often as one likes; what comes behind it proves nothing, but
takes a thread and some seconds until that is clear.

Threads: any.
"""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Proving"]

OF_ONE = 4  # by the same name: an honest one has one, and another one where its place was taken anew meanwhile
SPARE = 64  # besides one for each rank elsewhere, all of which may come at once: channels, and who comes anew


class Proving:
    """The connections that are being proved; the newcomer is turned away where there are too many.

    Args:
        peers: how many others there are that may come.

    Attributes:
        dropped: how many were turned away.
    """

    def __init__(self, peers: int) -> None:
        self.dropped = 0
        self._most = peers + SPARE
        self._lock = threading.Lock()
        self._now: Counter[int] = Counter()

    def begin(self, source: int) -> bool:
        """Take note of a connection by who it says to be; tell whether it may prove that."""
        with self._lock:
            if self._now[source] >= OF_ONE or self._now.total() >= self._most:
                self.dropped += 1
                return False
            self._now[source] += 1
            return True

    def end(self, source: int) -> None:
        """Take note that it has, or has not."""
        with self._lock:
            self._now[source] -= 1
            self._now += Counter()  # keeps those that are there, so that it does not grow with who has been
