"""The hosts that a job has lost and goes on without, until they answer again and are prepared anew.

Layer: remote; part of the driver's side. Each attempt is made in a thread of its own, since it may wait for long; the
others go on meanwhile. What comes of it is handed over under the lock of the driver's endpoint.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from klyng_mp.errors import AuthenticationError, KlyngError
from klyng_mp.remote.client import connect
from klyng_mp.remote.home import Home
from klyng_mp.remote.site import RemoteSite

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.site import JobPlan, Site

__all__ = ["LostHosts"]

_FIRST_PAUSE_SECONDS = 1.0  # a beacon that is started anew is there by then
_LAST_PAUSE_SECONDS = 8.0


class _Lost:
    __slots__ = ("due", "link", "pause", "site", "tried")

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pause = _FIRST_PAUSE_SECONDS
        self.due = monotonic() + self.pause
        self.tried = False  # whether a thread is at it
        self.link: ControlLink | None = None

    def put_off(self) -> None:
        self.tried = False
        self.pause = min(2 * self.pause, _LAST_PAUSE_SECONDS)
        self.due = monotonic() + self.pause


class LostHosts:
    """Those of one job. Its methods are called with the lock held.

    Args:
        lock: of the driver's endpoint.
        plan: returns what a host is to be told now.
        welcome: is called with a host that has come back, its ranks being launched; it owns it.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object],
        plan: Callable[[], JobPlan],
        welcome: Callable[[RemoteSite], None],
    ) -> None:
        self._lock = lock
        self._plan = plan
        self._welcome = welcome
        self._lost: list[_Lost] = []

    def add(self, site: Site) -> None:
        """A host is lost; one that is this machine never comes back."""
        if site.far:
            self._lost.append(_Lost(site))

    def look(self) -> None:
        """Try those whose time has come."""
        for lost in self._lost:
            if not lost.tried and monotonic() >= lost.due:
                lost.tried = True
                name = f"klyng_mp return of {lost.site.name}"
                threading.Thread(target=self._try, args=(lost,), name=name, daemon=True).start()

    def close(self) -> None:
        """Try no more, and let those who are at it see that it is in vain; does not wait for them."""
        for lost in self._lost:
            if lost.link is not None:
                lost.link.interrupt()
        self._lost.clear()

    def abandon(self) -> None:
        """In a forked child: close its copies."""
        for lost in self._lost:
            if lost.link is not None:
                lost.link.abandon()
        self._lost.clear()

    # In a thread of its own, without the lock

    def _try(self, lost: _Lost) -> None:
        link = self._connect(lost)
        if link is None:
            return
        site = RemoteSite(lost.site.host, lost.site.share, link)
        with self._lock:
            plan = self._plan() if lost in self._lost else None
            lost.link = None if plan is None else link
        ready = False
        if plan is not None:
            with suppress(KlyngError, OSError):  # it is gone again, or still has the job's old session
                site.prepare(plan)
                ready = True
        with self._lock:
            lost.link = None
            if ready and lost in self._lost:
                self._lost.remove(lost)
                self._welcome(site)
                return
            lost.put_off()
        site.close()

    def _connect(self, lost: _Lost) -> ControlLink | None:
        try:
            return connect(lost.site.host, Home())
        except AuthenticationError:  # it has another password, or is another one: asking again does not help
            with self._lock:
                if lost in self._lost:
                    self._lost.remove(lost)
        except (KlyngError, OSError):
            with self._lock:
                lost.put_off()
        return None
