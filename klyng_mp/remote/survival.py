"""A job that goes on without hosts which it has lost, as long as no run needs them, and takes them back.

Layer: remote; what lies between what supervisors say and the job.

A host is lost when its channel ends, when nothing is heard of it for too long, or when one of its ranks cannot be
reached and it does not say why. Its processes end without an exit code, whoever depends on them elsewhere is told, and
nobody starts one there until it answers again: then it has another session of the same job, and its ranks are the next
occupants of their places.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from klyng_mp.errors import HostLostError
from klyng_mp.remote.records import HEARTBEAT_SECONDS, SILENCE_SECONDS
from klyng_mp.remote.returning import LostHosts
from klyng_mp.remote.supervisors import Supervisors

if TYPE_CHECKING:
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.site import JobPlan, Site

__all__ = ["MARGIN", "SurvivingJob"]

MARGIN = 16  # incarnations that a host may have had when it was lost, and nobody has heard of
_VERDICT_SECONDS = 3.0  # in which a host has said what became of a rank


class SurvivingJob(Supervisors):
    """What lies under a `SpreadJob`. All but what its thread does is called with the endpoint's lock held."""

    def __init__(self, spec: RankSpec) -> None:
        super().__init__(spec)
        self._closing = False
        self._lost_hosts = LostHosts(self.endpoint.lock, self._plan_return, self._take_back)

    def _plan_return(self) -> JobPlan:
        """Return what a host is to be told that was lost and comes back."""
        raise NotImplementedError

    def _show_report(self) -> None:
        """Write what each rank does now to standard error."""
        raise NotImplementedError

    # -- whether they are there

    def _look_after_hosts(self) -> None:
        """Have a thread look whether they are there until the job is given up."""
        threading.Thread(target=self._listen_for_silence, name="klyng_mp heartbeat", daemon=True).start()

    def _listen_for_silence(self) -> None:
        """Take a host for lost that says nothing, as one does whose cable was pulled, or that is frozen."""
        while (word := self._next_word()) != "over":
            with self.endpoint.lock:
                for site in self._sites:
                    if site.living and (reason := self._find_fault(site)):
                        self._lose(site, reason)
                        self.endpoint.room.notify()
                self._lookout.look()
                self._lost_hosts.look()
            if word == "report":
                self._show_report()

    def _next_word(self) -> str:
        with suppress(queue.Empty):
            return self._words.get(timeout=self._lookout.pause(HEARTBEAT_SECONDS))
        return ""

    def _find_fault(self, site: Site) -> str:
        """Return why a host is to be taken for lost, or an empty text."""
        if site.silent_for > SILENCE_SECONDS:
            return f"nothing was heard of it for {site.silent_for:.0f} s: is its machine, or the network, down?"
        for rank, (since, incarnation, reason) in self._suspects.items():
            late = monotonic() - since > _VERDICT_SECONDS and self._incarnations[rank] == incarnation
            if rank in site.share and late:
                return f"its rank {rank} {reason}"
        return ""

    def _suspect(self, rank: int, reason: str) -> None:
        """A connection to a rank has ended, or could not be opened; as a rule its host says why, right away."""
        if not self._closing and not self._processes.is_awaited(rank):
            self._suspects[rank] = monotonic(), self._incarnations[rank], reason

    # -- where one is not

    def _lose(self, site: Site, reason: str) -> None:
        """A host is gone: so is a run that goes on, and the job with it; else the job goes on with the others."""
        site.living = False
        if site.far:  # should it hear again, it learns that it is to end
            site.close()
        for rank in site.share:
            self.endpoint.note_end(rank, self._incarnations[rank], orderly=False)
        error = HostLostError(site.name, list(site.share), reason)
        if self._running or not any(other.living for other in self._sites):
            self._give_up(error)
        else:
            self._do_without(site, error)

    def _give_up(self, error: HostLostError) -> None:
        if self.lost is None:
            self.lost = error
        self._processes.lose_all(str(self.lost))
        for other in self._sites:
            if other.living:
                other.tell("kill")

    def _do_without(self, site: Site, error: HostLostError) -> None:
        what = f"was on {site.name}, which is lost: {error.reason}"
        for rank in site.share:
            self.unreachable[rank] = error
            self._suspects.pop(rank, None)
            self.endpoint.mark_lost(rank, what)
        for other in self._sites:
            if other.living:
                other.tell("host_lost", site.share.start, len(site.share), what)
        for run in list(self._unsettled):
            self._settle(site, run)
        for waiting in self._answered.values():
            waiting.discard(site.share.start)
        self._arrivals.forget(site.share)
        self._lost_hosts.add(site)
        self._printer.then(lambda: self._bury_processes(site, error))

    def _bury_processes(self, site: Site, error: HostLostError) -> None:
        """Let those who wait for processes of a lost host know, as all that was heard of them has been written."""
        with self.endpoint.lock:
            self._processes.lose(site, str(error))
            self.endpoint.room.notify()

    def _take_back(self, site: Site) -> None:
        """A host that was lost is there again, and new ranks are being started on it."""
        for rank in site.share:
            self.unreachable.pop(rank, None)
            self._incarnations[rank] += MARGIN + 1  # as its supervisor counts on from what it was told
            self.endpoint.mark_present(rank, self._incarnations[rank])
        self._news = True
        self._sites[:] = sorted([site, *(one for one in self._sites if one.share != site.share)], key=_first)
        site.attend(self.endpoint, self._hear, self._lose)
        site.tell("over", self._finished)
        for record in self._arrivals.records():
            site.tell(*record)
        for other in self._sites:
            if not other.living:
                site.tell("host_lost", other.share.start, len(other.share), f"was on {other.name}, which is lost")
            elif other is not site:
                other.tell("host_back", site.share.start, len(site.share))
        self.endpoint.room.notify()


def _first(site: Site) -> int:
    return site.share.start
