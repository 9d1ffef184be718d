"""What arrives through MPI: one side's receives, and the order in which they are delivered.

Layer: transports; see `klyng_mp.transports.mpi`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

from klyng_mp.transports.mpi_messages import Coming, LandingPlace, content_of, open_front, read_frame
from klyng_mp.transports.mpi_sending import CLEAR, CLEARANCE, COLLECTIVE, OTHERS, Comms, MpiSender
from klyng_mp.wire.blocks import allocate
from klyng_mp.wire.codec import PICKLE
from klyng_mp.wire.frames import CONTROL, FrameReader, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from klyng_mp.transports.contract import Sink
    from klyng_mp.transports.mpi_sending import Way

__all__ = ["MpiReceiver"]

_AT_ONCE = 256  # messages that are taken before others have their turn


class MpiReceiver(MpiSender):
    """One side's messages in and out; see `MpiSender` for what goes out.

    Args:
        sink: gets the messages.
        comms: in which this side receives.
        peers: how each of the others is reached, by number.
        context: of the communicator of all ranks; see `MpiSender`.

    Attributes:
        comms: likewise.
        status: what MPI tells of a message in; only for who holds the lock or is the only thread.
        any_rank, any_tag: what MPI takes for any.
        unwrap: returns the tag and the pickle of the object that went as one pickle; see `MpiSender.half`.
    """

    unwrap: Callable[[bytes | bytearray], tuple[int, bytes]]

    def __init__(self, sink: Sink, comms: Comms, peers: Mapping[int, Way], context: int) -> None:
        self.comms = comms
        super().__init__(int(sink.number), peers, context)  # type: ignore[attr-defined]  # the endpoint's
        self._sink = sink
        self.status = self._mpi.Status()
        self.any_rank, self.any_tag = int(self._mpi.ANY_SOURCE), int(self._mpi.ANY_TAG)
        self._reader = FrameReader()
        self._bytes_received = 0

    def _begin(self) -> None:
        super()._begin()
        self._coming: dict[int, deque[Coming]] = {}
        self._landing: LandingPlace | None = None
        self._received: list[defaultdict[int, int]] = [defaultdict(int) for _ in range(3)]

    def _obey(self, message: Message) -> None:
        """Take a control message."""
        raise NotImplementedError

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
                coming.settle_in(landing, self.status)

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

    def take_bare(self, lane: int, source: int, tag: int, data: bytes) -> None:
        """Take a bare pickle, also one that the short way has met."""
        self._bytes_received += len(data)
        self._deliver(Coming(lane, Message(self._context | lane, source, tag, 0, PICKLE, data, ())))

    # -- inside

    def _take_from(self, lane: int) -> Iterator[tuple[int, bytearray]]:
        mpi, status, comm = self._mpi, self.status, self.comms[lane]
        for _ in range(_AT_ONCE):
            found = comm.Improbe(self.any_rank, self.any_tag, status)
            if found is None:
                return
            source, tag, data = status.Get_source(), status.Get_tag(), bytearray(status.Get_count(mpi.BYTE))
            found.Recv((data, mpi.BYTE))
            content = content_of(data)
            if content is not None:
                yield source, content
            elif lane == OTHERS and tag == CLEAR:
                self._lend(*CLEARANCE.unpack(data))
            elif lane == COLLECTIVE and tag >= self.half:
                self.take_bare(lane, source, *self.unwrap(data))
            else:
                self.take_bare(lane, source, tag, bytes(data))

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
        self.clear(message.source, number, tag)

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
