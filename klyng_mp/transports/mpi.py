"""Messages through MPI: between ranks that an MPI launcher has brought to life.

Layer: transports; the only part of klyng_mp, beside the room `cluster`, that calls MPI.

A message goes as one message of MPI, on the communicator of its context (`Comms`), under its own tag if that is a
number which MPI has, so that MPI's matching is ours. Its bytes are a frame within a pickle, of which `pickle` makes a
`Frame` again: the short way (`klyng_mp.cluster.lane`), which sends bare pickles under the same tags, may meet one
where it receives. What arrives here as a bare pickle becomes a message of the codec's kind PICKLE.

Large buffers wait for their receiver: the frame tells their sizes; the receiver posts what they are to be received into
and says so (`CLEAR`); then they go, each as a message of MPI, on a communicator of their own, under a number that the
receiver has chosen. Until then they are the sender's, who may want to copy them and go on.

MPI has no descriptor to sleep on. So who waits looks again and again: at once, or after giving the processor to others,
as long as that was not in vain for a while, and then every millisecond.

Invariants: what a peer sent is delivered in its order, also where a large message is followed by small ones; MPI is
called with the endpoint's lock held.
"""

from __future__ import annotations

import os
import pickle
from collections import defaultdict, deque
from operator import ge
from typing import TYPE_CHECKING

from klyng_mp.transports.contract import TransportStatistics
from klyng_mp.transports.mpi_messages import Coming, LandingPlace, Patience, content_of, open_front, read_frame
from klyng_mp.transports.mpi_sending import (
    BEFORE,
    BYE,
    CLEAR,
    CLEARANCE,
    COLLECTIVE,
    USERS,
    Comms,
    MpiSender,
    Way,
    forget_sent,
)
from klyng_mp.wire.blocks import allocate
from klyng_mp.wire.codec import PICKLE
from klyng_mp.wire.frames import CONTROL, FrameReader, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from klyng_mp.transports.contract import Poller, Sink

__all__ = ["MpiTransport"]

_AT_ONCE = 256  # messages that are taken before others have their turn


class MpiTransport(MpiSender):
    """A transport through MPI; see `MpiSender` for `send` and what it counts.

    Args:
        sink: gets messages and losses.
        poller: is had to look again and again while it sleeps.
        comms: in which this side receives.
        peers: how each of the others is reached, by number.
        context: of the communicator of all ranks, which has `Comms.users` to itself, and `Comms.collective` for its
            collectives.
        spin: whether a core is free to wait on.

    Attributes:
        comms: likewise.
        hear: is given the messages of the context CONTROL that are not for this transport.
    """

    def __init__(
        self,
        sink: Sink,
        poller: Poller,
        *,
        comms: Comms,
        peers: Mapping[int, Way],
        context: int,
        spin: bool,
    ) -> None:
        super().__init__(int(sink.number), peers, context)  # type: ignore[attr-defined]  # the endpoint's
        self.comms = comms
        self.hear: Callable[[Message], None] = _ignore
        self._status = self._mpi.Status()
        self._reader = FrameReader()
        self._sink = sink
        self._poller = poller
        self._patience = Patience(spin=spin)
        self._bytes_received = 0
        # The poller knows this transport by a descriptor, at which nothing ever shows.
        self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poller.register(self._handle, 0, self._react)
        poller.attend(self._handle, self._is_quiet)
        poller.pace(self._patience.pause)

    def _begin(self) -> None:
        super()._begin()
        self._coming: dict[int, deque[Coming]] = {}
        self._landing: LandingPlace | None = None
        self._received: list[defaultdict[int, int]] = [defaultdict(int) for _ in range(3)]
        self._leaving: dict[int, tuple[int, int]] = {}  # peers that have said goodbye, and what comes before that

    def enter(self, comms: Comms, peers: Mapping[int, Way], context: int) -> None:
        """Move messages through these from now on, and forget those of before; all sides do so."""
        self._leave_rest()
        forget_sent()
        self.comms, self._peers, self._context = comms, peers, context
        self._begin()

    # -- in

    def land(  # noqa: PLR0917 - as the core has it
        self, owner: object, source: int, context: int, tag: int, view: memoryview, head: bytes | None, /
    ) -> bool:
        """Put the next large message of a peer into a buffer of its size; see `klyng_mp._core.Port.land`."""
        if self._landing is not None:
            return False
        self._landing = LandingPlace(owner, (source, context), tag, view, head)
        return True

    def unland(self, owner: object, /) -> None:
        """Put nothing into this one's landing any more, if it has it."""
        landing = self._landing
        if landing is None or landing.owner is not owner:
            return
        self._landing = None
        for queue in self._coming.values():
            for coming in queue:
                coming.settle_in(landing, self._status)

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        del peer
        if not self._closed:
            self._react(0)

    def take(self, lane: int, source: int, data: bytes | bytearray) -> None:
        """Take a frame's content, also one that the short way has met; ``source`` is the sender's rank in MPI."""
        self._bytes_received += len(data)
        number, lengths, frame = open_front(data)
        message = read_frame(self._reader, frame)
        if message.context == CONTROL:
            self._obey(message)
            return
        coming = Coming(lane, message)
        if number:
            self._await_buffers(coming, lengths, number, source)
        self._deliver(coming)

    def has_arrived(self) -> bool:
        """Whether MPI has a message for this rank, or has taken one from it."""
        anybody, any_tag = self._mpi.ANY_SOURCE, self._mpi.ANY_TAG
        return (
            any(self.comms[lane].Iprobe(anybody, any_tag) for lane in range(3))
            or any(one.advance() for one in self._sending)
            or any(queue[0].is_here() for queue in self._coming.values())
        )

    def take_wrapped(self, source: int, tag: int, obj: object) -> None:
        """Take what came with its tag, also one that the short way has met."""
        self._take_bare(COLLECTIVE, source, tag, pickle.dumps(obj, pickle.HIGHEST_PROTOCOL))

    def _take_bare(self, lane: int, source: int, tag: int, data: bytes) -> None:
        self._bytes_received += len(data)
        self._deliver(Coming(lane, Message(self._context | lane, source, tag, 0, PICKLE, data, ())))

    # -- ends

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`; MPI has no connection to close."""
        if not self._closed and peer in self._peers and peer not in self._parted:
            if not dead:
                self.say_goodbye(peer)
            self._part_from(peer, "was disconnected from")

    def keep(self, peer: int) -> None:
        """Take note that a peer is there although it has said goodbye: another program has come to its rank."""
        self._leaving.pop(peer, None)

    def is_alone(self) -> bool:
        """Whether all peers have said goodbye, and MPI has all that was sent."""
        return not self._sending and self._parted.issuperset(self._peers)

    def close(self) -> None:
        """See `Transport.close`; what MPI has been given goes on."""
        if not self._closed:
            for peer in self._peers:
                self.disconnect(peer)
            self._sending = [one for one in self._sending if not one.advance()]
            self._release()

    def abandon(self) -> None:
        """See `Transport.abandon`; a forked child leaves MPI alone."""
        if not self._closed:
            self._release()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        met = {peer for counts in (*self._sent, *self._received) for peer, count in counts.items() if count}
        sent = _sum(self._sent) + sum(one.sent(peer) for one in self.passed for peer in self._peers)
        received = _sum(self._received) + sum(one.received(peer) for one in self.passed for peer in self._peers)
        bytes_sent = sum(size for _, size in self._traffic.values())
        return TransportStatistics(sent, received, bytes_sent, self._bytes_received, 0 if self._closed else len(met))

    # -- inside

    def _is_quiet(self, before_sleep: bool) -> bool:
        if self._closed:
            return True
        return not any(self.has_arrived() for _ in range(self._patience.looks if before_sleep else 1))

    def _react(self, _events: int) -> None:
        if self._closed:
            return
        self._patience.renew()
        for lane in range(3):
            for source, data in self._take_from(lane):
                self.take(lane, source, data)
        self._sending = [one for one in self._sending if not self._is_gone(one)]
        for source in list(self._coming):
            self._hand_on(source)
        for peer in list(self._leaving):
            self._see_off(peer)

    def _take_from(self, lane: int) -> Iterator[tuple[int, bytearray]]:
        mpi, status, comm = self._mpi, self._status, self.comms[lane]
        for _ in range(_AT_ONCE):
            found = comm.Improbe(mpi.ANY_SOURCE, mpi.ANY_TAG, status)
            if found is None:
                return
            source, tag, data = status.Get_source(), status.Get_tag(), bytearray(status.Get_count(mpi.BYTE))
            found.Recv((data, mpi.BYTE))
            content = content_of(data)
            if content is not None:
                yield source, content
            elif lane == COLLECTIVE and tag >= self.half:
                self.take_wrapped(source, *pickle.loads(data))  # noqa: S301 - of a rank, as what others send is
            else:
                self._take_bare(lane, source, tag, bytes(data))

    def _await_buffers(self, coming: Coming, lengths: Sequence[int], number: int, source: int) -> None:
        """Post what the buffers of a message are received into, and ask for them."""
        message, landing = coming.message, self._landing
        if landing is not None and landing.accepts(message, lengths):
            message.buffers = [landing.view]
        else:
            message.buffers = [allocate(length) for length in lengths]
        self._number += 1
        tag = self._number % self.most
        coming.receive(lambda one: self.comms.buffers.Irecv((one, self._mpi.BYTE), source, tag))
        self._bytes_received += sum(lengths)
        self.tell(message.source, CLEAR, CLEARANCE.pack(number, tag))

    def _obey(self, message: Message) -> None:
        peer = message.source
        if message.tag == BYE:
            self._leaving[peer] = BEFORE.unpack(message.head)
            self._see_off(peer)
        elif message.tag != CLEAR:
            self.hear(message)
        else:
            number, tag = CLEARANCE.unpack(message.head)
            self._lend(peer, number, tag)

    def _see_off(self, peer: int) -> None:
        """Tell that a peer is gone, if all that it sent before is delivered."""
        taken = [self._received[lane][peer] + self.passed[lane].received(peer) for lane in (USERS, COLLECTIVE)]
        if peer not in self._coming and all(map(ge, taken, self._leaving[peer])):
            del self._leaving[peer]
            if peer not in self._parted:
                self._part_from(peer, "closed its connection")
                self._sink.lost(peer, "closed its connection")

    def _deliver(self, coming: Coming) -> None:
        """Deliver a message, or let it wait for those of its sender that came before, and for its buffers."""
        source = coming.message.source
        queue = self._coming.get(source)
        if queue is None and not coming.requests:
            self._hand_over(coming)
            return
        if queue is None:
            queue = self._coming[source] = deque()
        queue.append(coming)
        self._shut()
        self._hand_on(source)

    def _hand_on(self, source: int) -> None:
        """Deliver those of a sender that are here, in their order."""
        queue = self._coming[source]
        while queue and queue[0].is_here():
            self._hand_over(queue.popleft())
        if not queue:
            del self._coming[source]
            self._shut()

    def _shut(self) -> None:
        """Let nothing past this transport that may come after what it has, and has not delivered yet."""
        for one in self.passed:
            one.shut = bool(self._coming)

    def _hand_over(self, coming: Coming) -> None:
        source = coming.message.source
        self._received[coming.lane][source] += 1
        self._sink.deliver(source, coming.message)

    def _release(self) -> None:
        self._closed = True
        self._leave_rest()
        self._poller.unregister(self._handle)
        os.close(self._handle)


def _ignore(message: Message) -> None:
    del message


def _sum(counts: list[defaultdict[int, int]]) -> int:
    return sum(sum(one.values()) for one in counts)
