"""The hosts of a World: found, reached, and given their ranks.

Layer: remote; what a World with hosts imports.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from klyng_mp.deadline import Deadline
from klyng_mp.errors import BundleError
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.bundle import Bundle
from klyng_mp.remote.client import connect, wait_for_all
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import read_hosts
from klyng_mp.remote.job import SpreadJob, SpreadOptions
from klyng_mp.remote.placement import place
from klyng_mp.remote.records import WORD
from klyng_mp.remote.schema import MisfitError
from klyng_mp.remote.sources import find_loaded_sources
from klyng_mp.remote.versions import requirements

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.hosts import Host, Hosts
    from klyng_mp.remote.sources import Sources

__all__ = ["WorldHosts", "reach"]

_ANSWER_SECONDS = 5.0


class WorldHosts:
    """Where the ranks of one World are.

    Args:
        hosts: as the user has named them.
        n: how many ranks; None for as many as there are places.
        files: what is to travel besides the program's own modules.
        encrypt: whether ranks' messages between hosts are encrypted.
        env: variables for the ranks' environment.
        sources: the program; None for the one that runs.

    Raises:
        MachinesError: the hosts are not what they should be.
        BundleError: the program cannot travel.
        BeaconError: a host cannot be reached.

    Attributes:
        size: how many ranks there are.
    """

    def __init__(
        self,
        hosts: Hosts,
        n: int | None,
        *,
        files: Iterable[str],
        encrypt: bool,
        env: Mapping[str, str],
        sources: Sources | None = None,
    ) -> None:
        found = read_hosts(hosts)
        self._encrypt = encrypt
        self._env = dict(env)
        self._files = list(files)
        self._sources = sources
        self._links: dict[str, ControlLink] = {}
        cpus = [usable_cpus() if host.is_local else host.max_procs or 0 for host in found]
        if n is None or not all(cpus):
            self._links = reach(found)
            try:
                cpus = [count or _cpus_of(self._links[host.key]) for host, count in zip(found, cpus, strict=True)]
            except BaseException:
                self.close()
                raise
        self._placements = [one for one in place(n, found, cpus) if one.ranks]
        self.size = sum(len(one.ranks) for one in self._placements)

    def launch(self, spec: RankSpec, *, label: bool) -> SpreadJob:
        """Start all ranks.

        Raises:
            BeaconError, BundleError, LaunchError: as a World's; nothing is left.
        """
        try:
            sources = find_loaded_sources(self._files) if self._sources is None else self._sources
            spec.main_by_reference = self._sources is not None  # then all ranks run the same program
            sources.check()
            _check_words(spec.argv[1:], self._env)
            options = SpreadOptions(
                self._placements,
                Bundle.make(sources),
                requirements(sources),
                [(package.module, package.distribution) for package in sources.packages],
                encrypt=self._encrypt,
                environment=self._env,
                label=label,
            )
            keys = [one.host.key for one in self._placements if one.host.key in self._links]
            links = {key: self._links.pop(key) for key in keys}
        finally:
            self.close()
        return SpreadJob(spec, options, links)

    def close(self) -> None:
        """Leave the hosts that it has been at; what was launched has channels of its own."""
        while self._links:
            self._links.popitem()[1].close(goodbye=True)


def reach(hosts: Sequence[Host]) -> dict[str, ControlLink]:
    """Log in at all beacons at once; return the channels by the hosts' keys.

    Raises:
        BeaconError: one cannot be used; notes tell of others. None is left open.
    """
    home = Home()
    far = [host for host in hosts if not host.is_local]
    with ThreadPoolExecutor(max_workers=min(32, len(far)) or 1) as threads:
        tried = [(host, threads.submit(connect, host, home)) for host in far]
        errors = wait_for_all([future for _, future in tried])
    links = {host.key: future.result() for host, future in tried if future.exception() is None}
    if errors:
        for link in links.values():
            link.close(goodbye=True)
        for error in errors[1:]:
            errors[0].add_note(f"also: {error}")
        raise errors[0]
    return links


def _check_words(arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise unless the program's words can be told to other hosts."""
    for number, word in enumerate(arguments, 1):
        _check_word(f"argument {number} of the program", word)
    for name, value in env.items():
        _check_word(f"the environment variable {name!r}", name + value)


def _check_word(what: str, word: str) -> None:
    try:
        WORD.encode(word, what)
    except MisfitError as error:
        raise BundleError(
            f"{error}, so other hosts cannot be told of it: leave it out, or let the program read it from a file",
            "",
        ) from None


def _cpus_of(link: ControlLink) -> int:
    deadline = Deadline(_ANSWER_SECONDS)
    link.send_now(deadline, "status")
    cpus: int = link.receive_now(deadline, "status_reply").fields["cpus"]
    return cpus
