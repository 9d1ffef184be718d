"""One process's place in a World: its mailbox, its transport, what it knows of its peers, and how it waits.

Layer: communicator; speaks in endpoint numbers and messages, knows neither objects nor sockets.

Invariants: what a peer sent before its end is received before its end is told; no call outlives the peer
it depends on, the run it belongs to, or its deadline; when an exception escapes while bytes are being
handled, the endpoint is poisoned and refuses everything, so that it never delivers wrong data; a
forked child refuses everything, too, and its copies of the descriptors are closed.

Threads: every method may be called by any thread, but none from a signal handler. `Endpoint.lock` is
held while transports and callbacks run; these may call the endpoint, but must not wait.
"""

from __future__ import annotations

import os
from functools import cache
from select import EPOLLIN
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from klyng_mp.communicator.peers import Peers
from klyng_mp.communicator.waiting import WaitingRoom
from klyng_mp.errors import ClosedError, ForkedError, KlyngError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket
from klyng_mp.wire.frames import Message, is_collective
from klyng_mp.wire.mailbox import Mailbox, Receive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from threading import RLock

    from klyng_mp.deadline import Deadline
    from klyng_mp.transports.contract import Poller, Transport

__all__ = ["EAGER_BYTES", "OUTBOX_BYTES", "Endpoint", "EndpointStatistics"]

EAGER_BYTES = 64 * 1024  # up to here a send need not wait until the kernel has taken the message
OUTBOX_BYTES = 1024 * 1024  # unless this much is queued for the peer already: memory must have an end


class EndpointStatistics(NamedTuple):
    """What an endpoint has done and holds; bytes are those on the wire."""

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    connections: int
    dropped: int
    waiting: int


class Endpoint:
    """One process's place in a World.

    Args:
        number: its own; the rank, where a World has one communicator.
        incarnation: which occupant of the place it is; messages for another one are dropped.

    Attributes:
        lock: see the module's *Threads*.
        mailbox: what has arrived; use it with the lock held.
        poller: for transports.
        incarnations: of the peers that are known, by number; what is sent to them carries it.
        aborted: whether `abort` was called since the last `resume`.
        poisoned: whether an interruption spoilt it; nothing is left to be done but to end the process.
        on_lost: called, with the lock held, when a peer's connection has ended; the owner finds out why, and
            calls `mark_lost` or `mark_present`; until then, calls that depend on the peer wait. Without
            it the connection's own reason is taken at once.
    """

    def __init__(self, number: int, *, incarnation: int = 0) -> None:
        self.number = number
        self.incarnation = incarnation
        self.mailbox = Mailbox()
        self.aborted = False
        self.poisoned = False
        self.on_lost: Callable[[int, str], None] | None = None
        self._peers = Peers(number)
        self.incarnations = self._peers.incarnations
        self._room = WaitingRoom(self._poison)
        self._transport: Transport | None = None
        self._refusal: Callable[[str], KlyngError] | None = None  # makes the error of whoever wants anything
        self._over = False  # whether `resume` cannot help
        self._sent: dict[int, int] = {}
        self._lowest = 0
        self._dropped = 0
        _watch_forks()
        _ENDPOINTS.add(self)

    @property
    def lock(self) -> RLock:
        """The lock around everything here; re-entrant."""
        return self._room.lock

    @property
    def poller(self) -> Poller:
        """The descriptors that this endpoint's threads wait for."""
        return self._room.poller

    def use(self, transport: Transport) -> None:
        """Reach all peers by this transport."""
        self._transport = transport

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)``, with the lock held, whenever there is something to read at ``fd``."""
        with self._room.lock:
            self._room.poller.register(fd, EPOLLIN, callback)

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; it stays open."""
        with self._room.lock:
            self._room.poller.unregister(fd)

    # -- messages

    def send(self, peer: int, message: Message, *, deadline: Deadline, doing: str) -> None:
        """Send; return when the kernel has the message, or holds it in the outbox if it is a small one.

        What arrives meanwhile is taken in, so two that send to each other never block each other.

        Raises:
            DeadlineError: the message was withdrawn if nothing of it had left; else it is still delivered
                later, and the error says so. The caller's buffers are its own again in either case.
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
            message = self.mailbox.take(context, source, tag)
            if message is not None:
                return message
            receive = Receive(context, source, tag)
            self.mailbox.enqueue(receive)
            try:
                return self._await_message(receive, deadline, doing, among)
            except BaseException:
                if receive.message is not None:  # an interruption came between: nothing was taken, then
                    self.mailbox.restore(receive.message)
                else:
                    self.mailbox.withdraw(receive)
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
        with self._room.lock:
            self._admit(context, doing)

            def ready() -> bool:
                return self.mailbox.peek(context, source, tag) is not None or self._peers.is_hopeless(source, among)

            if not self._settle(ready, deadline, doing):
                raise deadline.error(doing)
            found = self.mailbox.peek(context, source, tag)
            if found is None:
                raise self._peers.loss(source, doing)
            return found

    # -- waiting

    def wait(self, ready: Callable[[], bool], deadline: Deadline, doing: str) -> None:
        """Wait until ``ready()``, which is called often and with the lock held, by any thread.

        Raises:
            DeadlineError: the time ran out.
            PeerLostError: the run was ended by `abort`.
            ClosedError: the endpoint is closed or poisoned.
        """
        with self._room.lock:
            if not self._settle(ready, deadline, doing):
                raise deadline.error(doing)

    def progress(self) -> None:
        """Move what can be moved without waiting."""
        with self._room.lock:
            self._room.progress()

    def flush(self, deadline: Deadline) -> None:
        """Wait until nothing is queued for any peer that is not lost."""
        transport = self._transport
        if transport is not None:
            self.wait(lambda: not transport.pending(), deadline, "flush()")

    def failure(self, doing: str) -> KlyngError | None:
        """Return the error that any call would raise now, or None."""
        return None if self._refusal is None else self._refusal(doing)

    # -- what the owner knows

    def mark_present(self, peer: int, incarnation: int) -> None:
        """Take note of who occupies the peer's place; a former occupant's connection is closed."""
        with self._room.lock:
            if self._peers.is_present(peer, incarnation):
                return
            if peer in self.incarnations:
                self._part_from(peer)
            self._peers.welcome(peer, incarnation)
            self._room.notify()

    def mark_lost(self, peer: int, reason: str, *, incarnation: int | None = None, orderly: bool = False) -> None:
        """Let every call that depends on the peer raise PeerLostError, once what it sent is received.

        Args:
            peer: its number.
            reason: a phrase for the error: "was killed by SIGKILL".
            incarnation: of the occupant that is meant; nothing is done if the place has another by now.
            orderly: it came to its end as it should, so what is sent to it is accepted and forgotten.
        """
        with self._room.lock:
            if not self._peers.is_former(peer, incarnation):
                self._peers.bury(peer, reason, orderly=orderly)
                self._part_from(peer)
                self._room.notify()

    def abort(self, reason: str, rank: int | None) -> None:
        """End the run here: blocked and later calls raise PeerLostError, until `resume`.

        Args:
            reason: a phrase for the error: "raised ValueError".
            rank: who is to blame.
        """
        with self._room.lock:
            self.aborted = True
            if not self._over:
                self._refusal = lambda doing: PeerLostError(rank, reason, doing=doing)
                self._room.stopped = True
                self._room.notify()

    def resume(self) -> None:
        """Undo `abort`."""
        with self._room.lock:
            self.aborted = False
            if not self._over:
                self._refusal = None
                self._room.stopped = False

    def begin_run(self, context_low: int) -> list[Message]:
        """Resume, count afresh, and forget for good what belongs to contexts below ``context_low``.

        Returns:
            The forgotten messages, in the order of arrival.
        """
        with self._room.lock:
            self.resume()
            self._lowest = max(self._lowest, context_low)
            self._sent.clear()
            forgotten = self.mailbox.drop_below(context_low)
            self._room.notify()
            return forgotten

    def sent_counts(self) -> dict[int, int]:
        """Return how many messages of users (not of collectives) went to whom since `begin_run`."""
        with self._room.lock:
            return dict(self._sent)

    def unreceived(self, low: int, high: int) -> list[Message]:
        """Return users' messages with low <= context < high that nobody has received, in the order of arrival."""
        with self._room.lock:
            return [message for message in self.mailbox.waiting(low, high) if not is_collective(message.context)]

    def statistics(self) -> EndpointStatistics:
        """Return what it has done so far and what it holds."""
        with self._room.lock:
            moved = (0, 0, 0, 0, 0) if self._transport is None else self._transport.statistics()
            return EndpointStatistics(*moved, self._dropped + self.mailbox.dropped, len(self.mailbox))

    def close(self) -> None:
        """Close all connections; every blocked and later call raises ClosedError. May be called again.

        What is still queued is dropped: `flush` first where that matters.
        """
        with self._room.lock:
            self._refuse(lambda doing: ClosedError(f"this rank has closed its communicator, so {doing} cannot be done"))
            self._room.close()

    # -- for the transport

    def deliver(self, peer: int, message: Message) -> None:
        """See `Sink.deliver`."""
        del peer
        if message.incarnation != self.incarnation:
            self._dropped += 1
            return
        self.mailbox.deliver(message)

    def lost(self, peer: int, reason: str) -> None:
        """See `Sink.lost`."""
        if peer in self._peers.lost:
            return
        if self.on_lost is None:
            self.mark_lost(peer, reason)
            return
        self._peers.suspect(peer)
        self.on_lost(peer, reason)

    # -- inside, with the lock held

    def _admit(self, context: int, doing: str) -> None:
        if self._refusal is not None:
            raise self._refusal(doing)
        if context < self._lowest and context:
            raise ClosedError(f"this communicator belongs to a run that has ended, so {doing} cannot be done")

    def _settle(self, ready: Callable[[], bool], deadline: Deadline, doing: str) -> bool:
        """Wait until ``ready()`` and return True, or False at the deadline; raise when nothing goes any more."""
        if not self._room.wait(ready, deadline):
            return False
        if self._refusal is not None and not ready():
            raise self._refusal(doing)
        return True

    def _start(self, peer: int, message: Message, doing: str, *, copy: bool) -> Ticket:
        if self._refusal is not None or message.context < self._lowest:
            self._admit(message.context, doing)
        peers = self._peers
        try:
            if (peers.lost or peers.undecided) and (peer in peers.lost or peer in peers.undecided):
                ticket = self._start_to_the_lost(peer, doing)
            elif peer == self.number:
                ticket = self._deliver_to_self(message)
            else:
                ticket = self._reach(doing).send(peer, message, copy=copy)
        except KlyngError:
            raise
        except BaseException:
            self._poison()
            raise
        if not message.context & 1:
            self._sent[peer] = self._sent.get(peer, 0) + 1
        return ticket

    def _reach(self, doing: str) -> Transport:
        if self._transport is None:
            raise ClosedError(f"this rank is alone, so {doing} cannot be done")
        return self._transport

    def _start_to_the_lost(self, peer: int, doing: str) -> Ticket:
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
        return eager and self._transport is not None and self._transport.pending(peer) <= OUTBOX_BYTES

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
        self.mailbox.post(receive)
        return receive

    def _is_received(self, receive: Receive, among: Iterable[int] | None) -> bool:
        return receive.message is not None or receive.withdrawn or self._peers.is_hopeless(receive.source, among)

    def _await_message(self, receive: Receive, deadline: Deadline, doing: str, among: Iterable[int] | None) -> Message:
        lost = self._peers.lost

        def ready() -> bool:
            return (
                receive.message is not None or receive.withdrawn or (bool(lost) and self._is_received(receive, among))
            )

        if not self._settle(ready, deadline, doing):
            raise deadline.error(doing)
        if receive.message is not None:
            return receive.message
        if receive.withdrawn:
            raise ClosedError(f"the run ended before {doing} got its message")
        raise self._peers.loss(receive.source, doing)

    def _part_from(self, peer: int) -> None:
        """Take in what the peer sent last, then close its connection."""
        if self._transport is not None:
            self._transport.drain(peer)
            self._transport.disconnect(peer)

    def _refuse(self, refusal: Callable[[str], KlyngError]) -> None:
        """Refuse everything from now on; the first reason stays."""
        if not self._over:
            self._over = self._room.stopped = True
            self._refusal = refusal
            if self._transport is not None:
                self._transport.close()
            self._room.notify()

    def _poison(self) -> None:
        self.poisoned = True
        self._refuse(
            lambda doing: ClosedError(
                f"an exception interrupted this rank while it moved messages, so {doing} cannot be done safely: "
                "its connections are closed and its process must end"
            )
        )

    def abandon(self) -> None:
        """In a forked child: close its copies of the descriptors and refuse everything with ForkedError."""
        self._over = True
        self._refusal = lambda doing: ForkedError(
            f"{doing} was called in a child that was forked from rank {self.number}: a communicator belongs to one "
            "process. Send from the rank itself, or start the child from a World"
        )
        self._room.abandon()
        if self._transport is not None:
            self._transport.abandon()


_ENDPOINTS: WeakSet[Endpoint] = WeakSet()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_abandon_all)


def _abandon_all() -> None:
    for endpoint in list(_ENDPOINTS):
        endpoint.abandon()
