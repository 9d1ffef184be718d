"""Frames: how one message becomes bytes on a stream, and how bytes become messages again.

Layer: wire; no sockets, no clocks. The reader is sans-IO: the caller asks where to put bytes, puts them
there, and says how many they were.

One frame is::

    header      40 bytes, little-endian: magic u8 and version u8 (read as one), codec's code u8, kind of tag u8,
                number of buffers u32, context u64, source u32, incarnation u32,
                tag i64 (or the length of its text), length of head u64
    tag         UTF-8, only where the kind says text
    lengths     u64 for each buffer
    head        what the codec made of the object
    buffers     one after the other

Invariants: every length is compared with `Limits` before a byte is allocated for it; a large part is
read straight into the memory that is handed out; a reader that met an error stays dead.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import LocalProtocolError, MessageTooLargeError, RemoteProtocolError
from klyng_mp.native import core
from klyng_mp.wire.blocks import allocate

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONTROL",
    "DRIVER",
    "FIRST_CHANNEL",
    "LIMITS",
    "OBJECTS",
    "FrameReader",
    "Limits",
    "Message",
    "Part",
    "PureMessage",
    "check_limits",
    "is_collective",
    "make_context",
    "pack_frame",
    "run_of",
]

Part = bytes | bytearray | memoryview

CONTROL = 0  # the context of what the driver and its ranks say to each other
OBJECTS = 1  # the context of what shared objects and those who use them say to each other
DRIVER = 0xFFFFFFFF  # the driver's number as a source: it is no rank
FIRST_CHANNEL = 1 << 31  # numbers from here on are channels, which are no ranks either

_HEADER = struct.Struct("<HBBIQIIqQ")
_HEADER_SIZE = _HEADER.size
_MAGIC = 0xC7  # no ASCII and no start of UTF-8 text, so a stray HTTP or TLS client is refused at its first byte
_VERSION = 1
_INT_TAG = 0
_TEXT_TAG = 1
_GREETING_BYTES = bytes((_MAGIC, _VERSION))
_GREETING = int.from_bytes(_GREETING_BYTES, "little")

_AREA_SIZE = 64 * 1024  # one read of a busy socket; frames up to this size are parsed from here
_JOIN_SIZE = 16 * 1024  # below it one copy is cheaper than a second entry for the kernel to gather
_OWN_BLOCK_SIZE = 64 * 1024  # a part this large is read into its own memory; smaller neighbours share a read


class Limits(NamedTuple):
    """The largest lengths that a frame may claim; both sides check them, the reader before it allocates."""

    parts: int = 65536
    part_bytes: int = 2**48
    tag_bytes: int = 65536


LIMITS = Limits()


class PureMessage:
    """One message: its envelope, which matching looks at, and what the codec made of the object.

    Attributes:
        context: `make_context`'s number; 0 is `CONTROL`.
        source: the sender's number in its World.
        tag: an int from 0 to 2**63 - 1, or a str.
        incarnation: of the occupant that it is meant for.
        code: the codec's, 0 to 255.
        head: the codec's first part.
        buffers: its further parts; writable where they came off a wire.
        arrival: the order in which a mailbox got it.
    """

    __slots__ = ("arrival", "buffers", "code", "context", "head", "incarnation", "source", "tag")

    def __init__(  # noqa: PLR0917 - a record, made for every message: keywords would cost a third more
        self,
        context: int,
        source: int,
        tag: int | str,
        incarnation: int,
        code: int,
        head: bytes,
        buffers: Sequence[Part],
    ) -> None:
        self.context = context
        self.source = source
        self.tag = tag
        self.incarnation = incarnation
        self.code = code
        self.head = head
        self.buffers = buffers
        self.arrival = 0

    def __repr__(self) -> str:
        return f"<Message source={self.source} tag={self.tag!r} context={self.context:#x} of {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """The bytes of head and buffers together."""
        if not self.buffers:
            return len(self.head)
        return len(self.head) + sum(memoryview(buffer).nbytes for buffer in self.buffers)


if TYPE_CHECKING or core is None:  # noqa: SIM108 - mypy takes this for a name of the class
    Message = PureMessage
else:  # its twin, klyng_mp/_core/message.c
    Message = core.Message


def make_context(run: int, index: int = 0, *, collective: bool = False) -> int:
    """Return the context number of communicator ``index`` in ``run`` (1 or more)."""
    return run << 32 | index << 1 | collective


def run_of(context: int) -> int:
    """Return the run that a context belongs to."""
    return context >> 32


def is_collective(context: int) -> bool:
    """Tell whether a context carries the steps of collectives, not a user's own messages."""
    return bool(context & 1)


def pack_frame(message: Message, limits: Limits = LIMITS) -> list[bytes | memoryview]:
    """Return the bytes of one frame: one object for a small message, else large parts uncopied.

    Raises:
        MessageTooLargeError: a part is over the limit.
        LocalProtocolError: a field cannot be written; nothing is sent.
    """
    tag, head = message.tag, message.head
    if type(tag) is not int or message.buffers or len(head) > _JOIN_SIZE:
        return _pack_parts(message, limits)
    try:
        return [
            _HEADER.pack(
                _GREETING, message.code, _INT_TAG, 0, message.context, message.source, message.incarnation,
                tag, len(head),
            )
            + head
        ]  # fmt: skip
    except struct.error as error:
        raise LocalProtocolError(f"{message!r} does not fit into a frame: {error}") from None


def check_limits(message: Message, limits: Limits = LIMITS) -> tuple[bytes, list[memoryview]]:
    """Return a message's tag as text (or nothing, where it is a number) and flat views of its buffers.

    Raises:
        MessageTooLargeError: something is over the limit.
        LocalProtocolError: the tag is no text that can be sent.
    """
    text = b"" if isinstance(message.tag, int) else _tag_bytes(message.tag, limits)
    views = [_flat(buffer) for buffer in message.buffers]
    if len(views) > limits.parts:
        raise MessageTooLargeError(len(views), limits.parts, "number of buffers")
    largest = max([len(message.head), *(view.nbytes for view in views)])
    if largest > limits.part_bytes:
        raise MessageTooLargeError(largest, limits.part_bytes, "part of a message")
    return text, views


def _pack_parts(message: Message, limits: Limits) -> list[bytes | memoryview]:
    text, views = check_limits(message, limits)
    lengths = [view.nbytes for view in views]
    kind, tag = (_INT_TAG, message.tag) if isinstance(message.tag, int) else (_TEXT_TAG, len(text))
    try:
        first = _HEADER.pack(
            _GREETING, message.code, kind, len(views), message.context, message.source, message.incarnation,
            tag, len(message.head),
        )  # fmt: skip
    except struct.error as error:
        raise LocalProtocolError(f"{message!r} does not fit into a frame: {error}") from None
    start = first + text + struct.pack(f"<{len(views)}Q", *lengths)
    if len(message.head) + sum(lengths) <= _JOIN_SIZE:
        return [b"".join((start, message.head, *views))]
    large = [view for view in views if view.nbytes]
    if len(message.head) <= _JOIN_SIZE:
        return [start + message.head, *large]
    return [start, message.head, *large]


def _flat(buffer: Part) -> memoryview:
    view = memoryview(buffer)
    return view if view.ndim == 1 and view.format == "B" else view.cast("B")


def _tag_bytes(tag: str, limits: Limits) -> bytes:
    try:
        text = tag.encode()
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"the tag {tag!r} is no text that can be sent: {error}") from None
    if len(text) > limits.tag_bytes:
        raise MessageTooLargeError(len(text), limits.tag_bytes, "tag")
    return text


class FrameReader:
    """Turns the bytes of one stream into messages, without ever touching the stream itself.

    Call `buffer`, put bytes at its start, then say how many to `received`; again and again.

    Threads: none of its own, and no lock: one caller at a time.
    """

    __slots__ = ("_area", "_body", "_end", "_error", "_limits", "_view")

    def __init__(self, *, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._resize(_AREA_SIZE)
        self._end = 0  # bytes of an unfinished frame at the start of the area
        self._body: _Body | None = None  # of the large frame that is being read
        self._error: str | None = None

    def buffer(self) -> memoryview:
        """Return where the next bytes belong: never empty, valid until the next `received`."""
        if self._body is not None:
            return self._body.room
        return self._view[self._end :] if self._end else self._view

    def received(self, count: int) -> list[Message]:
        """Take note of ``count`` new bytes in the buffer and return the messages that they complete.

        Args:
            count: how many bytes; 0 says that the stream is at its end.

        Raises:
            RemoteProtocolError: the bytes are no frames, claim more than the limits allow, or end within
                a frame. The reader is dead from then on and raises the same for ever.
        """
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        try:
            body = self._body
            if body is None:
                if self._end or count < _HEADER_SIZE:
                    return self._parse(self._end + count) if count else self._finish()
                return self._parse_alone(count) or self._parse(count)
            if not count:
                return self._finish()
            if not body.fill(count):
                return []
            self._body = None
            return [body.message()]
        except RemoteProtocolError as error:
            self._die(str(error))
            raise
        except (MemoryError, OSError, OverflowError, ValueError) as error:
            # What is left to fail here is the memory for a length that was allowed but does not exist.
            self._die(f"the other side sent a frame that this machine cannot hold: {error or type(error).__name__}")
            raise RemoteProtocolError(self._error) from None

    def _die(self, error: str) -> None:
        self._error = error
        self._body = None
        self._end = 0
        self._resize(1)

    def _finish(self) -> list[Message]:
        if self._body is not None or self._end:
            raise RemoteProtocolError("the stream ended in the middle of a frame")
        return []

    def _resize(self, size: int) -> None:
        area = bytearray(size)
        self._area, self._view = area, memoryview(area)

    def _parse_alone(self, end: int) -> list[Message]:
        """Parse the commonest of all arrivals, one small frame and nothing else; return [] if it is not that."""
        greeting, code, kind, count, context, source, incarnation, tag, head_size = _HEADER.unpack_from(self._area)
        if head_size != end - _HEADER_SIZE or greeting != _GREETING or kind or count or tag < 0:
            return []
        return [Message(context, source, tag, incarnation, code, bytes(self._view[_HEADER_SIZE:end]), ())]

    def _parse(self, end: int) -> list[Message]:
        messages: list[Message] = []
        area, view = self._area, self._view
        position = 0
        while end - position >= _HEADER_SIZE:
            header = _HEADER.unpack_from(area, position)
            start = position + _HEADER_SIZE
            greeting, code, kind, count, context, source, incarnation, tag, head_size = header
            if greeting == _GREETING and kind == _INT_TAG and not count and tag >= 0:  # the usual message
                stop = start + head_size
                if stop <= end:
                    head = bytes(view[start:stop])
                    messages.append(Message(context, source, tag, incarnation, code, head, ()))
                    position = stop
                    continue
            stop = self._parse_parts(header, position, end, messages)
            if not stop:
                break
            position = stop
        if position == end and len(area) == _AREA_SIZE:
            self._end = 0
        else:
            self._keep(position, end)
        return messages

    def _parse_parts(self, header: tuple[int, ...], position: int, end: int, messages: list[Message]) -> int:
        """Parse a frame of any kind; return where it stops, or 0 where it is not all there."""
        _check(header, self._limits)
        _greeting, _code, kind, count, _context, _source, _incarnation, tag_field, head_size = header
        text_end = position + _HEADER_SIZE + (tag_field if kind == _TEXT_TAG else 0)
        body = text_end + 8 * count
        if body > end:
            return 0
        lengths = struct.unpack_from(f"<{count}Q", self._area, text_end)
        if lengths and max(lengths) > self._limits.part_bytes:
            raise RemoteProtocolError(f"the other side sent a frame with a buffer of {max(lengths)} bytes")
        stop: int = body + head_size + sum(lengths)
        if stop - position > _AREA_SIZE or stop <= end:
            tag = tag_field if kind == _INT_TAG else _text(self._view[position + _HEADER_SIZE : text_end])
            parts = _Body(header, tag, lengths)
            if parts.feed(self._view[body : min(stop, end)]):
                messages.append(parts.message())
            else:
                self._body = parts
            return min(stop, end)
        return 0

    def _keep(self, position: int, end: int) -> None:
        """Move the unfinished rest to the start of an area that has room for more."""
        rest = end - position
        self._end = rest
        if not rest:
            self._resize(_AREA_SIZE)
            return
        start = bytes(self._view[position : min(position + 2, end)])
        if not _GREETING_BYTES.startswith(start):
            raise RemoteProtocolError(_not_ours(start))
        if position:
            self._view[:rest] = self._view[position:end]
        if rest == len(self._area):  # a tag and lengths that outgrow it; they are bounded by the limits
            old = self._view
            self._resize(2 * rest)
            self._view[:rest] = old


def _not_ours(start: bytes) -> str:
    if start[0] == _MAGIC:
        return f"the other side speaks version {start[1]} of the frames, this one version {_VERSION}"
    return f"the other side sent bytes that are no frames, starting with {start!r}"


def _check(header: tuple[int, ...], limits: Limits) -> None:
    """Refuse a header that no sender of ours could have written."""
    greeting, _code, kind, count, _context, _source, _incarnation, tag, head_size = header
    if greeting != _GREETING:
        raise RemoteProtocolError(_not_ours(greeting.to_bytes(2, "little")))
    if kind not in (_INT_TAG, _TEXT_TAG):
        raise RemoteProtocolError(f"the other side sent a frame with a tag of unknown kind {kind}")
    if tag < 0 or (kind == _TEXT_TAG and tag > limits.tag_bytes):
        raise RemoteProtocolError(f"the other side sent a frame with an impossible tag ({tag})")
    if count > limits.parts:
        raise RemoteProtocolError(f"the other side sent a frame of {count} buffers; {limits.parts} are allowed")
    if head_size > limits.part_bytes:
        raise RemoteProtocolError(f"the other side sent a frame with a head of {head_size} bytes")


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"the other side sent a frame whose tag is no text: {error}") from None


# A body is read in groups of parts: each large part alone, into the very memory that is handed out;
# the small ones between them together, then copied apart, so that a small array neither keeps its
# neighbours alive nor starts at an odd address. A group gets its memory when its first byte is due:
# whoever claims a terabyte must send it.
class _Body:
    """Head and buffers of one frame while they arrive."""

    __slots__ = ("_groups", "_header", "_parts", "_stream", "_tag", "_target", "room")

    def __init__(self, header: tuple[int, ...], tag: int | str, lengths: Sequence[int]) -> None:
        self._header = header
        self._tag = tag
        self._groups = _group([header[8], *lengths])
        self._parts: list[Part] = []
        self._stream: BytesIO | None = None
        self._target: Part = b""
        self.room = memoryview(b"")  # what is still to be filled of the group that is being read

    def feed(self, data: memoryview) -> bool:
        """Copy in the bytes that came along with the header; tell whether that was all."""
        while not self.fill(0):
            count = min(len(data), len(self.room))
            if not count:
                return False
            self.room[:count] = data[:count]
            lent, self.room = self.room, self.room[count:]
            lent.release()
            data = data[count:]
        return True

    def fill(self, count: int) -> bool:
        """Take note of ``count`` bytes at the start of `room`; tell whether the body is complete."""
        lent, self.room = self.room, self.room[count:]
        lent.release()  # a view that is left would make the BytesIO below copy what it owns
        while not self.room:
            if self._stream is not None or len(self._target):
                self._close_group()
            if not self._groups:
                return True
            self._open_group()
        return False

    def message(self) -> Message:
        """Return the message; only once the body is complete."""
        _greeting, code, _kind, _count, context, source, incarnation, _tag, _head_size = self._header
        head, *buffers = self._parts
        return Message(context, source, self._tag, incarnation, code, bytes(head), buffers)

    def _open_group(self) -> None:
        sizes = self._groups[-1]
        size = sum(sizes)
        if not size:
            self._parts.extend(bytearray() if index or self._parts else b"" for index in range(len(sizes)))
            self._groups.pop()
        elif not self._parts and len(sizes) == 1:
            # A BytesIO lends out the bytes that it owns, and gives them back uncopied: a head is `bytes`.
            self._stream = BytesIO(bytes(size))
            self.room = self._stream.getbuffer()
        else:
            self._target = allocate(size) if len(sizes) == 1 else bytearray(size)
            self.room = memoryview(self._target)

    def _close_group(self) -> None:
        sizes = self._groups.pop()
        self.room.release()
        self.room = memoryview(b"")
        if self._stream is not None:
            self._parts.append(self._stream.getvalue())
            self._stream = None
        elif len(sizes) == 1:
            self._parts.append(self._target)
        else:
            position = 0
            for size in sizes:
                piece = self._target[position : position + size]
                self._parts.append(piece if self._parts else bytes(piece))
                position += size
        self._target = b""


def _group(sizes: Sequence[int]) -> list[list[int]]:
    """Return the parts' sizes in groups that are read in one go, the first group last."""
    groups: list[list[int]] = []
    sharing = False
    for size in sizes:
        small = size < _OWN_BLOCK_SIZE
        if small and sharing:
            groups[-1].append(size)
        else:
            groups.append([size])
        sharing = small
    groups.reverse()
    return groups
