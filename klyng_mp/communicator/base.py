"""Who is in a communicator: its ranks, its context, and the checks of what is asked of it.

Layer: communicator.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.communicator.calls import CallLog
from klyng_mp.communicator.express import ExpressCodec
from klyng_mp.errors import ClosedError
from klyng_mp.wire.frames import LIMITS, Message
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.communicator.requests import Status
    from klyng_mp.wire.frames import Part

__all__ = ["Base", "Encoder", "as_int"]

_LARGEST_TAG = 2**63 - 1


class Encoder(ExpressCodec, Protocol):
    """What a communicator needs of a codec."""

    def encode(self, obj: object) -> tuple[int, bytes, list[memoryview]]:
        """Return the codec's code, head and buffers for an object."""

    def decode(self, code: int, head: bytes, buffers: Sequence[Part]) -> object:
        """Rebuild the object."""


class Base:
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
        call_log: the collective calls that were made.
        short_collective: the core's short way for their messages, or None.
        direct, in_turns, gathering, natives: how collectives had better go; see `Ways`.
        meeting: the core's way to meet without messages, or None.
        closed: whether this rank's program uses the communicator no more.
    """

    __slots__ = (
        "_ranks", "_short", "_telling", "call_log", "closed", "codec", "context", "direct", "endpoint", "gathering",
        "in_turns", "meeting", "members", "natives", "rank", "short_collective", "size",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, codec: Encoder, *, context: int, rank: int, members: Sequence[int]) -> None:
        self.endpoint = endpoint
        self.codec = codec
        self.context = context
        self.rank = rank
        self.members = members
        self.size = len(members)
        self._ranks = _ranks_of(members)
        self.call_log = CallLog()
        ways = endpoint.ways(context, members, codec)
        self._short, self.short_collective, self.meeting = ways.short, ways.collective, ways.meeting
        self.direct, self.in_turns, self.gathering = ways.direct, ways.in_turns, ways.gathering
        self.natives = ways.natives if self.size > 1 else None
        self._telling = ways.telling
        self.closed = False
        endpoint.call_logs[context] = self.call_log

    def __repr__(self) -> str:
        return f"<Communicator rank {self.rank} of {self.size}>"

    def close(self) -> None:
        """Say that this rank's program uses it no more: later calls raise ClosedError. May be called again."""
        self.closed = True
        self._short = self.short_collective = self._telling = None

    def rank_of(self, number: int) -> int:
        """Return the rank of an endpoint's number."""
        return self._ranks[number]

    # -- checks

    def check_open(self, doing: str) -> None:
        """Raise ClosedError if this communicator was closed."""
        if self.closed:
            raise ClosedError(f"this communicator is closed, so {doing} cannot be done")

    def check_rank(self, doing: str, name: str, rank: Any) -> int:
        """Return a rank as an int, or raise the error that says what a rank is."""
        if type(rank) is not int:
            rank = as_int(doing, name, rank, "the number of a rank")
        if 0 <= rank < self.size:
            return int(rank)
        ranks = f"from 0 to {self.size - 1}" if self.size > 1 else "only 0, for this World has one rank"
        raise ValueError(f"{doing}: {name} must be {ranks}, not {rank}")

    def _check_peer(self, doing: str, name: str, rank: Any) -> int:
        """As `check_rank`, but PROC_NULL is a rank, too."""
        if type(rank) is not int:
            rank = as_int(doing, name, rank, "the number of a rank")
        return rank if rank == PROC_NULL else self.check_rank(doing, name, rank)

    def _check_send(self, doing: str, dest: Any, tag: Any) -> tuple[int, int | str]:
        """Return the receiver's rank (or PROC_NULL) and the tag."""
        if self.closed:
            self.check_open(doing)
        dest = self._check_peer(doing, "dest", dest)
        if type(tag) is not int or not 0 <= tag <= _LARGEST_TAG:
            if tag == ANY_TAG and type(tag) is int:
                raise ValueError(f"{doing}: ANY_TAG is for receiving; send with an int from 0 or a str")
            tag = _check_tag(doing, tag)
        return dest, tag

    def _check_receive(self, doing: str, source: Any, tag: Any) -> tuple[int, int | str]:
        """Return the sender's endpoint number (or ANY_SOURCE, or PROC_NULL) and the tag."""
        if self.closed:
            self.check_open(doing)
        if type(tag) is not int or not ANY_TAG <= tag <= _LARGEST_TAG:
            tag = _check_tag(doing, tag)
        if type(source) is int and source == ANY_SOURCE:
            return ANY_SOURCE, tag
        rank = self._check_peer(doing, "source", source)
        return PROC_NULL if rank == PROC_NULL else self.members[rank], tag

    # -- messages

    def _pack(self, obj: object, dest: int, tag: int | str, mark: int = 0) -> Message:
        """Return the message that an object becomes; ``mark`` is a bit of its code."""
        endpoint = self.endpoint
        peer = self.members[dest]
        incarnation = endpoint.incarnation if peer == endpoint.number else endpoint.incarnations.get(peer, 0)
        code, head, buffers = self.codec.encode(obj)
        return Message(self.context, endpoint.number, tag, incarnation, code | mark, head, buffers)

    def _unpack(self, message: Message, status: Status | None) -> Any:
        if status is not None:
            status.describe(message, self._ranks[message.source])
        return self.codec.decode(message.code, message.head, message.buffers)


def _ranks_of(members: Sequence[int]) -> Mapping[int, int] | range:
    """Return what has the rank of each number at it."""
    if members == range(len(members)):
        return range(len(members))  # of ten thousand ranks each has one
    return {number: rank for rank, number in enumerate(members)}


def as_int(doing: str, name: str, value: Any, what: str) -> int:
    """Return a number as an int, or raise the TypeError that says what was wanted."""
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
    number = as_int(doing, "tag", tag, "an int from 0 or a str")
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
