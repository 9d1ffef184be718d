"""An endpoint's place among others: its transport, its peers, and the runs that it takes part in.

Layer: communicator.

Invariants: what a peer sent before its end is in the mailbox before its end is told; a message for a
former occupant of this place, or for a run that is over, is dropped and counted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from klyng_mp.communicator.express import make_ways
from klyng_mp.communicator.lifecycle import Lifecycle
from klyng_mp.communicator.peers import Peers
from klyng_mp.errors import ClosedError, KlyngError, PeerLostError
from klyng_mp.transports.contract import Nowhere
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import SYNCHRONOUS, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from klyng_mp.communicator.calls import CallLog
    from klyng_mp.communicator.express import ExpressCodec, Ways
    from klyng_mp.deadline import Deadline
    from klyng_mp.native import core
    from klyng_mp.transports.contract import Transport

__all__ = ["Membership", "readdress"]


def _unknown(peer: int, context: int, number: int) -> None:
    del peer, context, number


class Membership(Lifecycle):
    """What lies under an endpoint's messages: who else is there. It is the transport's sink.

    Args:
        number: its own; the rank, where a World has one communicator.
        incarnation: which occupant of the place it is; messages for another one are dropped.

    Attributes:
        mailbox: what has arrived; use it with the lock held.
        incarnations: of the peers that are known, by number; what is sent to them carries it.
        port: the core's, where some of the peers share memory with this process, else None.
        nearby: those that do.
        call_logs: of the communicators that use this endpoint, by their contexts.
        free_index: of the contexts of this run, the first that no communicator here has or had.
        find_call: says what collective call of a number another endpoint made in a context, and where in its program;
            None where that is not to be known.
        see_call: returns the tag of another endpoint's call of a number in a context, where it can be seen from here.
        on_lost: called, with the lock held, when a peer's connection has ended; the owner finds out why, and
            calls `mark_lost` or `mark_present`; until then, calls that depend on the peer wait. Without
            it the connection's own reason is taken at once.
    """

    def __init__(self, number: int, *, incarnation: int = 0) -> None:
        super().__init__(number)
        self.incarnation = incarnation
        self.mailbox = Mailbox()
        self.on_lost: Callable[[int, str], None] | None = None
        self._peers = Peers(number)
        self.incarnations = self._peers.incarnations
        self.call_logs: WeakValueDictionary[int, CallLog] = WeakValueDictionary()
        self.find_call: Callable[[int, int, int], str | None] = _unknown
        self.see_call: Callable[[int, int, int], int | None] = _unknown
        self.free_index = 1  # 0 is that of all ranks
        self._matched: list[Message] = []  # whose senders want to know
        self._transport: Transport = Nowhere()
        self.port: core.Port | None = None
        self.nearby: Sequence[int] = range(0)
        self._sent: defaultdict[int, int] = defaultdict(int)
        self._lowest = 0
        self._dropped = 0
        self._over_below = 0  # contexts below it belong to a run whose program is over here
        self._refused: list[Message] = []  # which it will not receive, and whose senders want to know

    def use(self, transport: Transport, port: core.Port | None = None, nearby: Sequence[int] | None = None) -> None:
        """Reach all peers by this transport.

        Args:
            transport: knows the way to each.
            port: the core's, where some of them share memory with this process.
            nearby: those that do; None: all that the port knows of.
        """
        self._transport = transport
        self.port = port
        if port is not None:
            self.nearby = range(port.size) if nearby is None else nearby

    def ways(self, context: int, members: Sequence[int], codec: ExpressCodec) -> Ways:
        """Return how messages of a communicator of these endpoints may go past this one."""
        return make_ways(self, context, members, codec)

    def nap(self, steps: int = 0, on: int | None = None) -> bool:
        """See `WaitingRoom.nap`."""
        return self.port is not None and self._room.nap(self.port, steps, on)

    def flush(self, deadline: Deadline) -> None:
        """Wait until nothing is queued for any peer that is not lost."""
        self.wait(lambda: not self._transport.pending(), deadline, "flush()")

    def mark_present(self, peer: int, incarnation: int, adopt: Callable[[], None] | None = None) -> bool:
        """Take note of who occupies the peer's place; a former occupant's connection is closed.

        Args:
            peer: its number.
            incarnation: the occupant.
            adopt: takes a connection that says itself to be this occupant's. It may be there before the news of who has
                come, and before those of the end of who was there.

        Returns:
            False where the place is known to have had another occupant since: nothing was done.
        """
        with self._room.lock:
            known = self.incarnations.get(peer)
            if known is not None and incarnation < known:
                return False
            is_news = known != incarnation if adopt is not None else not self._peers.is_present(peer, incarnation)
            if is_news and known is not None:
                self._part_from(peer)
                if known != incarnation:
                    self._note_end(peer, known, orderly=peer in self._peers.departed)
            if adopt is not None:
                adopt()
            if is_news:
                self._welcome(peer, incarnation)
            return True

    def _welcome(self, peer: int, incarnation: int) -> None:
        for ticket in self._peers.welcome(peer, incarnation):
            try:
                self._transport.send(peer, readdress(ticket.message, incarnation), copy=True)
                ticket.done = True
            except KlyngError as error:
                ticket.error = error
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
                self._note_end(peer, self.incarnations.get(peer, 0), orderly=orderly)
                self._room.notify()

    def begin_run(self, context_low: int) -> list[Message]:
        """Resume, count afresh, and forget for good what belongs to contexts below ``context_low``.

        Returns:
            The forgotten messages, in the order of arrival.
        """
        with self._room.lock:
            self.resume()
            self._lowest = self._room.lock.lowest = max(self._lowest, context_low)
            self._sent.clear()
            self.free_index = 1
            if self.port is not None:
                self.port.take_counts()
                self.port.trim()
                self.port.forget_calls()
            self._refused.clear()
            forgotten = self.mailbox.drop_below(context_low)
            self._room.notify()
            return forgotten

    @property
    def has_losses(self) -> bool:
        """Whether any peer is gone, and that is known."""
        return bool(self._peers.lost)

    @property
    def has_duties(self) -> bool:
        """Whether something that has arrived is to be answered, or lets a call go on that was started.

        Read it with the lock held.
        """
        if self.mailbox.unanswered or self._refused or self._matched:
            return True
        return any(chore.due for chore in self._room.chores)

    def find_loss(self, peers: Iterable[int], doing: str) -> PeerLostError | None:
        """Return the error that says that one of the peers is gone, or None."""
        with self._room.lock:
            lost = next((peer for peer in peers if peer in self._peers.lost), None)
            return None if lost is None else self._peers.loss(lost, doing)

    def conclude(self, low: int, high: int) -> None:
        """Tell those who want to know that this rank's program is over, and receives no more of what they sent.

        Args:
            low: the first context of the run.
            high: the first of the next one.
        """
        with self._room.lock:
            self._over_below = high
            self._refused += [one for one in self.mailbox.waiting(low, high) if one.code & SYNCHRONOUS]
            self._catch_up()

    def take_in(self) -> None:
        """Deliver what has arrived, wherever it lies; unlike `progress`, also from within a callback of the poller."""
        with self._room.lock:
            for peer in list(self.incarnations):
                self._transport.drain(peer)

    def abandon(self) -> None:
        """See `Lifecycle.abandon`."""
        super().abandon()
        self._transport.abandon()

    # -- for the transport

    def deliver(self, peer: int, message: Message) -> None:
        """See `Sink.deliver`."""
        del peer
        if message.incarnation != self.incarnation:
            self._dropped += 1
            return
        self.mailbox.deliver(message)
        if message.code & SYNCHRONOUS and message.context < self._over_below:
            self._refused.append(message)

    def lost(self, peer: int, reason: str) -> None:
        """See `Sink.lost`."""
        if peer in self._peers.lost or peer in self._peers.expected:  # a former occupant, that nobody here has known
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

    def _note_end(self, peer: int, incarnation: int, *, orderly: bool) -> None:
        """Take note that an occupant of a peer's place has ended, after all that came of it."""

    def _part_from(self, peer: int) -> None:
        """Take in what the peer sent last, then close its connection."""
        self._transport.drain(peer)
        self._transport.disconnect(peer, dead=True)

    def _disconnect(self) -> None:
        self._transport.close()


def readdress(message: Message, incarnation: int) -> Message:
    """Return a message with the same content for another occupant of its receiver's place."""
    context, source, tag = message.context, message.source, message.tag
    return Message(context, source, tag, incarnation, message.code, message.head, message.buffers)
