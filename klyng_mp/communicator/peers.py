"""What an endpoint knows of the others: who is there, who is gone and why, and who nobody knows about yet.

Layer: communicator. Not thread-safe by itself: the endpoint's lock is held around every call.

A peer is *present* with an incarnation; *undecided* when its connection has ended and the reason is not
known; *lost* with a reason; *departed* when it is lost because it came to its end as it should.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.errors import PeerLostError
from klyng_mp.transports.contract import Ticket
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Peers"]


class _Held(Ticket):
    """A send to an undecided peer: it never leaves; what remains open is which error it gets."""

    __slots__ = ()

    def withdraw(self) -> bool:
        return self.error is None


class Peers:
    """The peers of one endpoint, by their numbers.

    Attributes:
        number: the endpoint's own.
        incarnations: of all peers that were ever present.
        lost: why they are gone.
        departed: those of the lost to whom a send is accepted, and forgotten.
        undecided: sends that wait for the reason, by peer.
        missing: the lost and the undecided.
    """

    __slots__ = ("departed", "incarnations", "lost", "missing", "number", "undecided")

    def __init__(self, number: int) -> None:
        self.number = number
        self.incarnations: dict[int, int] = {}
        self.lost: dict[int, str] = {}
        self.departed: set[int] = set()
        self.undecided: dict[int, list[Ticket]] = {}
        self.missing: set[int] = set()

    def is_present(self, peer: int, incarnation: int) -> bool:
        """Whether exactly this occupant is known to be there."""
        return self.incarnations.get(peer) == incarnation and peer not in self.missing

    def is_former(self, peer: int, incarnation: int | None) -> bool:
        """Whether the peer's place is known to have another occupant."""
        return incarnation is not None and self.incarnations.get(peer, incarnation) != incarnation

    def welcome(self, peer: int, incarnation: int) -> None:
        """Note that the peer is there; sends that were meant for a former occupant fail."""
        self._decide(peer, "lost its connection" if self.incarnations.get(peer) == incarnation else "was replaced")
        self.incarnations[peer] = incarnation
        self.lost.pop(peer, None)
        self.departed.discard(peer)
        self.missing.discard(peer)

    def suspect(self, peer: int) -> None:
        """Note that the peer's connection has ended."""
        self.undecided.setdefault(peer, [])
        self.missing.add(peer)

    def bury(self, peer: int, reason: str, *, orderly: bool) -> None:
        """Note that the peer is gone."""
        self.lost[peer] = reason
        self.missing.add(peer)
        if orderly:
            self.departed.add(peer)
        self._decide(peer, reason)

    def hold(self, peer: int) -> Ticket:
        """Return the ticket of a send to an undecided peer."""
        ticket = _Held()
        self.undecided[peer].append(ticket)
        return ticket

    def is_hopeless(self, source: int, among: Iterable[int] | None) -> bool:
        """Whether nobody is left who could send from ``source``; ``among`` restricts ANY_SOURCE."""
        if not self.lost:
            return False
        if source != ANY_SOURCE:
            return source in self.lost
        others = [peer for peer in (self.incarnations if among is None else among) if peer != self.number]
        return bool(others) and all(peer in self.lost for peer in others)

    def loss(self, peer: int, doing: str) -> PeerLostError:
        """Return the error that says that a peer (or with ANY_SOURCE everybody) is gone."""
        if peer != ANY_SOURCE:
            return PeerLostError(peer, self.lost[peer], doing=doing)
        last, reason = next(reversed(self.lost.items()))
        return PeerLostError(None, f"is gone; the last one, rank {last}, {reason}", doing=doing)

    def _decide(self, peer: int, reason: str) -> None:
        for ticket in self.undecided.pop(peer, ()):
            ticket.error = PeerLostError(peer, reason)
