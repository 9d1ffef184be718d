"""Whether all ranks of a job on several hosts wait for each other: asked of all supervisors, judged by the driver.

Layer: remote.

None of them knows who waits for whom on other hosts, so the driver asks them all, now and then while a run goes on. The
next question comes when all have answered the last; a host answers when all of its ranks have, so one that computes
makes the questions stop. What proves a deadlock is in `klyng_mp.launch.hangs`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from klyng_mp.launch.hangs import HangDetector, deadlock_of
from klyng_mp.launch.watch import PAUSE_SECONDS, PAUSE_SECONDS_PER_RANK, SUSPICIOUS_PAUSE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.state import RankState
    from klyng_mp.remote.site import Site

__all__ = ["Lookout"]


class Lookout:
    """Looks at one run after the other. Its methods are called with the lock of the driver's endpoint held.

    Args:
        sites: the job's hosts; may still grow.
        end: is called with a run and the cause when all of its ranks are proved to wait for each other.
    """

    def __init__(self, sites: Sequence[Site], end: Callable[[int, Cause], None]) -> None:
        self._sites = sites
        self._end = end
        self._detector = HangDetector()
        self._run = 0  # 0: none goes on
        self._question = 0
        self._awaited: set[int] = set()  # first ranks of the hosts that have not answered
        self._states: dict[int, RankState] = {}
        self._due = 0.0

    def begin(self, run: int) -> None:
        """A run goes on."""
        if run != self._run:
            self._run = run
            self._awaited.clear()
            self._put_off(PAUSE_SECONDS)

    def over(self, run: int) -> None:
        """It does not go on any more, or is being ended."""
        if run == self._run:
            self._run = 0

    def pause(self, longest: float) -> float:
        """Return after how many seconds `look` is to be called again."""
        if not self._run or self._awaited:
            return longest
        return min(longest, max(0.0, self._due - monotonic()))

    def look(self) -> None:
        """Ask, if it is time to."""
        if self._run and not self._awaited and monotonic() >= self._due:
            self._question += 1
            self._states = {}
            self._awaited = {site.share.start for site in self._sites if site.living}
            for site in self._sites:
                if site.living:
                    site.tell("survey", self._question, self._run)

    def hear(self, site: Site, question: int, states: list[RankState]) -> None:
        """Take a host's answer."""
        if question != self._question or site.share.start not in self._awaited:
            return
        self._awaited.discard(site.share.start)
        known = (self._detector.remember(state) for state in states if state.rank in site.share)
        self._states.update((state.rank, state) for state in known)
        if not self._awaited and self._run:
            self._judge()

    def _judge(self) -> None:
        everybody = sum(len(site.share) for site in self._sites)
        if len(self._states) == everybody and self._detector.judge(self._run, self._states):
            run, self._run = self._run, 0
            self._end(run, deadlock_of(self._states.values()))
            return
        ranks = PAUSE_SECONDS_PER_RANK * everybody
        self._put_off(SUSPICIOUS_PAUSE_SECONDS if self._detector.suspects else max(PAUSE_SECONDS, ranks))

    def _put_off(self, seconds: float) -> None:
        self._due = monotonic() + seconds
