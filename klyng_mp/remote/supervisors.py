"""What the supervisors of a job's hosts say, and what follows from it for the job and for the other hosts.

Layer: remote.

The first cause of an early end that is heard is the cause; on the other hosts the run is ended for it, and settled when
all are out of it. Who was replaced on one host is told to the ranks of the others before the next run.
"""

from __future__ import annotations

import os
import queue
import socket
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, LaunchError
from klyng_mp.launch.control import GRACE_SECONDS, Cause
from klyng_mp.launch.driver import Job
from klyng_mp.remote.contents import Contents
from klyng_mp.remote.lookout import Lookout
from klyng_mp.remote.printer import Printer
from klyng_mp.remote.started import Arrivals, StartedProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.driver import Order
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.remote.site import Site

__all__ = ["Supervisors"]


class Supervisors(Job):
    """A job with a supervisor on each of its hosts; see `Job`. What hears is called with the endpoint's lock held."""

    def __init__(self, spec: RankSpec) -> None:
        super().__init__(spec)
        self._sites: list[Site] = []
        self._printer = Printer()
        self._lookout = Lookout(self._sites, self._end_deadlock)
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()  # to the thread that looks after all this
        self._processes = StartedProcesses()
        self._arrivals = Arrivals()
        self._contents = Contents(self)
        self._news = False
        self._causes: dict[int, Cause] = {}
        self._unsettled: dict[int, set[int]] = {}
        self._running = 0  # the run that goes on, or 0
        self._finished = 0  # the last number of those that do not any more
        self._fenced: dict[int, int] = {}
        self._asked = 0
        self._reports: dict[int, list[RankState]] = {}
        self._answered: dict[int, set[int]] = {}  # first ranks of the hosts that have not, by question
        self._trouble: str | None = None
        self._suspects: dict[int, tuple[float, int, str]] = {}  # ranks that cannot be reached: since when, and why

    def host_of(self, rank: int) -> str:
        """See `Job.host_of`."""
        return next((site.name for site in self._sites if rank in site.share), self.spec.host)

    def _end_everywhere(
        self, run: int, cause: Cause, grace: float = GRACE_SECONDS, signum: int | None = None, but: Site | None = None
    ) -> None:
        if run in self.settled:
            return
        self._lookout.over(run)
        self._causes.setdefault(run, cause)
        self._unsettled.setdefault(run, {site.share.start for site in self._sites if site.living})
        for site in self._sites:
            if site.living and site is not but:
                phrase = cause.phrase() if cause.rank is not None else cause.detail
                kind = "died" if cause.rank is not None else cause.kind
                site.tell("end", run, kind, cause.rank, phrase, grace, signum)

    def _end_deadlock(self, run: int, cause: Cause) -> None:
        if run not in self._causes:
            self._end_everywhere(run, cause)

    def _tell_all(self, *record: Any) -> None:
        with self.endpoint.lock:
            for site in self._sites:
                if site.living:
                    site.tell(*record)

    # -- processes

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """See `Job.start_process`."""
        with self.endpoint.lock:
            site = next(site for site in self._sites if order.rank in site.share)
        contents = self._contents.deliver(fds, site, self._sites)  # all of them sealed, as its World knows
        with self.endpoint.lock:
            if not site.living:
                raise self.unreachable.get(order.rank) or ClosedError("this World is closed; make a new one")
            serial = self._processes.expect(site, order.rank, os.dup(exit_pipe))
            site.start(serial, order, task, contents)
        self.wait(lambda: self._processes.is_known(serial), NEVER, "Process.start()")
        with self.endpoint.lock:
            pid, wrong = self._processes.take(serial)
        if not pid:
            wrong = wrong or str(self.lost or "its World has come to its end")
            raise LaunchError(f"{order.name} could not be started: {wrong}")
        self.has_started = True
        return serial, pid, None

    def signal_process(self, serial: int, signum: int) -> None:
        """See `Job.signal_process`."""
        with self.endpoint.lock:
            for site in self._processes.sites_of(serial) if serial else self._sites:
                if site.living:
                    site.tell("signal", serial, int(signum))

    def open_channel(self, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        """See `Job.open_channel`."""
        with self.endpoint.lock:
            site = next(site for site in self._sites if rank in site.share)
            self._processes.when_arrived(rank, lambda: self._open_channel(site, rank, number, opened))

    def _open_channel(self, site: Site, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        """Open a channel in a thread: whoever gets it may have a lock that is taken before the endpoint's."""
        raise NotImplementedError

    def refill(self, run: int, *, renew: bool) -> None:
        """See `Job.refill`."""
        with self.endpoint.lock:
            self._finished = max(self._finished, run)
            self._arrivals.forget(range(self.spec.size))
            question = self._processes.ask([site for site in self._sites if site.living])
            self._tell_all("refill", question, run, renew)
        self.wait(lambda: self._processes.is_answered(question), NEVER, "bringing ranks back to life")
        if self.lost is not None:
            raise self.lost

    def flush(self) -> None:
        """See `Job.flush`; an exit code is told when all that was printed before has been written."""

    # -- hearing; with the endpoint's lock held

    def _hear(self, site: Site, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        handler: Callable[..., None] | None = getattr(self, f"_hear_{kind}", None)
        if kind == "born":
            self._welcome_all(site, rest[0], fds)
        elif kind == "arrived":
            self._meet(site, fds, *rest)
        elif kind == "output":
            self._printer.write(rest[0], rest[1], lambda size: self._acknowledge(site, size))
        elif kind in {"fenced", "closed", "exited"}:  # all that was printed comes before
            self._printer.then(lambda: self._hear_later(site, kind, *rest))
        elif handler is not None:
            handler(site, *rest)
        if kind not in {"born", "arrived"}:  # whose sockets are kept
            for fd in fds:
                os.close(fd)

    def _acknowledge(self, site: Site, size: int) -> None:
        with self.endpoint.lock:
            if site.far and site.living:
                site.tell("written", size)

    def _hear_later(self, site: Site, kind: str, *rest: Any) -> None:
        with self.endpoint.lock:
            getattr(self, f"_hear_{kind}")(site, *rest)
            self.endpoint.room.notify()

    def _welcome_all(self, site: Site, who: list[tuple[int, int]], fds: list[int]) -> None:
        for index, (rank, incarnation) in enumerate(who):
            if rank not in site.share:
                continue
            if incarnation > 1:
                self._news = True
            self._take_in(site, rank, incarnation, fds[index : index + 1])

    def _take_in(self, site: Site, rank: int, incarnation: int, fds: list[int]) -> None:
        if site.far:
            self._incarnations[rank] = incarnation
            self.endpoint.mark_present(rank, incarnation)
        else:
            self._welcome(rank, incarnation, socket.socket(fileno=fds[0]))
        self._suspects.pop(rank, None)  # the former occupant's connection may have ended only now

    def _hear_caused(self, site: Site, run: int, cause: Cause) -> None:
        if run not in self._causes:
            self._end_everywhere(run, cause, but=site)

    def _hear_settled(self, site: Site, run: int, cause: Cause) -> None:
        self._causes.setdefault(run, cause)
        self._unsettled.setdefault(run, {one.share.start for one in self._sites if one.living})
        self._settle(site, run)

    def _settle(self, site: Site, run: int) -> None:
        """A host, or what is left of it, is out of a run that is being ended."""
        left = self._unsettled[run]
        left.discard(site.share.start)
        if not left:
            del self._unsettled[run]
            self._note_end(run)
            self.settled[run] = self._causes.pop(run)

    def _note_end(self, run: int) -> None:
        self._lookout.over(run)
        self._finished = max(self._finished, run)
        if self._running <= run:
            self._running = 0

    def _hear_fenced(self, site: Site, run: int) -> None:
        del site
        left = self._fenced[run] = self._fenced.get(run, 1) - 1
        if not left:
            del self._fenced[run]
            self._note_end(run)
            self.fenced = max(self.fenced, run)

    def _hear_launched(self, site: Site, serial: int, pid: int, wrong: str) -> None:
        self._processes.launched(site, serial, pid, wrong)

    def _hear_left(self, site: Site, serial: int, data: bytes) -> None:
        self._processes.left(site, serial, data)

    def take_left(self, serial: int) -> bytes:
        """See `Job.take_left`."""
        with self.endpoint.lock:
            return self._processes.take_left(serial)

    def _hear_exited(self, site: Site, serial: int, exitcode: int) -> None:
        self._processes.exited(site, serial, exitcode)

    def _hear_refilled(self, site: Site, question: int) -> None:
        self._processes.refilled(site, question)

    def _meet(self, site: Site, fds: list[int], rank: int, incarnation: int, run: int) -> None:
        """A process has come to a place: it is a peer of ours, and of those of other hosts."""
        if rank not in site.share:
            return
        self._processes.arrived(rank)
        self._arrivals.arrived(rank, incarnation, run)
        self._take_in(site, rank, incarnation, fds)
        for other in self._sites:
            if other is not site and other.living:
                other.tell("come", rank, incarnation, run)

    def _hear_answer(self, site: Site, question: int, states: list[RankState]) -> None:
        if question in self._answered:
            self._answered[question].discard(site.share.start)
            self._reports[question] += states

    def _hear_surveyed(self, site: Site, question: int, states: list[RankState]) -> None:
        self._lookout.hear(site, question, states)
        self._words.put("look")

    def _hear_parted(self, site: Site, rank: int, incarnation: int, what: str, orderly: bool) -> None:
        if rank not in site.share:
            return
        self._suspects.pop(rank, None)
        self._arrivals.parted(rank, incarnation, what, orderly=orderly)
        self.endpoint.note_end(rank, incarnation, orderly=orderly)
        if self._processes.has(rank):  # else its successor is on its way already
            self.endpoint.mark_lost(rank, what, incarnation=incarnation, orderly=orderly)
        for other in self._sites:
            if other is not site and other.living:
                other.tell("gone", rank, incarnation, what, orderly)

    def _hear_out(self, site: Site, kind: str, rank: int, words: list[Any]) -> None:
        """What a rank wants of one that is on another host."""
        other = next((one for one in self._sites if rank in one.share), None)
        if other is None or other is site or not other.living or words[0] not in site.share:
            return
        if kind == "dial":
            other.tell("dial", rank, words[0])
        else:
            other.tell("mail" if kind == "mail" else "relayed", rank, *words)

    def _hear_unlaunchable(self, site: Site, reason: str) -> None:
        self._trouble = f"ranks could not be started on {site.name}: {reason}"

    def _hear_closed(self, site: Site) -> None:
        site.living = False
        if not any(one.living for one in self._sites):
            self.closed = True
            if self._trouble is not None:
                self.lost = LaunchError(self._trouble)
