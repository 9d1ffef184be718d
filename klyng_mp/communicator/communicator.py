"""The communicator: what a rank's program sends and receives with.

Layer: communicator; encodes and decodes, checks what the user asks for, and leaves the rest to its endpoint.

Invariants: an object is encoded in the caller's thread before anything is sent, so a mistake is raised
where it is made; what is asked wrongly is refused before it has any effect.

Threads: all of it may be used by several threads at once. Collectives are the exception that MPI makes, too:
one at a time on a communicator, and in the same order on every rank.
"""

from __future__ import annotations

from itertools import count
from operator import index
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.communicator import collectives
from klyng_mp.communicator.express import NOT_YET, NOTHING, ExpressCodec, make_express
from klyng_mp.communicator.requests import ReceiveRequest, Request, SendRequest, SentRequest, Status
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError
from klyng_mp.wire.frames import LIMITS, Message
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.wire.frames import Part

__all__ = ["Communicator", "Encoder"]

_NEVER = Deadline(None)
_LARGEST_TAG = 2**63 - 1


class Encoder(ExpressCodec, Protocol):
    """What a communicator needs of a codec."""

    def encode(self, obj: object) -> tuple[int, bytes, list[memoryview]]:
        """Return the codec's code, head and buffers for an object."""

    def decode(self, code: int, head: bytes, buffers: Sequence[Part]) -> object:
        """Rebuild the object."""


class Communicator:
    """A group of ranks and a private context for their messages.

    Args:
        endpoint: this process's.
        codec: turns objects into bytes and back.
        context: its own; the odd number after it is for its collectives.
        rank: this process's number in the group.
        members: the endpoint's number of each rank.

    Attributes:
        rank: the number of this rank, from 0.
        size: how many ranks there are.
        next_call: returns the number of the next collective call: the same on all ranks, as they make the same calls.
    """

    __slots__ = ("_closed", "_ranks", "_short", "codec", "context", "endpoint", "members", "next_call", "rank", "size")

    def __init__(self, endpoint: Endpoint, codec: Encoder, *, context: int, rank: int, members: Sequence[int]) -> None:
        self.endpoint = endpoint
        self.codec = codec
        self.context = context
        self.rank = rank
        self.members = members
        self.size = len(members)
        self._ranks = {number: rank for rank, number in enumerate(members)}
        self.next_call = count().__next__
        self._short = make_express(endpoint, context, members, codec)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Communicator rank {self.rank} of {self.size}>"

    def close(self) -> None:
        """Say that this rank's program uses it no more: later calls raise ClosedError. May be called again."""
        self._closed = True
        self._short = None

    # -- point to point

    def send(self, obj: object, dest: int, tag: int | str = 0, *, timeout: float | None = None) -> None:
        """Send an object to a rank.

        Args:
            obj: anything that can be encoded; it may be changed as soon as this returns.
            dest: the receiver's rank; this rank's own is allowed.
            tag: an int from 0 to 2**63 - 1, or a str, for the receiver to choose by.
            timeout: seconds; 0 sends only what can be sent at once; None for no limit.

        Returns when all of it is in the receiver's memory or with the kernel; up to 64 KiB may also wait here.

        Raises:
            CodecError: the object cannot travel; nothing was sent.
            DeadlineError: nothing was sent if the error says so; else the rest follows and it is delivered.
            PeerLostError: the receiver is gone.
        """
        if self._short is not None and self._short.send(obj, dest, tag):
            return
        dest, tag = self._check_send("send", dest, tag)
        self.endpoint.send(
            self.members[dest],
            self._pack(obj, dest, tag),
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=f"send(dest={dest}, tag={tag!r})",
        )

    def recv(
        self,
        source: int = ANY_SOURCE,
        tag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> Any:
        """Receive an object: the first to arrive that matches. One sender's messages keep their order.

        Args:
            source: the sender's rank, or ANY_SOURCE.
            tag: the tag, or ANY_TAG.
            timeout: seconds; 0 receives only what is there; None for no limit.
            status: is filled in with the message's source, tag and size.

        Raises:
            DeadlineError: no such message came; nothing was taken.
            PeerLostError: the source, or with ANY_SOURCE every other rank, is gone; nothing was taken.
            CodecError: the object cannot be rebuilt here; the message is gone.
        """
        if self._short is not None and status is None:
            got = self._short.recv(source, tag)
            if got is NOT_YET and timeout is None and self.endpoint.nap():
                got = self._short.recv(source, tag)
            if got is not NOTHING and got is not NOT_YET:
                return self._unpack(got, None) if type(got) is Message else got
        number, tag = self._check_receive("recv", source, tag)
        message = self.endpoint.receive(
            self.context,
            number,
            tag,
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=_describe("recv", source, tag),
            among=self.members,
        )
        return self._unpack(message, status)

    def isend(self, obj: object, dest: int, tag: int | str = 0) -> Request:
        """Start to send an object and return at once; the object has been copied and may be changed.

        See `send`; the request's ``wait`` returns when the kernel has the message.
        """
        if self._short is not None and self._short.send(obj, dest, tag):
            return SentRequest(self.endpoint, dest, tag)
        dest, tag = self._check_send("isend", dest, tag)
        message = self._pack(obj, dest, tag)
        doing = f"isend(dest={dest}, tag={tag!r})"
        peer = self.members[dest]
        ticket = self.endpoint.start_send(peer, message, doing=doing)
        return SendRequest(self.endpoint, doing, peer, message, ticket)

    def irecv(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, status: Status | None = None) -> Request:
        """Post a receive and return at once; it matches before any receive that is posted later.

        See `recv`; the request's ``wait`` returns the object.
        """
        number, tag = self._check_receive("irecv", source, tag)
        doing = _describe("irecv", source, tag)
        receive = self.endpoint.start_receive(self.context, number, tag, doing=doing)
        return ReceiveRequest(
            self.endpoint, doing, receive, lambda message: self._unpack(message, status), self.members
        )

    def sendrecv(
        self,
        obj: object,
        dest: int,
        sendtag: int | str = 0,
        source: int = ANY_SOURCE,
        recvtag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> Any:
        """Send an object and receive another; both sides may do so at once, whatever the sizes.

        Raises:
            DeadlineError: as `send`, or, when the object was sent, as `recv`; the error says which.
            PeerLostError: as `send` and `recv`.
        """
        dest, sendtag = self._check_send("sendrecv", dest, sendtag)
        number, recvtag = self._check_receive("sendrecv", source, recvtag)
        deadline = Deadline(timeout)
        message = self._pack(obj, dest, sendtag)
        doing = f"sendrecv(dest={dest}, sendtag={sendtag!r}), sending"
        self.endpoint.send(self.members[dest], message, deadline=deadline, doing=doing)
        doing = f"sendrecv({_who(source)}, recvtag={_what(recvtag)}), receiving"
        received = self.endpoint.receive(
            self.context, number, recvtag, deadline=deadline, doing=doing, among=self.members
        )
        return self._unpack(received, status)

    def probe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, timeout: float | None = None) -> Status:
        """Wait for a message that matches, leave it there, and return what is known of it.

        Raises:
            DeadlineError, PeerLostError: as `recv`.
        """
        number, tag = self._check_receive("probe", source, tag)
        message = self.endpoint.wait_message(
            self.context,
            number,
            tag,
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=_describe("probe", source, tag),
            among=self.members,
        )
        return Status().describe(message, self._ranks[message.source])

    def iprobe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG) -> Status | None:
        """Look for a message that matches, leave it there, and return what is known of it, or None."""
        number, tag = self._check_receive("iprobe", source, tag)
        message = self.endpoint.peek(self.context, number, tag, doing=_describe("iprobe", source, tag))
        return None if message is None else Status().describe(message, self._ranks[message.source])

    # -- collectives

    def barrier(self, *, timeout: float | None = None) -> None:
        """Wait until all ranks have come here; see `collectives.barrier`."""
        collectives.barrier(self, timeout=timeout)

    def bcast(self, obj: Any = None, root: int = 0, *, timeout: float | None = None) -> Any:
        """Give the root's object to all ranks; see `collectives.bcast`."""
        return collectives.bcast(self, obj, root, timeout=timeout)

    def gather(self, obj: object, root: int = 0, *, timeout: float | None = None) -> list[Any] | None:
        """Bring one object of each rank to the root; see `collectives.gather`."""
        return collectives.gather(self, obj, root, timeout=timeout)

    # -- checks

    def check_open(self, doing: str) -> None:
        """Raise ClosedError if this communicator was closed."""
        if self._closed:
            raise ClosedError(f"this communicator is closed, so {doing} cannot be done")

    def check_rank(self, doing: str, name: str, rank: Any) -> int:
        """Return a rank as an int, or raise the error that says what a rank is."""
        if type(rank) is not int:
            rank = _as_int(doing, name, rank, "the number of a rank")
        if 0 <= rank < self.size:
            return int(rank)
        ranks = f"from 0 to {self.size - 1}" if self.size > 1 else "only 0, for this World has one rank"
        raise ValueError(f"{doing}: {name} must be {ranks}, not {rank}")

    def _check_send(self, doing: str, dest: Any, tag: Any) -> tuple[int, int | str]:
        if self._closed:
            self.check_open(doing)
        dest = self.check_rank(doing, "dest", dest)
        if type(tag) is not int or not 0 <= tag <= _LARGEST_TAG:
            if tag == ANY_TAG and type(tag) is int:
                raise ValueError(f"{doing}: ANY_TAG is for receiving; send with an int from 0 or a str")
            tag = _check_tag(doing, tag)
        return dest, tag

    def _check_receive(self, doing: str, source: Any, tag: Any) -> tuple[int, int | str]:
        """Return the sender's endpoint number (or ANY_SOURCE) and the tag."""
        if self._closed:
            self.check_open(doing)
        if type(tag) is not int or not ANY_TAG <= tag <= _LARGEST_TAG:
            tag = _check_tag(doing, tag)
        if type(source) is int and source == ANY_SOURCE:
            return ANY_SOURCE, tag
        return self.members[self.check_rank(doing, "source", source)], tag

    # -- messages

    def _pack(self, obj: object, dest: int, tag: int | str) -> Message:
        endpoint = self.endpoint
        peer = self.members[dest]
        incarnation = endpoint.incarnation if peer == endpoint.number else endpoint.incarnations.get(peer, 0)
        return Message(self.context, endpoint.number, tag, incarnation, *self.codec.encode(obj))

    def _unpack(self, message: Message, status: Status | None) -> Any:
        if status is not None:
            status.describe(message, self._ranks[message.source])
        return self.codec.decode(message.code, message.head, message.buffers)


def _who(source: int) -> str:
    return "source=ANY_SOURCE" if source == ANY_SOURCE else f"source={source}"


def _what(tag: int | str) -> str:
    return "ANY_TAG" if tag == ANY_TAG else repr(tag)


def _describe(name: str, source: int, tag: int | str) -> str:
    if source != ANY_SOURCE and tag != ANY_TAG:
        return f"{name}(source={source}, tag={tag!r})"
    return f"{name}({_who(source)}, tag={_what(tag)})"


def _as_int(doing: str, name: str, value: Any, what: str) -> int:
    if not isinstance(value, bool):
        try:
            return int(index(value))
        except TypeError:
            pass
    raise TypeError(f"{doing}: {name} must be {what}, not {value!r}")


def _check_tag(doing: str, tag: Any) -> int | str:
    """Return an unusual tag as a plain int or str, or raise the error that says what a tag is."""
    if isinstance(tag, str):
        if len(tag) > LIMITS.tag_bytes or not tag.isascii():
            _check_text(doing, tag)
        return str.__str__(tag)
    number = _as_int(doing, "tag", tag, "an int from 0 or a str")
    if not 0 <= number <= _LARGEST_TAG:
        raise ValueError(f"{doing}: tag must be from 0 to 2**63 - 1 or a str, not {number}")
    return number


def _check_text(doing: str, tag: str) -> None:
    try:
        size = len(tag.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{doing}: the tag {tag!r} is no text that can be sent; use valid Unicode") from None
    if size > LIMITS.tag_bytes:
        raise ValueError(f"{doing}: a tag of {size} bytes is too long; {LIMITS.tag_bytes} bytes are allowed")
