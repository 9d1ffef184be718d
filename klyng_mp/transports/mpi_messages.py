"""What moves through MPI: a message as a pickle of its frame, one that has not left whole, one that is not all here.

Layer: transports; see `klyng_mp.transports.mpi`.
"""

from __future__ import annotations

import os
import struct
from time import perf_counter
from typing import TYPE_CHECKING, Any

from klyng_mp.transports.contract import Ticket
from klyng_mp.wire.blocks import allocate
from klyng_mp.wire.codec import BARE
from klyng_mp.wire.mailbox import ANY_TAG, SYNCHRONOUS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.wire.frames import FrameReader, Message

__all__ = [
    "Coming",
    "Frame",
    "LandingPlace",
    "Patience",
    "Sending",
    "content_of",
    "open_front",
    "pack_message",
    "read_frame",
]

_LOOKS = 4000  # in one go for a large buffer that is on its way, which MPI moves by a part at each: about a millisecond

_PATIENCE_SECONDS = 0.02  # for which who waits looks again and again, where a core is free for it
_BRIEF_SECONDS = 0.0005  # and where there is none
_LOOKS_AT_ONCE = 16  # at once, as to come back here takes longer than a few of them
_IDLE_SECONDS = 1.0  # after which it is in no hurry any more
_LONG_PAUSE_SECONDS = 0.005
_PAUSE_SECONDS = 0.001  # between two looks afterwards

# A pickle that makes a Frame of the bytes in it: PROTO 4, GLOBAL, BINBYTES8, TUPLE1, REDUCE, STOP.
_PREFIX = b"\x80\x04cklyng_mp.transports.mpi_messages\nFrame\n\x8e"
_SUFFIX = b"\x85R."
_LENGTH = struct.Struct("<Q")
_FRONT = struct.Struct("<QI")  # the sender's number of a large message, and how many buffers follow
_FRONT_SIZE = len(_PREFIX) + _LENGTH.size


class Frame(bytes):
    """A message, as the short way receives it."""

    __slots__ = ()


class Sending(Ticket):
    """A message that MPI has not taken whole.

    Attributes:
        peer: its receiver.
        number: the sender's of a large message, else 0.
        counts: whether it is counted.
        is_in_hand: it is small, and its sender was told that it has left.
    """

    __slots__ = ("_buffers", "_is_lent", "_requests", "counts", "is_in_hand", "number", "peer", "size_bytes")

    def __init__(self, peer: int, number: int, request: Any, size_bytes: int, *, counts: bool) -> None:
        super().__init__()
        self.started = True
        self.peer = peer
        self.number = number
        self.size_bytes = size_bytes
        self.counts = counts
        self.is_in_hand = False
        self._requests = [request]
        self._buffers: list[Any] = []  # which nobody has asked for yet
        self._is_lent = False  # whether MPI reads the sender's own memory

    def take(self, buffers: list[Any], size_bytes: int) -> None:
        """Keep buffers that wait to be asked for."""
        self._buffers = buffers
        self.size_bytes += size_bytes

    def lend(self, send: Callable[[Any], Any]) -> None:
        """Let MPI have the buffers, by a function that returns a request for each."""
        buffers, self._buffers, self._is_lent = self._buffers, [], True
        self._requests += [send(one) for one in buffers if len(one)]

    def keep(self) -> None:
        """See `Ticket.keep`."""
        self._buffers = [bytes(one) for one in self._buffers]
        if self._is_lent:  # its receiver waits for it, so this takes no longer than its way
            for request in self._requests:
                request.Wait()

    def give_up(self, error: Exception) -> None:
        """Send the buffers no more."""
        self.error = error
        self._buffers = []
        self.is_in_hand = False

    def advance(self) -> bool:
        """Look whether MPI has all of it."""
        self._requests = _look(self._requests, _LOOKS if self._is_lent else 1)
        self.done = not self._requests and not self._buffers
        return self.done


class Coming:
    """A message that has arrived, but perhaps for its large buffers.

    Attributes:
        lane: which communicator of MPI it came by.
        message: itself.
        requests: of the buffers that are not here yet.
    """

    __slots__ = ("_post", "lane", "message", "requests")

    def __init__(self, lane: int, message: Message) -> None:
        self.lane = lane
        self.message = message
        self.requests: list[Any] = []
        self._post: Callable[[Any], Any] | None = None

    def receive(self, post: Callable[[Any], Any]) -> None:
        """Receive its buffers, by a function that returns a request for each."""
        self._post = post
        self.requests = [post(one) for one in self.message.buffers if len(one)]

    def is_here(self) -> bool:
        """Look whether all of it is."""
        self.requests = _look(self.requests, _LOOKS)
        return not self.requests

    def settle_in(self, place: LandingPlace, status: Any) -> None:
        """Take memory of its own if it has the landing's, into which MPI writes nothing afterwards.

        Args:
            place: the landing.
            status: MPI's, to be filled in.
        """
        if not self.message.buffers or self.message.buffers[0] is not place.view:
            return
        for request in self.requests:
            request.Cancel()
            request.Wait(status)  # where it came too late its sender is at it, so this takes no longer than its way
            if status.Is_cancelled() and self._post is not None:
                self.message.buffers = [allocate(place.view.nbytes)]
                self.receive(self._post)
                return
        self.requests = []
        self.message.buffers = [bytearray(place.view)]


class LandingPlace:
    """A buffer that the next message of a peer, with a context and a tag, may be received into."""

    __slots__ = ("head", "is_open", "origin", "owner", "tag", "view")

    def __init__(self, owner: object, origin: tuple[int, int], tag: int, view: memoryview, head: bytes | None) -> None:
        self.owner = owner
        self.origin = origin
        self.tag = tag
        self.view = view
        self.head = head
        self.is_open = True

    def accepts(self, message: Message, lengths: Sequence[int]) -> bool:
        """Whether a message is to be received here; the first that is meant closes it for others."""
        is_meant = (message.source, message.context) == self.origin and self.tag in (message.tag, ANY_TAG)
        if not self.is_open or not is_meant:
            return False
        self.is_open = False
        fits = list(lengths) == [self.view.nbytes] and message.code & ~SYNCHRONOUS in BARE
        return fits and self.head in (None, message.head)


class Patience:
    """For how long who waits looks again and again, before it sleeps between two looks.

    Args:
        spin: whether a core is free to wait on.

    Attributes:
        looks: how many to take at once.
    """

    def __init__(self, *, spin: bool) -> None:
        self.looks = _LOOKS_AT_ONCE if spin else 1
        self._seconds = _PATIENCE_SECONDS if spin else _BRIEF_SECONDS
        self._since: float | None = None

    def renew(self) -> None:
        """Take note that something has come."""
        self._since = None

    def pause(self, seconds: float) -> float:
        """Return for how long the poller may sleep before it asks again, of so many seconds."""
        now = perf_counter()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited > self._seconds:
            return min(seconds, _PAUSE_SECONDS if waited < _IDLE_SECONDS else _LONG_PAUSE_SECONDS)
        os.sched_yield()
        return 0.0


def _look(requests: list[Any], times: int) -> list[Any]:
    """Return which requests are not fulfilled, having looked at the first of those so often."""
    left = [one for one in requests if not one.Test()]
    for _ in range(times - 1):
        if not left:
            break
        if left[0].Test():
            del left[0]
    return left


def pack_message(number: int, lengths: Sequence[int], parts: Sequence[bytes | memoryview]) -> bytes:
    """Return a frame as a pickle."""
    front = _FRONT.pack(number, len(lengths)) + struct.pack(f"<{len(lengths)}Q", *lengths)
    size = len(front) + sum(len(part) for part in parts)
    return b"".join((_PREFIX, _LENGTH.pack(size), front, *parts, _SUFFIX))


def content_of(data: bytearray) -> bytearray | None:
    """Return what a pickle of a frame makes a frame of; None if it is one of another object."""
    return data[_FRONT_SIZE : -len(_SUFFIX)] if data.startswith(_PREFIX) else None


def open_front(data: bytes | bytearray) -> tuple[int, tuple[int, ...], memoryview]:
    """Return the sender's number of a large message, or 0, the lengths of its buffers, and the frame."""
    number, count = _FRONT.unpack_from(data)
    lengths = struct.unpack_from(f"<{count}Q", data, _FRONT.size)
    return number, lengths, memoryview(data)[_FRONT.size + 8 * count :]


def read_frame(reader: FrameReader, data: memoryview) -> Message:
    """Return the message of a whole frame."""
    while True:
        place = reader.buffer()
        count = min(len(place), len(data))
        place[:count] = data[:count]
        data = data[count:]
        if messages := reader.received(count):
            return messages[0]
