"""One process's place in a World, as its communicators use it: messages out, messages in.

Layer: communicator; speaks in endpoint numbers and messages, knows neither objects nor sockets.

Invariants: no call outlives the peer it depends on, the run it belongs to, or its deadline; when an
exception escapes while messages are being moved, the endpoint is poisoned and refuses everything, so
that it never delivers wrong data; a forked child refuses everything, too.

Threads: every method may be called by any thread, but none from a signal handler. `Endpoint.lock` is
held while transports and callbacks run; these may call the endpoint, but must not wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.communicator.receiving import Receiving
from klyng_mp.errors import KlyngError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket
from klyng_mp.wire.frames import Message, is_collective

if TYPE_CHECKING:
    from klyng_mp.deadline import Deadline

__all__ = ["EAGER_BYTES", "OUTBOX_BYTES", "Endpoint"]

EAGER_BYTES = 64 * 1024  # up to here a send need not wait until the kernel has taken the message
OUTBOX_BYTES = 1024 * 1024  # unless this much is queued for the peer already: memory must have an end


class Endpoint(Receiving):
    """One process's place in a World; see `Membership` for its arguments and attributes."""

    def send(self, peer: int, message: Message, *, deadline: Deadline, doing: str) -> None:
        """Send; return when the kernel has the message, or holds it in the outbox if it is a small one.

        What arrives meanwhile is taken in, so two that send to each other never block each other.

        Raises:
            DeadlineError: the message was withdrawn if nothing of it had left; else it is still delivered, and
                the error says so. The caller's buffers are its own again in either case.
            PeerLostError: the peer is gone, or the run was ended; as above.
        """
        with self._room.lock:
            ticket = self._start(peer, message, doing, copy=False)
            if ticket is SENT:
                return
            eager = message.nbytes <= EAGER_BYTES
            try:
                settled = self._settle(lambda: self._is_sent(ticket, peer, eager=eager), deadline, doing, peer)
            except BaseException:
                self._give_up(ticket, peer, message)
                raise
            if not settled:
                left = "nothing of the message was sent"
                if not self._give_up(ticket, peer, message):
                    left = "a part of the message had left already, so the rest follows and it will be delivered"
                raise deadline.error(doing, left=left)
            if not ticket.done:
                self._check_sent(ticket, peer, doing)
                ticket.keep()

    def start_send(self, peer: int, message: Message, *, doing: str = "isend") -> Ticket:
        """Send without waiting; what the kernel does not take at once is copied and queued."""
        with self._room.lock:
            return self._start(peer, message, doing, copy=True)

    def wait_sent(self, ticket: Ticket, peer: int, *, deadline: Deadline, doing: str) -> None:
        """Wait until a message that was started is with the kernel; a deadline changes nothing about it."""
        with self._room.lock:
            if not self._settle(lambda: self._is_sent(ticket, peer), deadline, doing, peer):
                raise deadline.error(doing, left="the message stays on its way")
            self._check_sent(ticket, peer, doing)

    def withdraw_send(self, ticket: Ticket, peer: int, message: Message) -> bool:
        """Take a message back; return False if a part of it has left."""
        with self._room.lock:
            return not ticket.done and self._withdraw(ticket, peer, message)

    def is_sent(self, ticket: Ticket, peer: int) -> bool:
        """Whether a message is with the kernel, or never will be."""
        with self._room.lock:
            return self._is_sent(ticket, peer)

    # -- inside, with the lock held

    def _start(self, peer: int, message: Message, doing: str, *, copy: bool) -> Ticket:
        if self._refusal is not None or message.context < self._lowest:
            self._admit(message.context, doing)
        try:
            if peer in self._peers.missing:
                ticket = self._start_to_the_missing(peer, doing)
            elif peer == self.number:
                ticket = self._deliver_to_self(message)
            else:
                ticket = self._transport.send(peer, message, copy=copy)
        except KlyngError:
            raise
        except BaseException:
            self._poison()
            raise
        if not message.context & 1:
            self._sent[peer] += 1
        return ticket

    def _start_to_the_missing(self, peer: int, doing: str) -> Ticket:
        if peer in self._peers.departed:
            return SENT
        if peer in self._peers.lost:
            raise self._peers.loss(peer, doing)
        return self._peers.hold(peer)

    def _deliver_to_self(self, message: Message) -> Ticket:
        message.buffers = [bytearray(buffer) for buffer in message.buffers]
        self.deliver(self.number, message)
        self._room.notify()
        return SENT

    def _is_sent(self, ticket: Ticket, peer: int, *, eager: bool = False) -> bool:
        if ticket.done:
            return True
        if peer in self._peers.undecided:
            return False
        if ticket.error is not None:
            return True
        return eager and self._transport.pending(peer) <= OUTBOX_BYTES

    def _check_sent(self, ticket: Ticket, peer: int, doing: str) -> None:
        if ticket.error is None or peer in self._peers.departed:
            return
        if peer in self._peers.lost:
            raise self._peers.loss(peer, doing)
        reason = ticket.error.reason if isinstance(ticket.error, PeerLostError) else str(ticket.error)
        raise PeerLostError(peer, reason, doing=doing)

    def _withdraw(self, ticket: Ticket, peer: int, message: Message) -> bool:
        if not ticket.withdraw():
            return False
        if not is_collective(message.context):
            self._sent[peer] -= 1
        return True

    def _give_up(self, ticket: Ticket, peer: int, message: Message) -> bool:
        """Withdraw the message, or else copy what is left of it; tell whether it was withdrawn."""
        if self._withdraw(ticket, peer, message):
            return True
        ticket.keep()
        return False
