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

from klyng_mp.communicator.membership import readdress
from klyng_mp.communicator.receiving import Receiving
from klyng_mp.errors import ClosedError, KlyngError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket
from klyng_mp.wire.frames import Message, is_collective
from klyng_mp.wire.mailbox import ANSWERS, SYNCHRONOUS

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.deadline import Deadline
    from klyng_mp.wire.mailbox import Receive

__all__ = ["EAGER_BYTES", "OUTBOX_BYTES", "Endpoint", "Handover"]

EAGER_BYTES = 64 * 1024  # up to here a send need not wait until the kernel has taken the message
_MATCHED, _REFUSED = 0, 1  # codes of the word about a message that is sent synchronously
OUTBOX_BYTES = 1024 * 1024  # unless this much is queued for the peer already: memory must have an end


class Handover:
    """A message whose sender wants to know when it is matched.

    Attributes:
        peer: the receiver's number.
        message: what is sent.
        ticket: of its way out.
        answer: the posted receive of the word that it was matched. Such words of one receiver about one tag come in
            the order in which the messages were sent, since that is the order in which they match.
    """

    __slots__ = ("answer", "message", "peer", "ticket")

    def __init__(self, peer: int, message: Message, ticket: Ticket, answer: Receive) -> None:
        self.peer = peer
        self.message = message
        self.ticket = ticket
        self.answer = answer

    @property
    def matched(self) -> bool:
        """Whether it is known to be matched."""
        return self.answer.message is not None and self.answer.message.code == _MATCHED


class Endpoint(Receiving):
    """One process's place in a World; see `Membership` for its arguments and attributes.

    Attributes:
        refresh: where peers may be replaced while a program runs: called, with the lock held, before a message is sent
            to an occupant, so that news of its end is taken in first.
    """

    refresh: Callable[[int, int], None] | None = None

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

    def attend(self, spin_seconds: float = 0.0) -> None:
        """Have messages move also while no thread is in a call, by one that is started; for peers on other hosts.

        Who waits looks for a message for ``spin_seconds`` before it sleeps.
        Cost: a thread that sleeps; a peer's message wakes it, unless somebody waits here.
        """
        with self._room.lock:
            self._room.spin_seconds = spin_seconds
            self._room.attend()

    def expect(self, peer: int) -> None:
        """Take note that the peer has not come yet: what is sent to it waits, and who receives from it waits, too."""
        with self._room.lock:
            self._peers.expect(peer)

    def take_early(self) -> list[tuple[int, Message]]:
        """Return what waits for peers that have not come yet, each with its receiver, to be kept for them elsewhere."""
        with self._room.lock:
            return self._peers.take_early()

    # -- messages whose sender wants to know

    def send_synchronously(self, peer: int, message: Message, *, deadline: Deadline, doing: str) -> None:
        """Send a message with the mark SYNCHRONOUS; return when a receive has matched it.

        Raises:
            DeadlineError: the message was withdrawn if nothing of it had left; else the receiver may still take it,
                and the error says so. The caller's buffers are its own again in either case.
            PeerLostError: the peer is gone, or the run was ended; as above.
        """
        with self._room.lock:
            handover = self.hand_over(peer, message, doing=doing, copy=False)
            try:
                settled = self._settle(lambda: self.is_matched(handover), deadline, doing, peer)
            except BaseException:
                self._let_go(handover)
                raise
            if not settled:
                left = "the message was withdrawn"
                if not self._let_go(handover):
                    left = "the message has left already, so the receiver may still take it"
                raise deadline.error(doing, left=left)
            self._check_matched(handover, doing)

    def hand_over(self, peer: int, message: Message, *, doing: str, copy: bool = True) -> Handover:
        """Start to send a message with the mark SYNCHRONOUS, without waiting; ``copy`` as `Transport.send` has it."""
        with self._room.lock:
            if peer in self._peers.lost:
                raise self._peers.loss(peer, doing)
            answer = self._post(message.context | ANSWERS, peer, message.tag, doing)
            try:
                ticket = self._start(peer, message, doing, copy=copy)
            except BaseException:
                self.mailbox.withdraw(answer)
                raise
            self._catch_up()
            return Handover(peer, message, ticket, answer)

    def wait_matched(self, handover: Handover, *, deadline: Deadline, doing: str) -> None:
        """Wait until a message is matched; a deadline changes nothing about it."""
        with self._room.lock:
            if not self._settle(lambda: self.is_matched(handover), deadline, doing, handover.peer):
                raise deadline.error(doing, left="the message stays on its way")
            self._check_matched(handover, doing)

    def is_matched(self, handover: Handover) -> bool:
        """Whether a message is matched, or never will be."""
        with self._room.lock:
            answer, peer = handover.answer, handover.peer
            if answer.message is not None or answer.withdrawn or peer in self._peers.lost:
                return True
            return handover.ticket.error is not None and peer not in self._peers.undecided

    def withdraw_handover(self, handover: Handover) -> bool:
        """Take a message back; return False if a part of it has left."""
        with self._room.lock:
            ticket = handover.ticket
            withdrawn = not ticket.done and self._withdraw(ticket, handover.peer, handover.message)
            return withdrawn and self.mailbox.withdraw(handover.answer)

    # -- inside, with the lock held

    def _check_matched(self, handover: Handover, doing: str) -> None:
        if handover.matched:
            return
        if handover.answer.message is not None:
            raise PeerLostError(handover.peer, "has returned without receiving this message", doing=doing)
        self.mailbox.withdraw(handover.answer)
        if handover.peer in self._peers.lost:
            raise self._peers.loss(handover.peer, doing)
        if handover.ticket.error is not None:
            raise _as_loss(handover.ticket.error, handover.peer, doing)
        raise ClosedError(f"the run ended before {doing} was received")

    def _let_go(self, handover: Handover) -> bool:
        """Withdraw the message, or else let its answer come and meet nobody; tell whether it was withdrawn."""
        if self._give_up(handover.ticket, handover.peer, handover.message):
            return self.mailbox.withdraw(handover.answer)
        return False  # its answer must not be taken for a later message's: it stays awaited

    def _catch_up(self) -> None:
        """Do what is to be done about messages; tell senders that want to know which were matched, or never will be."""
        while (matched := self._take_matched()) or (self._refused and self._refusal is None):
            for message in matched:
                self._answer(message, _MATCHED)
            refused, self._refused = self._refused, []
            for message in refused:
                if message.code & SYNCHRONOUS:  # else it was matched after all
                    message.code &= ~SYNCHRONOUS
                    self._answer(message, _REFUSED)

    def _answer(self, message: Message, code: int) -> None:
        context, peer = message.context | ANSWERS, message.source
        if message.context < self._lowest or peer in self._peers.missing:
            return
        incarnation = self.incarnation if peer == self.number else self.incarnations.get(peer, 0)
        answer = Message(context, self.number, message.tag, incarnation, code, b"", ())
        self._start(peer, answer, "telling a sender that its message was received", copy=True)

    def _start(self, peer: int, message: Message, doing: str, *, copy: bool) -> Ticket:
        if self._refusal is not None or message.context < self._lowest:
            self._admit(message.context, doing)
        if self.refresh is not None:
            self.refresh(peer, message.incarnation)
            if (incarnation := self.incarnations.get(peer, message.incarnation)) != message.incarnation:
                message = readdress(message, incarnation)
        try:
            if peer in self._peers.missing:
                ticket = self._start_to_the_missing(peer, message, doing, copy=copy)
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

    def _start_to_the_missing(self, peer: int, message: Message, doing: str, *, copy: bool) -> Ticket:
        if peer in self._peers.departed:
            return SENT
        if peer in self._peers.lost:
            raise self._peers.loss(peer, doing)
        if peer not in self._peers.expected:
            return self._peers.hold(peer)
        ticket = self._peers.hold_early(peer, message)
        if copy:
            ticket.keep()
        return ticket

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
        return eager and self._transport.pending(peer) + self._peers.early_bytes(peer) <= OUTBOX_BYTES

    def _check_sent(self, ticket: Ticket, peer: int, doing: str) -> None:
        if ticket.error is None or peer in self._peers.departed:
            return
        if peer in self._peers.lost:
            raise self._peers.loss(peer, doing)
        raise _as_loss(ticket.error, peer, doing)

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


def _as_loss(error: Exception, peer: int, doing: str) -> PeerLostError:
    """Return a ticket's error as that of the call that depends on it."""
    reason = error.reason if isinstance(error, PeerLostError) else str(error)
    return PeerLostError(peer, reason, doing=doing)
