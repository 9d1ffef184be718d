"""What an endpoint knows of the others: who is there, who is gone and why, and who nobody knows about yet.

Layer: communicator. Not thread-safe by itself: the endpoint's lock is held around every call.

A peer is *expected* before it has come for the first time; *present* with an incarnation; *undecided* when its
connection has ended and the reason is not known; *lost* with a reason; *departed* when it is lost because it came to
its end as it should.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.errors import PeerLostError
from klyng_mp.transports.contract import Ticket
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from klyng_mp.wire.frames import Message

__all__ = ["Peers"]


class _Held(Ticket):
    """A send to an undecided peer: it never leaves; what remains open is which error it gets."""

    __slots__ = ()

    def withdraw(self) -> bool:
        return self.error is None


class _Early(Ticket):
    """A send to a peer that has not come yet: it leaves when the peer is there."""

    __slots__ = ("message", "withdrawn")

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message
        self.withdrawn = False

    def withdraw(self) -> bool:
        if self.done or self.error is not None:
            return False
        self.withdrawn = True
        return True

    def keep(self) -> None:
        self.message.buffers = [bytearray(buffer) for buffer in self.message.buffers]


class Peers:
    """The peers of one endpoint, by their numbers.

    Attributes:
        number: the endpoint's own.
        incarnations: of all peers that were ever present.
        lost: why they are gone.
        departed: those of the lost to whom a send is accepted, and forgotten.
        undecided: sends that wait for the reason, by peer.
        expected: sends that wait for a peer that has not come yet.
        missing: the lost, the undecided and the expected.
    """

    __slots__ = ("departed", "expected", "incarnations", "lost", "missing", "number", "undecided")

    def __init__(self, number: int) -> None:
        self.number = number
        self.incarnations: dict[int, int] = {}
        self.lost: dict[int, str] = {}
        self.departed: set[int] = set()
        self.undecided: dict[int, list[Ticket]] = {}
        self.expected: dict[int, list[_Early]] = {}
        self.missing: set[int] = set()

    def is_present(self, peer: int, incarnation: int) -> bool:
        """Whether exactly this occupant is known to be there."""
        return self.incarnations.get(peer) == incarnation and peer not in self.missing

    def is_former(self, peer: int, incarnation: int | None) -> bool:
        """Whether the peer's place is known to have another occupant."""
        return incarnation is not None and self.incarnations.get(peer, incarnation) != incarnation

    def expect(self, peer: int) -> None:
        """Note that the peer has not come yet: what is sent to it waits."""
        self.incarnations.pop(peer, None)
        self.expected[peer] = []
        self.missing.add(peer)

    def welcome(self, peer: int, incarnation: int) -> list[_Early]:
        """Note that the peer is there; sends that were meant for a former occupant fail.

        Returns:
            What has waited for it to come, and is to leave now.
        """
        self._decide(peer, "lost its connection" if self.incarnations.get(peer) == incarnation else "was replaced")
        self.incarnations[peer] = incarnation
        self.lost.pop(peer, None)
        self.departed.discard(peer)
        self.missing.discard(peer)
        return [ticket for ticket in self.expected.pop(peer, ()) if not ticket.withdrawn]

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
        self._disappoint(peer, reason)

    def hold(self, peer: int) -> Ticket:
        """Return the ticket of a send to an undecided peer."""
        ticket = _Held()
        self.undecided[peer].append(ticket)
        return ticket

    def hold_early(self, peer: int, message: Message) -> Ticket:
        """Return the ticket of a send to a peer that has not come yet."""
        ticket = _Early(message)
        self.expected[peer].append(ticket)
        return ticket

    def take_early(self) -> list[tuple[int, Message]]:
        """Return what waits for peers to come, each with its receiver; it is the caller's from now on."""
        taken = []
        for peer, tickets in self.expected.items():
            for ticket in tickets:
                if not ticket.withdrawn:
                    ticket.done = True
                    taken.append((peer, ticket.message))
            tickets.clear()
        return taken

    def early_bytes(self, peer: int) -> int:
        """Return how much waits for a peer to come."""
        return sum(ticket.message.nbytes for ticket in self.expected.get(peer, ()) if not ticket.withdrawn)

    def is_hopeless(self, source: int, among: Iterable[int] | None) -> bool:
        """Whether nobody is left who could send from ``source``; ``among`` restricts ANY_SOURCE."""
        if not self.lost:
            return False
        if source != ANY_SOURCE:
            return source in self.lost
        others = [
            peer for peer in ((*self.incarnations, *self.expected) if among is None else among) if peer != self.number
        ]
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

    def _disappoint(self, peer: int, reason: str) -> None:
        for ticket in self.expected.pop(peer, ()):
            ticket.error = PeerLostError(peer, reason)
