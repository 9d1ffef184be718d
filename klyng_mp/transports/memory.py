"""Messages between endpoints of one process: the smallest transport, and the reference for the others.

Layer: transports.

A `MemoryHub` stands for the network. Each endpoint has an inbox there, with a bounded capacity as a
socket's has, and an eventfd as its doorbell. Messages are copied on the way, as a wire would.
"""

from __future__ import annotations

import os
from collections import deque
from select import EPOLLIN
from threading import Lock
from typing import TYPE_CHECKING

from klyng_mp.errors import ClosedError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket, TransportStatistics
from klyng_mp.wire.frames import Message, pack_frame

if TYPE_CHECKING:
    from klyng_mp.transports.contract import Poller, Sink

__all__ = ["MemoryHub", "MemoryTransport"]

_CAPACITY_BYTES = 208 * 1024  # what a unix socket holds by default, so that senders meet the same walls
_CLOSED = None  # stands in an inbox for the end of what a peer sends


class _Inbox:
    """What is on its way to one endpoint."""

    def __init__(self) -> None:
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.items: deque[tuple[int, Message | None]] = deque()
        self.size_bytes: dict[int, int] = {}  # by sender
        self.senders_waiting: set[int] = set()

    def ring(self) -> None:
        os.eventfd_write(self.doorbell, 1)


class MemoryHub:
    """Where the endpoints of one process find each other.

    Args:
        capacity_bytes: how much a receiver holds of one sender before that one has to wait.

    Threads: endpoints of different threads share it; it has its own lock.
    """

    def __init__(self, *, capacity_bytes: int = _CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self.lock = Lock()
        self.inboxes: dict[int, _Inbox] = {}

    def open_inbox(self, number: int) -> _Inbox:
        """Return a new inbox for an endpoint's number."""
        with self.lock:
            inbox = self.inboxes[number] = _Inbox()
            return inbox

    def close_inbox(self, number: int, inbox: _Inbox) -> list[int]:
        """Remove an inbox, so that nobody finds it any more; return who else is here."""
        with self.lock:
            if self.inboxes.get(number) is inbox:
                del self.inboxes[number]
            return list(self.inboxes)

    def put(self, sender: int, receiver: int, message: Message | None, size_bytes: int) -> bool | None:
        """Leave a message (or None for the sender's end); False if there is no room yet, None if nobody is there."""
        with self.lock:
            inbox = self.inboxes.get(receiver)
            if inbox is None:
                return None
            held = inbox.size_bytes.get(sender, 0)
            if held >= self.capacity_bytes and message is not None:
                inbox.senders_waiting.add(sender)
                return False
            inbox.size_bytes[sender] = held + size_bytes
            inbox.items.append((sender, message))
            inbox.ring()
            return True

    def take(self, inbox: _Inbox) -> list[tuple[int, Message | None]]:
        """Empty an inbox and call the senders that waited for room."""
        with self.lock:
            items = list(inbox.items)
            inbox.items.clear()
            inbox.size_bytes.clear()
            for sender in inbox.senders_waiting:
                if sender in self.inboxes:
                    self.inboxes[sender].ring()
            inbox.senders_waiting.clear()
            return items


class _Queued(Ticket):
    """A message that waits for room in its receiver's inbox."""

    __slots__ = ("message", "outbox", "size_bytes")

    def __init__(self, message: Message, outbox: deque[_Queued], size_bytes: int) -> None:
        super().__init__()
        self.message = message
        self.outbox = outbox
        self.size_bytes = size_bytes

    def withdraw(self) -> bool:
        if self.started or self.error is not None:
            return False
        self.outbox.remove(self)
        return True

    def keep(self) -> None:
        self.message = _copy(self.message)


class MemoryTransport:
    """A transport through a `MemoryHub`.

    Args:
        sink: gets messages and losses.
        poller: watches the doorbell.
        hub: shared with the peers.
        number: this endpoint's.
    """

    def __init__(self, sink: Sink, poller: Poller, *, hub: MemoryHub, number: int) -> None:
        self._sink = sink
        self._poller = poller
        self._hub = hub
        self._number = number
        self._inbox: _Inbox | None = hub.open_inbox(number)
        self._outboxes: dict[int, deque[_Queued]] = {}
        self._met: set[int] = set()  # with whom messages were exchanged
        self._parted: set[int] = set()  # who was told, or has told, that it is over; a further message begins anew
        self._messages_sent = self._messages_received = 0
        self._bytes_sent = self._bytes_received = 0
        self._traffic: dict[int, tuple[int, int]] = {}
        poller.register(self._inbox.doorbell, EPOLLIN, self._react)

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        if self._inbox is None:
            raise ClosedError("this transport is closed")
        size = sum(map(len, pack_frame(message)))
        self._messages_sent += 1
        outbox = self._outboxes.setdefault(peer, deque())
        ticket = _Queued(message, outbox, size)
        outbox.append(ticket)
        self._meet(peer)
        self._flush(peer)
        if ticket.done:
            return SENT
        if copy:
            ticket.keep()
        return ticket

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        del peer  # one inbox holds what came from all
        self._receive()

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        outboxes = self._outboxes.values() if peer is None else [self._outboxes.get(peer, deque())]
        return sum(ticket.size_bytes for outbox in outboxes for ticket in outbox)

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`."""
        del dead  # a closed connection harms nobody
        if peer not in self._parted:
            self._parted.add(peer)
            self._met.discard(peer)
            self._drop(peer, "was disconnected from")
            self._hub.put(self._number, peer, _CLOSED, 0)

    def close(self) -> None:
        """See `Transport.close`."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            for peer in self._hub.close_inbox(self._number, inbox):
                self.disconnect(peer)
            self._met.clear()
            self._poller.unregister(inbox.doorbell)
            os.close(inbox.doorbell)

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            self._hub.inboxes.pop(self._number, None)  # without the lock, which another thread may hold for ever
            os.close(inbox.doorbell)

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return TransportStatistics(
            self._messages_sent, self._messages_received, self._bytes_sent, self._bytes_received, len(self._met)
        )

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return dict(self._traffic)

    def _react(self, _events: int) -> None:
        self._receive()
        for peer in list(self._outboxes):
            self._flush(peer)

    def _receive(self) -> None:
        inbox = self._inbox
        if inbox is None:
            return
        try:
            os.eventfd_read(inbox.doorbell)
        except BlockingIOError:
            return
        for peer, message in self._hub.take(inbox):
            if message is None:
                self._end(peer, "closed its connection")
            else:
                self._meet(peer)
                self._messages_received += 1
                self._bytes_received += message.nbytes
                self._sink.deliver(peer, message)

    def _flush(self, peer: int) -> None:
        outbox = self._outboxes.get(peer, deque())
        while outbox:
            ticket = outbox[0]
            taken = self._hub.put(self._number, peer, _copy(ticket.message), ticket.size_bytes)
            if taken is None:
                self._receive()  # what it said last
                self._end(peer, "closed its connection")
                return
            if not taken:
                return
            self._bytes_sent += ticket.size_bytes
            messages, size = self._traffic.get(peer, (0, 0))
            self._traffic[peer] = messages + 1, size + ticket.size_bytes
            outbox.popleft()
            ticket.done = ticket.started = True

    def _meet(self, peer: int) -> None:
        self._met.add(peer)
        self._parted.discard(peer)

    def _end(self, peer: int, reason: str) -> None:
        if peer not in self._parted:
            self._parted.add(peer)
            self._met.discard(peer)
            self._drop(peer, reason)
            self._sink.lost(peer, reason)

    def _drop(self, peer: int, reason: str) -> None:
        for ticket in self._outboxes.pop(peer, ()):
            ticket.error = PeerLostError(peer, reason)


def _copy(message: Message) -> Message:
    return Message(
        message.context,
        message.source,
        message.tag,
        message.incarnation,
        message.code,
        message.head,
        [bytearray(buffer) for buffer in message.buffers],
    )
