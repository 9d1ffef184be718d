"""What leaves through MPI: one side's sends, and whom it has parted from.

Layer: transports; see `klyng_mp.transports.mpi`.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from klyng_mp.errors import ClosedError, PeerLostError
from klyng_mp.transports.contract import SENT, Ticket
from klyng_mp.transports.mpi_messages import Sending, pack_message
from klyng_mp.wire.frames import CONTROL, Message, check_limits, pack_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from klyng_mp.transports.mpi_natives import MpiNatives

__all__ = [
    "BEFORE",
    "BYE",
    "CLEAR",
    "CLEARANCE",
    "COLLECTIVE",
    "OTHERS",
    "USERS",
    "Comms",
    "MpiSender",
    "Passed",
    "Way",
]

_INLINE_BYTES = 64 * 1024  # of buffers that go within the frame
_UNBUFFERED_BYTES = 64 * 1024  # for a peer, of small messages, whose senders go on although MPI has not copied them

CLEAR = 1  # MPI's tag, in the communicator for others, of what asks for the buffers of a message: no frame
# The tag of the last control message, which tells how many messages came before it in the first two communicators, and
# how many of MPI's collectives had been begun.
BYE = "bye"
CLEARANCE = struct.Struct("<IQI")  # the receiver, the sender's number, and the receiver's tag for the buffers
BEFORE = struct.Struct("<QQQ")

USERS, COLLECTIVE, OTHERS = range(3)  # the communicators in which messages are looked for

_left: list[Sending] = []  # of sides that are closed: MPI may still read their memory


class Comms(NamedTuple):
    """Communicators of MPI with the same ranks.

    Attributes:
        users: for the messages of the communicator of all ranks.
        collective: for those of its collectives.
        others: for all other contexts.
        buffers: for large buffers.
        natives: for MPI's own collectives.
    """

    users: Any
    collective: Any
    others: Any
    buffers: Any
    natives: Any

    @classmethod
    def of(cls, comm: Any) -> Comms:
        """Return communicators of the same ranks; all of them make the call."""
        return cls(*(comm.Dup() for _ in cls._fields))

    def free(self) -> None:
        """Free them, of which MPI has no more than some hundreds; all of their ranks make the call."""
        for comm in self:
            comm.Free()


class Way(NamedTuple):
    """How a peer is reached.

    Attributes:
        comms: the communicators in which it receives.
        rank: its rank in them.
    """

    comms: Comms
    rank: int


class Passed(Protocol):
    """What lets messages past a transport, and counts them.

    Attributes:
        shut: none may be received so.
    """

    shut: bool

    def sent(self, peer: int, /) -> int:
        """Return how many went to a peer."""

    def received(self, peer: int, /) -> int:
        """Return how many came from it."""


class _Nothing:
    shut = True

    def sent(self, _peer: int, /) -> int:
        return 0

    received = sent


class MpiSender:
    """One side's messages on their way out.

    Args:
        number: its own.
        peers: how each of the others is reached, by number.
        context: of the communicator of all ranks, which has `Comms.users` to itself, and `Comms.collective` for its
            collectives.

    Attributes:
        rank: likewise.
        most: the largest tag that MPI has for a message of a user's.
        half: in the communicator for collectives, whose tags are beyond bounds, those up to here are MPI's own; a
            larger one goes within the message, under what is left of it above this.
        passed: what counts the messages that went past this transport, or came, by communicator.
        natives: the collectives that go past it.
    """

    natives: MpiNatives

    def __init__(self, number: int, peers: Mapping[int, Way], context: int) -> None:
        from mpi4py import MPI  # noqa: PLC0415 - to import it is to start MPI

        self._mpi = MPI
        self.rank = number
        self._peers = peers
        self._context = context
        # The last one is for all that are no such numbers.
        self.most = int(MPI.COMM_WORLD.Get_attr(MPI.TAG_UB) or 0) - 1
        self.half = (self.most + 1) // 2
        self._number = 0
        self._begin()
        self._traffic: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])  # what has left whole
        self._closed = False

    def _begin(self) -> None:
        """Begin afresh, with nobody parted from and nothing on its way."""
        self._sending: list[Sending] = []
        self.passed: list[Passed] = [_Nothing(), _Nothing(), _Nothing()]
        self._sent: list[defaultdict[int, int]] = [defaultdict(int) for _ in range(3)]
        self._unbuffered: defaultdict[int, int] = defaultdict(int)  # bytes that MPI reads here, of sends that are over
        self._parted: set[int] = set()
        self._asking: list[Any] = []  # requests of what asks for buffers, and MPI has not taken yet

    @property
    def size(self) -> int:
        """How many sides there are."""
        return len(self._peers) + 1

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        if self._closed:
            raise ClosedError("this transport is closed")
        _, views = check_limits(message)
        size = sum(view.nbytes for view in views)
        large = size > _INLINE_BYTES
        number = 0
        if large:
            self._number = number = self._number + 1
            context, source, tag = message.context, message.source, message.tag
            front = Message(context, source, tag, message.incarnation, message.code, message.head, ())
            data = pack_message(number, [view.nbytes for view in views], pack_frame(front))
        else:
            data = pack_message(0, [], pack_frame(message))
        lane, tag = self._lane_of(message.context, message.tag)
        way = self._peers[peer]
        request = way.comms[lane].Isend((data, self._mpi.BYTE), way.rank, tag)
        if message.context != CONTROL:
            self._sent[lane][peer] += 1
            self._parted.discard(peer)
        ticket = Sending(peer, number, request, len(data), counts=message.context != CONTROL)
        if large:
            ticket.take(list(map(bytes, views)) if copy else list(views), size)
        if self._is_gone(ticket):
            return SENT
        self._sending.append(ticket)
        if large or self._unbuffered[peer] + ticket.size_bytes > _UNBUFFERED_BYTES:
            return ticket
        ticket.is_in_hand = True
        self._unbuffered[peer] += ticket.size_bytes
        return SENT

    def tell(self, peer: int, tag: str, content: bytes = b"") -> None:
        """Send a control message to a peer."""
        self.send(peer, Message(CONTROL, self.rank, tag, 0, 0, content, ()), copy=True)

    def clear(self, peer: int, number: int, tag: int) -> None:
        """Ask a peer for the buffers of a message of its, which are received under a tag."""
        way = self._peers[peer]
        said = way.comms[OTHERS].Isend((CLEARANCE.pack(self.rank, number, tag), self._mpi.BYTE), way.rank, CLEAR)
        self._asking = [one for one in self._asking if not one.Test()]
        if not said.Test():
            self._asking.append(said)

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        return sum(
            one.size_bytes
            for one in self._sending
            if not (one.done or one.is_in_hand or one.peer in self._parted) and (peer is None or one.peer == peer)
        )

    def say_goodbye(self, peer: int) -> None:
        """Tell a peer that nothing follows; what it sends is still received."""
        before = [self._sent[lane][peer] + self.passed[lane].sent(peer) for lane in (USERS, COLLECTIVE)]
        self.tell(peer, BYE, BEFORE.pack(*before, self.natives.begun))

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return {peer: (count, size) for peer, (count, size) in self._traffic.items()}

    # -- inside

    def _lane_of(self, context: int, tag: int | str) -> tuple[int, int]:
        """Return the communicator of MPI, and the tag there, for messages of a context and tag."""
        if context | 1 != self._context | 1:
            return OTHERS, 0
        if not isinstance(tag, int):
            return context & 1, self.most + 1
        if context & 1 == COLLECTIVE:
            return COLLECTIVE, tag if tag < self.half else self.half + tag % self.half
        return USERS, min(tag, self.most + 1)

    def _is_gone(self, ticket: Sending) -> bool:
        """Whether MPI has all of a message; then it is counted."""
        if not ticket.advance():
            return False
        if ticket.is_in_hand:
            self._unbuffered[ticket.peer] -= ticket.size_bytes
        if ticket.counts:
            counts = self._traffic[ticket.peer]
            counts[0] += 1
            counts[1] += ticket.size_bytes
        return True

    def _lend(self, peer: int, number: int, tag: int) -> None:
        """Let the buffers of a message go, for which a peer has made room."""
        way = self._peers[peer]

        def send(buffer: Any) -> Any:
            return way.comms.buffers.Isend((buffer, self._mpi.BYTE), way.rank, tag)

        for ticket in self._sending:
            if ticket.number == number and ticket.peer == peer:
                ticket.lend(send)

    def _part_from(self, peer: int, reason: str) -> None:
        self._parted.add(peer)
        for ticket in [one for one in self._sending if one.peer == peer and one.number]:
            self._sending.remove(ticket)
            _left.append(ticket)
            ticket.give_up(PeerLostError(peer, reason))

    def _leave_rest(self) -> None:
        """Keep the memory of what MPI has not sent, when this side is closed."""
        _left.extend(self._sending)
        self._sending = []


def forget_sent() -> None:
    """Give back the memory of messages that sides had left to MPI, and that it has sent since."""
    _left[:] = [one for one in _left if not one.advance()]
