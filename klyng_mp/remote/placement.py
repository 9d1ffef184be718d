"""Which ranks run on which host.

Layer: remote; pure.

Ranks are dealt one by one over the hosts, in the order in which they were written, to each up to its places; beyond
that only when all are full. The numbers of a host's ranks follow each other, and those of this machine come first.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import MachinesError, MachinesWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.remote.hosts import Host

__all__ = ["Placement", "divide", "place"]


class Placement(NamedTuple):
    """The ranks of one host: ``size`` of them, from ``first`` on; there may be none."""

    host: Host
    first: int
    size: int

    @property
    def ranks(self) -> range:
        """Their numbers."""
        return range(self.first, self.first + self.size)


def divide(n: int | None, hosts: Sequence[Host], cpus: Sequence[int]) -> list[int]:
    """Return how many ranks each host gets; klyng's division.

    Args:
        n: how many ranks; None for as many as there are places.
        hosts: the hosts, in the user's order.
        cpus: how many CPUs each of them has: its places where the user has given no ``max_procs``.

    Raises:
        MachinesError: there is no host.
        ValueError: there is to be no rank.

    Warns:
        MachinesWarning: there are more ranks than places, so that ranks will share CPUs.
    """
    if not hosts:
        raise MachinesError("there is no host: name at least one")
    places = [host.max_procs or max(1, count) for host, count in zip(hosts, cpus, strict=True)]
    if n is None:
        return places
    if n < 1:
        raise ValueError(f"a World has 1 rank or more, not {n}")
    counts = _deal(min(n, sum(places)), places)
    if n > sum(places):
        warnings.warn(
            f"{n} ranks on {len(hosts)} hosts that have {sum(places)} places: they will share CPUs; "
            f"name more hosts, raise max_procs, or ask for fewer",
            MachinesWarning,
            stacklevel=3,
        )
        _deal_beyond(n - sum(places), counts, places)
    return counts


def place(n: int | None, hosts: Sequence[Host], cpus: Sequence[int]) -> list[Placement]:
    """Return where each rank runs, by their numbers; hosts without one are there, too.

    Args, raises, warns: as `divide`.
    """
    counts = divide(n, hosts, cpus)
    placements, first = [], 0
    for host, count in sorted(zip(hosts, counts, strict=True), key=lambda pair: not pair[0].is_local):
        placements.append(Placement(host, first, count))
        first += count
    return placements


def _deal(n: int, places: list[int]) -> list[int]:
    """Deal ``n`` ranks, one to each host that has a place left, round by round."""
    counts = [0] * len(places)
    while n > 0:
        open_hosts = [index for index, most in enumerate(places) if counts[index] < most]
        # As many whole rounds at once as leave no host overfull; then single ranks.
        rounds = min(n // len(open_hosts), *(places[index] - counts[index] for index in open_hosts))
        for index in open_hosts if rounds else open_hosts[:n]:
            counts[index] += rounds or 1
            n -= rounds or 1
    return counts


def _deal_beyond(n: int, counts: list[int], places: list[int]) -> None:
    """Deal ``n`` more, going on behind the host that got the last place."""
    most = max(places)
    last = max(index for index, count in enumerate(places) if count == most)
    for step in range(n):
        counts[(last + 1 + step) % len(counts)] += 1
