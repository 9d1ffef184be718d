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

from klyng_mp.communicator.membership import Membership
from klyng_mp.errors import ClosedError, KlyngError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket
from klyng_mp.wire.frames import Message, is_collective
from klyng_mp.wire.mailbox import Receive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from klyng_mp.deadline import Deadline

__all__ = ["EAGER_BYTES", "OUTBOX_BYTES", "Endpoint"]

EAGER_BYTES = 64 * 1024  # up to here a send need not wait until the kernel has taken the message
OUTBOX_BYTES = 1024 * 1024  # unless this much is queued for the peer already: memory must have an end


class Endpoint(Membership):
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
                settled = self._settle(lambda: self._is_sent(ticket, peer, eager=eager), deadline, doing)
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
            if not self._settle(lambda: self._is_sent(ticket, peer), deadline, doing):
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

    def receive(
        self,
        context: int,
        source: int,
        tag: int | str,
        *,
        deadline: Deadline,
        doing: str,
        among: Iterable[int] | None = None,
    ) -> Message:
        """Receive the first message that matches.

        Args:
            context: of the communicator.
            source: the sender's number or ANY_SOURCE.
            tag: a tag or ANY_TAG.
            deadline: when to give up.
            doing: what errors say this rank was doing.
            among: who may send with ANY_SOURCE; when all of them are lost there is nothing to wait for.

        Raises:
            DeadlineError: nothing was taken.
            PeerLostError: the source is gone, or the run was ended; nothing was taken.
        """
        with self._room.lock:
            if self._refusal is not None or context < self._lowest:
                self._admit(context, doing)
            receive = Receive(context, source, tag)
            try:
                self.mailbox.post(receive)
            except BaseException:
                self._poison()
                raise
            if receive.message is not None:
                return receive.message
            try:
                return self._await_message(receive, deadline, doing, among)
            except BaseException:
                if not self.mailbox.withdraw(receive) and receive.message is not None:
                    self.mailbox.restore(receive.message)  # an interruption came between: nothing was taken, then
                raise

    def start_receive(self, context: int, source: int, tag: int | str, *, doing: str = "irecv") -> Receive:
        """Post a receive; it matches in the order of posting, before any later one."""
        with self._room.lock:
            return self._post(context, source, tag, doing)

    def wait_received(
        self, receive: Receive, *, deadline: Deadline, doing: str, among: Iterable[int] | None = None
    ) -> Message:
        """Wait until a posted receive has its message; after an error it is still posted."""
        with self._room.lock:
            if receive.message is not None:
                return receive.message
            return self._await_message(receive, deadline, doing, among)

    def withdraw_receive(self, receive: Receive) -> bool:
        """Take a posted receive back; return False if it has its message."""
        with self._room.lock:
            return self.mailbox.withdraw(receive)

    def is_received(self, receive: Receive, among: Iterable[int] | None = None) -> bool:
        """Whether a posted receive has its message, or never will."""
        with self._room.lock:
            return self._is_received(receive, among)

    def peek(self, context: int, source: int, tag: int | str, *, doing: str) -> Message | None:
        """Return the first message that matches and leave it there, without waiting."""
        with self._room.lock:
            self._admit(context, doing)
            found = self.mailbox.peek(context, source, tag)
            if found is None:
                self._room.progress()
                found = self.mailbox.peek(context, source, tag)
            return found

    def wait_message(
        self,
        context: int,
        source: int,
        tag: int | str,
        *,
        deadline: Deadline,
        doing: str,
        among: Iterable[int] | None = None,
    ) -> Message:
        """Wait for a message that matches and leave it there; see `receive`."""

        def ready() -> bool:
            return self.mailbox.peek(context, source, tag) is not None or self._peers.is_hopeless(source, among)

        with self._room.lock:
            self._admit(context, doing)
            if not self._settle(ready, deadline, doing):
                raise deadline.error(doing)
            found = self.mailbox.peek(context, source, tag)
            if found is None:
                raise self._peers.loss(source, doing)
            return found

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

    def _post(self, context: int, source: int, tag: int | str, doing: str) -> Receive:
        self._admit(context, doing)
        receive = Receive(context, source, tag)
        try:
            self.mailbox.post(receive)
        except BaseException:
            self._poison()
            raise
        return receive

    def _is_received(self, receive: Receive, among: Iterable[int] | None) -> bool:
        return receive.message is not None or receive.withdrawn or self._peers.is_hopeless(receive.source, among)

    def _await_message(self, receive: Receive, deadline: Deadline, doing: str, among: Iterable[int] | None) -> Message:
        lost = self._peers.lost

        def ready() -> bool:
            return (
                receive.message is not None or receive.withdrawn or (bool(lost) and self._is_received(receive, among))
            )

        in_time = self._room.wait(ready, deadline)
        if receive.message is not None:
            return receive.message
        if self._refusal is not None:
            raise self._refusal(doing)
        if not in_time:
            raise deadline.error(doing)
        if receive.withdrawn:
            raise ClosedError(f"the run ended before {doing} got its message")
        raise self._peers.loss(receive.source, doing)
