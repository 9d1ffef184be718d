"""What an endpoint does for objects that processes share: their messages out and in, and news of who has ended.

Layer: communicator; knows nothing of the objects.

Invariants: what is for them is heard in the order of arrival, also while nobody waits where the endpoint is attended;
the end of a process is told after all that it has said; nothing of it counts as a message of the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from klyng_mp.communicator.membership import Membership
from klyng_mp.wire.frames import OBJECTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.transports.contract import Ticket
    from klyng_mp.wire.frames import Message

__all__ = ["Carrying", "Objects"]


class Objects(Protocol):
    """Who takes the messages of the context OBJECTS; called with the endpoint's lock held, and must not wait.

    Attributes:
        waits: how many threads wait for a message of that kind.
    """

    waits: int

    def hear(self, message: Message) -> None:
        """Do what a message asks for."""

    def part(self, peer: int, incarnation: int, *, orderly: bool) -> None:
        """Take note that an occupant of a peer's place has ended, whose last messages were heard before."""

    def stop(self) -> None:
        """Take note that nothing can be said or heard any more."""


class Carrying(Membership):
    """What an endpoint carries for shared objects; see `Membership` for its arguments and further attributes.

    Attributes:
        objects: gets the messages of the context OBJECTS.
        alert: has a peer of this host look for messages also while it computes.
    """

    def __init__(self, number: int, *, incarnation: int = 0) -> None:
        super().__init__(number, incarnation=incarnation)
        self.objects: Objects | None = None
        self.alert: Callable[[int], None] = _leave_alone
        self._for_objects: list[Message] = []
        self._partings: list[tuple[int, int, bool]] = []  # of whom `objects` has not been told
        self._catching_up = False

    @property
    def has_duties(self) -> bool:
        """See `Membership.has_duties`."""
        return bool(self._partings) or super().has_duties

    def note_end(self, peer: int, incarnation: int, *, orderly: bool) -> None:
        """Have `objects` told, after all that came of it, that an occupant of a peer's place has ended."""
        with self._room.lock:
            if self.objects is not None:
                self._transport.drain(peer)
                self._partings.append((peer, incarnation, orderly))
                if not self._room.is_calling:
                    self._catch_up()

    def pass_on(self, peer: int, message: Message) -> Ticket | None:
        """Send a message of the context OBJECTS, also while a run is being ended; return None if nobody is there.

        It is for the peer's present occupant, is not counted as sent, and a peer of this host is alerted.

        Raises:
            MessageTooLargeError, LocalProtocolError: nothing was sent.
        """
        with self._room.lock:
            if self._over or peer in self._peers.lost or peer in self._peers.undecided:
                return None
            ticket: Ticket
            if peer in self._peers.expected:
                ticket = self._peers.hold_early(peer, message)
                ticket.keep()
                return ticket
            ticket = self._transport.send(peer, message, copy=True)
            if peer in self.nearby:
                self.alert(peer)
            return ticket

    # -- inside, with the lock held

    def _disconnect(self) -> None:
        super()._disconnect()
        if self.objects is not None:
            self.objects.stop()

    def _note_end(self, peer: int, incarnation: int, *, orderly: bool) -> None:
        self.note_end(peer, incarnation, orderly=orderly)

    def _take_matched(self) -> list[Message]:
        """Return the messages whose senders are to be told now that they were matched."""
        if self.mailbox.unanswered or self._partings:
            self._serve_objects()
        if self._refusal is not None or not self._matched:
            return []
        matched, self._matched = self._matched, []
        return matched

    def _serve_objects(self) -> None:
        """Sort out what the mailbox has left to its owner; have `objects` hear theirs in the order of arrival."""
        for message in self.mailbox.take_unanswered():
            (self._for_objects if message.context == OBJECTS else self._matched).append(message)
        if self._catching_up:
            return
        self._catching_up = True
        try:
            while self._for_objects or self._partings:
                heard, self._for_objects = self._for_objects, []
                for message in heard:
                    if self.objects is not None:
                        self.objects.hear(message)
                partings, self._partings = self._partings, []
                for peer, incarnation, orderly in partings:
                    if self.objects is not None:
                        self.objects.part(peer, incarnation, orderly=orderly)
        finally:
            self._catching_up = False


def _leave_alone(peer: int) -> None:
    del peer
