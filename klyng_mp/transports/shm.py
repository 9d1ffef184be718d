"""Messages between the ranks of one host: rings in shared memory, and a bell for each rank.

Layer: transports; needs `klyng_mp.native.core`, which serves the rings. Who writes what in them, and in which order, is
told in ``klyng_mp/_core/port.c``.

A `Segment` is made by whoever brings the ranks to life: one memfd, which has no name and so cannot be left behind, and
one eventfd a rank, its bell. Each rank is given the memfd and its own bell. Where it finds a peer asleep whose bell it
does not have, it asks for the peer to be rung, and is sent the bell in answer; so a rank has only those that it uses.

Invariants: what a peer wrote before its end is delivered before its end is told; a message is in the ring whole, or
its rest is in the outbox of its peer and follows in order.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from collections import deque
from contextlib import suppress
from functools import cache
from select import EPOLLIN
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from klyng_mp.errors import ClosedError, PeerLostError
from klyng_mp.native import core
from klyng_mp.transports.contract import SENT, Ticket, TransportStatistics
from klyng_mp.wire.frames import check_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp._core import Parcel
    from klyng_mp.transports.contract import Poller, Sink
    from klyng_mp.wire.frames import Message

__all__ = ["Segment", "ShmTransport"]

_RINGS_BYTES = 64 * 1024 * 1024  # of all rings together, once all have been used; only then are they real memory
_LARGEST_RING = 1024 * 1024
_SMALLEST_RING = 4096  # below a page nothing is saved
_RECORD_BYTES = 40
_NO_MEMORY = 71  # EX_OSERR of sysexits.h


def ring_size(ranks: int) -> int:
    """Return the bytes of one ring in a World of so many ranks: a power of two."""
    share = _RINGS_BYTES // (ranks * ranks)
    return min(_LARGEST_RING, max(_SMALLEST_RING, 1 << (share.bit_length() - 1 if share else 0)))


class Segment:
    """The shared memory of a World's ranks on this host, and their bells.

    Args:
        ranks: how many.
        ring: the bytes of one ring, a power of two; None: what suits a World, in which all talk to all.

    Raises:
        OSError: no descriptors are left; none has been kept.

    Attributes:
        fd: the memfd.
        bells: the eventfd of each rank.
    """

    def __init__(self, ranks: int, *, ring: int | None = None) -> None:
        self.bells: list[int] = []
        ring = ring or ring_size(ranks)
        self.fd = os.memfd_create("klyng_mp", os.MFD_CLOEXEC)
        try:
            try:
                os.ftruncate(self.fd, core.segment_size(ranks, ring, True))
            except OSError:  # files may not be that large (RLIMIT_FSIZE): then large buffers go in pieces
                os.ftruncate(self.fd, core.segment_size(ranks, ring, False))
            for _ in range(ranks):
                self.bells.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        except BaseException:
            self.close()
            raise

    def ring(self, rank: int) -> None:
        """Wake a rank."""
        ring_bell(self.bells[rank])

    def note_end(self, rank: int, incarnation: int) -> None:
        """Let the others see that an occupant of a place has ended, whether they have been told of it or not."""
        os.pwrite(self.fd, incarnation.to_bytes(4, sys.byteorder), core.place_of_end(rank))

    def close(self) -> None:
        """Close the descriptors; ranks that were given theirs keep them."""
        for fd in (self.fd, *self.bells):
            os.close(fd)
        self.bells.clear()


def ring_bell(bell: int) -> None:
    """Wake the rank whose bell this is."""
    with suppress(BlockingIOError):  # it has been rung 2**64 times
        os.eventfd_write(bell, 1)


class _Outbox(deque["_Queued"]):
    """The messages for a peer that wait for room in its ring.

    Attributes:
        size_bytes: what of them has not left.
    """

    size_bytes = 0


class _Queued(Ticket):
    """A message of which a part has not found room yet."""

    __slots__ = ("outbox", "parcel", "size_bytes")

    def __init__(self, parcel: Any, outbox: _Outbox) -> None:
        super().__init__()
        self.parcel = parcel
        self.outbox = outbox
        self.size_bytes = 0
        outbox.append(self)
        self.measure()

    def measure(self) -> None:
        """Take note of what has left."""
        self.started = self.parcel.started
        left = 0 if self.done else int(self.parcel.left) + (0 if self.started else _RECORD_BYTES)
        self.outbox.size_bytes += left - self.size_bytes
        self.size_bytes = left

    def withdraw(self) -> bool:
        if self.started or self.error is not None:
            return False
        self.outbox.remove(self)
        self.outbox.size_bytes -= self.size_bytes
        self.parcel = None  # its slabs are free again
        return True

    def keep(self) -> None:
        if not self.done and self.error is None:
            self.parcel.keep()  # `left` stays as it is


class ShmTransport:
    """A transport through the rings of a `Segment`.

    Args:
        sink: gets messages and losses; its number is the rank.
        poller: watches the bell, and asks before it sleeps.
        place: (descriptor of the segment, own bell, ranks, own rank, incarnation); owns the two descriptors.
        spin: whether a core is free to wait on, for as long as waking up would take.
        call: is asked to ring the bell of a peer, and to have `learn_bell` called with it, at once or later.
        progress: has done what is due at the poller; takes the endpoint's lock itself.

    Raises:
        OSError: the memory cannot be mapped; nothing is left.
    """

    def __init__(
        self,
        sink: Sink,
        poller: Poller,
        *,
        place: tuple[int, int, int, int, int],
        spin: bool,
        call: Callable[[int], None],
        progress: Callable[[], None],
    ) -> None:
        fd, self._bell, ranks, rank, incarnation = place
        self._sink = sink
        self._poller = poller
        self._call = call
        self._outboxes: dict[int, _Outbox] = {}
        self._open: set[int] = set()
        self._alerted: set[int] = set()  # peers to whom what is queued is to be shown although they may compute
        self._parted: set[int] = set()  # whose end was told, or who was told of ours
        self._bells: dict[int, int] = {}
        self._closed = False
        try:
            self.port = core.Port(fd, ranks, self.ring_size(ranks), rank, incarnation, spin, progress)
        except BaseException:
            os.close(self._bell)
            raise
        finally:
            os.close(fd)
        self.port.set_bell(rank, self._bell)
        _watch_forks()
        _PORTS.add(self.port)
        poller.register(self._bell, EPOLLIN, self._react)
        poller.attend(self._bell, self._is_quiet)

    @staticmethod
    def ring_size(ranks: int) -> int:
        """Return the bytes of a ring of the segment, as it was made with."""
        return ring_size(ranks)

    def learn_bell(self, peer: int, bell: int) -> None:
        """Ring a peer by this eventfd from now on, and own it."""
        if self._closed or peer in self._bells:
            os.close(bell)
            return
        self._bells[peer] = bell
        self.port.set_bell(peer, bell)

    def alert(self, peer: int) -> None:
        """Ring a peer's bell although it may not sleep: then who serves its descriptors while it computes looks, too.

        What is queued for it is shown to it likewise, once there is room.
        """
        if self._closed or not self._is_peer(peer):
            return
        if self._outboxes.get(peer):
            self._alerted.add(peer)
        bell = self._bells.get(peer)
        if bell is None:
            self._call(peer)
        else:
            ring_bell(bell)

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        if self._closed:
            raise ClosedError("this transport is closed")
        if type(message.tag) is not int or message.buffers:
            check_limits(message)
        outbox = self._outboxes.get(peer)
        if outbox:
            parcel: Parcel | None = self.port.pack(peer, message)
        else:
            parcel = self.port.send(peer, message)
            if self.port.due:
                self._ring()
            if parcel is None:
                if peer not in self._open:
                    self._meet(peer, message.incarnation)
                return SENT
            if outbox is None:
                outbox = self._outboxes[peer] = _Outbox()
        self._shut(peer)
        self._parted.discard(peer)
        ticket = _Queued(parcel, outbox)
        if copy:
            ticket.keep()
        return ticket

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        if not self._closed and self._is_peer(peer):
            while self._receive(peer):
                pass

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        if peer is None:
            return sum(outbox.size_bytes for outbox in self._outboxes.values())
        outbox = self._outboxes.get(peer)
        return 0 if outbox is None else outbox.size_bytes

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`."""
        if not self._closed and self._is_peer(peer) and peer not in self._parted:
            self._part_from(peer, "was disconnected from")
            self.port.leave(peer, not dead)
            self._ring()
        if dead:
            self._parted.discard(peer)  # whoever comes next has not been told anything

    def close(self) -> None:
        """See `Transport.close`."""
        if not self._closed:
            for peer in range(self.port.size):
                self.disconnect(peer)
            self._poller.unregister(self._bell)
            self._release()

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        if not self._closed:
            self._release()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        port = self.port
        return TransportStatistics(
            port.messages_sent, port.messages_received, port.bytes_sent, port.bytes_received, port.connections()
        )

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return self.port.traffic()

    # -- inside

    def _is_peer(self, peer: int) -> bool:
        return bool(0 <= peer < self.port.size and peer != self.port.rank)

    def _is_quiet(self, before_sleep: bool) -> bool:
        """Whether nothing is due; then, before a sleep, peers are told to ring the bell."""
        if self._closed:
            return True
        port = self.port
        if before_sleep:
            return not port.spin() and bool(port.prepare_sleep())
        return not bool(port.has_news())

    def _react(self, _events: int) -> None:
        if self._closed:
            return
        try:  # noqa: SIM105 - every wake-up comes by here
            os.eventfd_read(self._bell)
        except BlockingIOError:  # nobody rang; something is due all the same
            pass
        self._receive(None)
        if self._outboxes:
            for peer, outbox in list(self._outboxes.items()):
                self._flush(peer, outbox)

    def _receive(self, peer: int | None) -> int:
        messages = self.port.read(peer)
        for message in messages:
            self._sink.deliver(message.source, message)
        if self.port.due:
            self._ring()
        self._tell_endings()
        return len(messages)

    def _tell_endings(self) -> None:
        if self.port.endings:
            for ended, reason in self.port.take_endings():
                if ended not in self._parted:
                    self._part_from(ended, reason)
                    self._sink.lost(ended, reason)

    def _flush(self, peer: int, outbox: _Outbox) -> None:
        while outbox:
            ticket = outbox[0]
            ticket.done = self.port.push(peer, ticket.parcel) is None
            ticket.measure()
            if self.port.due:
                self._ring()
            if peer in self._alerted:
                self.alert(peer)
            if not ticket.done:
                return
            outbox.popleft()
        self._outboxes.pop(peer, None)
        self._alerted.discard(peer)

    def _ring(self) -> None:
        """Have those peers woken who sleep and whose bells are not known."""
        while (peer := self.port.next_due()) is not None:
            self._call(peer)
            self.port.rung(peer)

    def _meet(self, peer: int, incarnation: int) -> None:
        self._open.add(peer)
        self._parted.discard(peer)
        self.port.open(peer, incarnation)

    def _shut(self, peer: int) -> None:
        """Let nothing overtake what is queued."""
        if peer in self._open:
            self._open.discard(peer)
            self.port.shut(peer)

    def _part_from(self, peer: int, reason: str) -> None:
        self._parted.add(peer)
        self._alerted.discard(peer)
        self._shut(peer)
        for ticket in self._outboxes.pop(peer, ()):
            ticket.error = PeerLostError(peer, reason)
            ticket.parcel = None  # its slabs are free again, unless a part of it has left

    def _release(self) -> None:
        self._closed = True
        self.port.release()
        for bell in (self._bell, *self._bells.values()):
            os.close(bell)
        self._bells.clear()


# What was received through shared memory must not be shared with a forked child: see _core/slab.c. The parent waits
# while the child copies, by reading from a pipe until the child has closed its end, or has ended.
_PORTS: WeakSet[Any] = WeakSet()
_pipes: dict[int, tuple[int, int]] = {}  # of threads that fork


@cache
def _watch_forks() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_privatize)


def _before_fork() -> None:
    if any(port.living_bytes for port in _PORTS):
        _pipes[get_ident()] = os.pipe()


def _after_fork() -> None:
    if (pipe := _pipes.pop(get_ident(), None)) is not None:
        ours, theirs = pipe
        try:
            os.close(theirs)
            os.read(ours, 1)
        finally:
            os.close(ours)


def _privatize() -> None:
    try:
        for port in list(_PORTS):
            port.privatize()
    except OSError as error:
        # Exceptions of a fork's handlers are not raised; and this process must not go on with what it shares.
        os.write(2, f"klyng_mp: no memory for a forked process's copies of received data: {error}\n".encode())
        os._exit(_NO_MEMORY)
    for pipe in _pipes.values():
        for fd in pipe:
            os.close(fd)
    _pipes.clear()
