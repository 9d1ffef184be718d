"""A job whose ranks are on several hosts, as its driver sees it.

Layer: remote.

Each host's supervisor sees to its own share; what concerns others goes by way of the driver, which knows all: it takes
the first cause of an early end for the cause, has the run ended everywhere, and tells who was replaced. Messages
between ranks never come by here.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, KlyngError
from klyng_mp.launch.channel import reserve_standard_fds
from klyng_mp.launch.control import CLOSE, PRESENT, Cause
from klyng_mp.launch.hangs import render_report
from klyng_mp.launch.job import JOBS, flush_standard_streams
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.client import connect, wait_for_all
from klyng_mp.remote.home import Home
from klyng_mp.remote.network import RankNetwork
from klyng_mp.remote.network import Site as NetworkSite
from klyng_mp.remote.security import JobAuthority
from klyng_mp.remote.site import JobPlan, LocalSite, RemoteSite
from klyng_mp.remote.survival import MARGIN, SurvivingJob
from klyng_mp.transports.routes import Routes
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import DRIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.remote.bundle import Bundle
    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.placement import Placement
    from klyng_mp.remote.site import Site

__all__ = ["SpreadJob", "SpreadOptions"]

_REPORT_SECONDS = 10.0
_ANNOUNCED = Codec(main_by_reference=True)


class SpreadOptions(NamedTuple):
    """What a World wants of its hosts.

    Attributes:
        placements: which ranks go where.
        bundle: the program.
        needs: what hosts have to have for it.
        packages: (module, distribution) of those among that which are installed packages.
        encrypt: whether what ranks say to those of other hosts is encrypted.
        environment: what ranks have in theirs besides the host's own.
        label: whether lines of output begin with their rank.
    """

    placements: Sequence[Placement]
    bundle: Bundle
    needs: dict[str, Any]
    packages: Sequence[tuple[str, str]]
    encrypt: bool
    environment: dict[str, str]
    label: bool


class SpreadJob(SurvivingJob):
    """The ranks of one World, on several hosts; see `Job`.

    Args:
        spec: what the ranks are to be.
        options: where, and what they need there.
        links: channels to beacons that are open already, by the hosts' keys; owned from now on.

    Raises:
        BeaconError: a host cannot be used; which, and why. Nothing is left on any.
        LaunchError: ranks could not be started here.
    """

    is_spread = True

    def __init__(self, spec: RankSpec, options: SpreadOptions, links: dict[str, ControlLink]) -> None:
        reserve_standard_fds()
        super().__init__(spec)
        flush_standard_streams()
        self.forwards_output = True
        self._options = options
        self._links = links
        try:
            self._plan = self._make_plan()
            self._open_sites(self._plan)
            self._start()
        except BaseException:
            self.dispose()
            raise
        JOBS.add(self)

    # -- the beginning

    def _make_plan(self) -> JobPlan:
        spec, options = self.spec, self._options
        job_id, join_key = secrets.token_bytes(16), secrets.token_bytes(32)
        sites = [
            NetworkSite(
                one.host.key,
                one.ranks.start,
                len(one.ranks),
                "" if one.host.is_local else one.host.address,
                one.host.port,
            )
            for one in options.placements
        ]
        credentials = None
        if options.encrypt:
            authority = JobAuthority()
            credentials = {number: authority.issue(number) for number in (*range(spec.size), DRIVER)}
        self._network = RankNetwork(job_id, join_key, sites, credentials, far_driver=False)
        said = {
            "size": spec.size,
            "sites": [site._asdict() for site in sites],
            "encrypt": options.encrypt,
            "seed": None if spec.seed is None else str(spec.seed),
            "label": options.label,
            "log_level": spec.log_level,
            "by_reference": spec.main_by_reference,
            "environment": options.environment,
            "argv": list(spec.argv),
            "packages": [{"module": module, "distribution": name} for module, name in options.packages],
            "bundle": bytes.fromhex(options.bundle.digest),
            "bundle_bytes": len(options.bundle.data),
        }
        return JobPlan(job_id, join_key, said, options.bundle, options.needs, credentials, {})

    def _open_sites(self, plan: JobPlan) -> None:
        """Log in and prepare everywhere at once."""
        home = Home()
        for one in self._options.placements:
            if one.host.is_local:
                self._sites.append(self._open_here(one))
        far = [one for one in self._options.placements if not one.host.is_local]

        def open_one(placement: Placement) -> ControlLink:
            link = self._links.pop(placement.host.key, None) or connect(placement.host, home)
            site = RemoteSite(placement.host, placement.ranks, link)
            self._sites.append(site)
            site.prepare(plan)
            return link

        with ThreadPoolExecutor(max_workers=min(32, len(far)) or 1) as threads:
            errors = wait_for_all([threads.submit(open_one, one) for one in far])
        if errors:
            for error in errors[1:]:
                errors[0].add_note(f"also: {error}")
            raise errors[0]
        self._sites.sort(key=lambda site: site.share.start)

    def _open_here(self, placement: Placement) -> LocalSite:
        spec = self.spec
        spec.share = placement.ranks
        spec.network = self._network
        spec.share_cpus(usable_cpus())
        return LocalSite(placement.host, placement.ranks, spec, (), label=self._options.label)

    def _start(self) -> None:
        endpoint = self.endpoint
        self._wires = self._network.attach(endpoint, lambda _peer: None)
        far = {rank: self._wires.transport for site in self._sites if site.far for rank in site.share}
        self._ways = Routes(self._transport, far)
        endpoint.use(self._ways)
        endpoint.on_lost = self._suspect
        endpoint.attend()
        with endpoint.lock:
            for site in self._sites:
                site.attend(endpoint, self._hear, self._lose)
        self._look_after_hosts()

    def _plan_return(self) -> JobPlan:
        """See `SurvivingJob`."""
        after = {rank: number + MARGIN for rank, number in self._incarnations.items()}
        return self._plan._replace(incarnations=self._incarnations | {rank: after[rank] for rank in self.unreachable})

    def _show_report(self) -> None:
        with suppress(KlyngError):  # there is nothing to be told any more, or not in time
            states = self.report(Deadline(_REPORT_SECONDS))
            text = f"klyng_mp: World of {self.spec.size} ranks\n{render_report(states)}\n"
            self._printer.write("stderr", text.encode(), lambda _size: None)

    def _open_channel(self, site: Site, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        if isinstance(site, LocalSite):
            self._wires.open_here(partial(self._offer, site, rank, number), opened)
        else:
            self._wires.open_channel(rank, number, opened)

    def _offer(self, site: LocalSite, rank: int, number: int, fd: int) -> None:
        with self.endpoint.lock:
            if site.living:
                site.offer(rank, number, fd)

    def _hear_out(self, site: Site, kind: str, rank: int, words: list[Any]) -> None:
        if rank == DRIVER and kind == "dial" and words[0] in site.share:
            self._wires.dial(words[0])
        else:
            super()._hear_out(site, kind, rank, words)

    # -- asking

    def submit(self, run: int | str, encoded: tuple[int, bytes, list[Any]], ranks: Sequence[int] | None = None) -> None:
        """See `Job.submit`; ranks are told first who has been replaced."""
        with self.endpoint.lock:
            if isinstance(run, int):
                if self.unreachable:  # it was lost since somebody has looked
                    raise next(iter(self.unreachable.values()))
                self._running = run
            news, self._news = self._news, False
        if news:
            super().submit(PRESENT, _ANNOUNCED.encode(dict(self._incarnations)))
        super().submit(run, encoded, ranks)
        if isinstance(run, int):
            with self.endpoint.lock:
                self._lookout.begin(run)
            self._words.put("look")

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """See `Job.end_run`."""
        with self.endpoint.lock:
            self._end_everywhere(run, Cause(wish, None, phrase), grace, signum)

    def fence(self, run: int) -> None:
        """See `Job.fence`."""
        with self.endpoint.lock:
            self._lookout.over(run)
            self._fenced[run] = sum(site.living for site in self._sites)
            self._tell_all("fence", run)

    def over(self, run: int) -> None:
        """See `Job.over`."""
        with self.endpoint.lock:
            self._note_end(run)
            self._tell_all("over", run)

    def report(self, deadline: Deadline) -> list[RankState]:
        """See `Job.report`."""
        with self.endpoint.lock:
            self._asked += 1
            question = self._asked
            self._reports[question] = []
            self._answered[question] = {site.share.start for site in self._sites if site.living}
            self._tell_all("report", question)
        try:
            self.wait(lambda: not self._answered[question], deadline, "World.report()")
            if self._answered[question]:
                raise self.lost or ClosedError("the ranks of this World have ended, so there is nothing to ask them")
            return sorted(self._reports[question])
        finally:
            del self._answered[question], self._reports[question]

    def show_report(self) -> None:
        """See `Job.show_report`; another thread asks, as a signal handler cannot wait."""
        self._words.put("report")

    def close(self) -> None:
        """See `Job.close`."""
        self._closing = True
        with self.endpoint.lock:
            self._lost_hosts.close()
        self._tell_all("close")
        there = [rank for rank in range(self.spec.size) if self.endpoint.find_loss([rank], "close()") is None]
        self.submit(CLOSE, (0, b"", []), there)

    def kill(self) -> None:
        """See `Job.kill`."""
        self._closing = True
        with self.endpoint.lock:
            self._lost_hosts.close()
        if not self.closed and self.lost is None:
            self._tell_all("kill")

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""
        self.wait(lambda: self.closed, deadline, doing)

    def dispose(self) -> None:
        """See `Job.dispose`."""
        JOBS.discard(self)
        self._words.put("over")
        with self.endpoint.lock:
            self._processes.lose_all("its World has come to its end")
            self._lost_hosts.close()
            self._contents.close()
            for site in self._sites:
                site.living = False
                site.close()
            self._sites.clear()
            while self._links:
                self._links.popitem()[1].close(goodbye=True)
        self._printer.stop()
        self.endpoint.close()

    def forget(self) -> None:
        """See `Job.forget`."""
        for site in self._sites:
            site.abandon()
        self._lost_hosts.abandon()
