"""The files that a driver gives its processes on other hosts copies of: sealed ones, so they are the same for ever.

Layer: remote; part of the driver's side.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from klyng_mp.deadline import NEVER
from klyng_mp.remote.deliveries import digest_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from klyng_mp.launch.driver import Line
    from klyng_mp.remote.site import Site

__all__ = ["Contents"]

_ALL = object()  # of a content is there
_MOST = 4  # files that hosts keep for the next process: those of so many pools at once


class Contents:
    """Those of one job; its line waits while they leave. One caller at a time."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._known: dict[tuple[int, int], tuple[bytes, int]] = {}  # digest and a descriptor of ours, the latest last

    def deliver(self, fds: Sequence[int], site: Site, sites: Sequence[Site]) -> list[tuple[bytes, int]]:
        """Have all of the files on a host; have those forgotten on all hosts that are given up for them.

        Returns:
            The digest of each file, and the file.
        """
        found = self.look_up(fds)
        lock = self._line.endpoint.lock
        with lock:
            for digest in self.trim(len(fds)):
                for one in sites:
                    one.forget(digest)
        for content in found:
            parts = site.deliver(*content)
            try:
                while self._deliver_part(parts):
                    self._line.wait(lambda: site.has_room, NEVER, "Process.start()")
            finally:
                with lock:
                    parts.close()
        return found

    def _deliver_part(self, parts: Generator[None, None, None]) -> bool:
        with self._line.endpoint.lock:
            return next(parts, _ALL) is not _ALL

    def look_up(self, fds: Sequence[int]) -> list[tuple[bytes, int]]:
        """Return the digest of each file, and the file.

        Cost: each is read once while it is kept.
        """
        found = []
        for fd in fds:
            status = os.fstat(fd)
            key = status.st_dev, status.st_ino  # nobody else's, as long as we have it open
            kept = self._known.pop(key) if key in self._known else (digest_of(fd), os.dup(fd))
            self._known[key] = kept
            found.append((kept[0], fd))
        return found

    def trim(self, in_use: int) -> list[bytes]:
        """Give up the oldest, but for so many as one process has; return the digests of those that nobody needs now."""
        dropped = set()
        while len(self._known) > max(_MOST, in_use):
            digest, ours = self._known.pop(next(iter(self._known)))
            os.close(ours)
            dropped.add(digest)
        return list(dropped - {digest for digest, _ in self._known.values()})

    def close(self) -> None:
        """Give up all of them."""
        while self._known:
            os.close(self._known.popitem()[1][1])
