"""A supervisor's loop: descriptors and points in time, each with what to call.

Layer: launch. One thread; nothing here knows of ranks.
"""

from __future__ import annotations

import heapq
import itertools
import select
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Loop", "Timer"]

_MANY_TIMERS = 64  # up to here a look at all of them costs more than their memory


class Timer:
    """A call to come; ``cancel()`` makes it not come."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Forget the call; harmless if it has been made."""
        self.action = None


class Loop:
    """Calls back when a descriptor is ready or a time has come, until told to stop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._many = _MANY_TIMERS
        self._order = itertools.count()
        self._running = True

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` whenever one of ``events`` (select.EPOLL…) is there on ``fd``."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        """Change the events that ``fd`` is watched for."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Stop watching ``fd``; harmless if it was not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Tell whether ``fd`` is registered."""
        return fd in self._callbacks

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call ``action()`` once, ``seconds`` from now."""
        if len(self._timers) >= self._many:  # those that were cancelled do not wait for their time
            self._timers = [entry for entry in self._timers if entry[2].action is not None]
            heapq.heapify(self._timers)
            self._many = max(_MANY_TIMERS, 2 * len(self._timers))
        timer = Timer(action)
        heapq.heappush(self._timers, (monotonic() + seconds, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """Let ``run`` return after the callbacks that are due."""
        self._running = False

    def run(self) -> None:
        """Wait and call back until ``stop``."""
        while self._running:
            self.turn()

    def turn(self) -> None:
        """Wait once, and make the calls that are due."""
        for fd, events in self._epoll.poll(self._seconds_left()):
            # A callback before this one may have unregistered it.
            if (callback := self._callbacks.get(fd)) is not None:
                callback(events)
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, timer = heapq.heappop(self._timers)
            if timer.action is not None:
                timer.action()

    def _seconds_left(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - monotonic()) if self._timers else None

    def close(self) -> None:
        """Close the loop's own descriptor; the watched ones stay their owners'."""
        self._epoll.close()
