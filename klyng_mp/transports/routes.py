"""Several transports as one: each peer is reached by its own.

Layer: transports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.transports.contract import TransportStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from klyng_mp.transports.contract import Ticket, Transport
    from klyng_mp.wire.frames import Message

__all__ = ["Routes"]


class Routes:
    """A transport made of others.

    Args:
        usual: reaches every peer that has no route of its own.
        routes: the transports of those that have.
    """

    def __init__(self, usual: Transport, routes: Mapping[int, Transport]) -> None:
        self._usual = usual
        self._routes = dict(routes)
        self._all = list(dict.fromkeys([usual, *routes.values()]))

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        return self._routes.get(peer, self._usual).send(peer, message, copy=copy)

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        self._routes.get(peer, self._usual).drain(peer)

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        if peer is None:
            return sum(transport.pending() for transport in self._all)
        return self._routes.get(peer, self._usual).pending(peer)

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`."""
        self._routes.get(peer, self._usual).disconnect(peer, dead=dead)

    def close(self) -> None:
        """See `Transport.close`."""
        for transport in self._all:
            transport.close()

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        for transport in self._all:
            transport.abandon()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return TransportStatistics(*map(sum, zip(*(transport.statistics() for transport in self._all), strict=True)))

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return {peer: counts for transport in self._all for peer, counts in transport.traffic().items()}
