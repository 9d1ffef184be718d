"""The control channel between a client and a beacon: which frames there are, and who may send them when.

Layer: remote; sans-IO: bytes in, frames out, no sockets, no clocks, no pickle.

A frame is ``u8 kind | u32 length of its JSON | u32 length of its data | JSON | data``, in network order, inside TLS.
`KINDS` has one row for each kind: its number, who may send it, the states in which it may be sent and where each leads,
its fields, and its limits. A length is checked before a byte of it is kept. What no row allows ends the conversation.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from klyng_mp.errors import LocalProtocolError, RemoteProtocolError
from klyng_mp.remote.history import KEPT_JOBS, LISTED_JOBS, OUTCOMES
from klyng_mp.remote.schema import (
    Choice,
    Integer,
    Items,
    Maybe,
    MisfitError,
    Octets,
    Record,
    Table,
    Text,
    read_json,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from klyng_mp.remote.schema import FieldType

__all__ = [
    "KINDS",
    "LARGE_JSON",
    "METHODS",
    "REASONS",
    "RECORDS",
    "STATES",
    "Conversation",
    "Frame",
    "RecordRow",
    "Row",
]

Side = Literal["client", "beacon"]

# hello: nothing was said. greeted: the client has said how it will prove itself. proving: the beacon has challenged it.
# judged: the client has proved it, or not. paired: with a code, so it may only leave its key. open: authenticated.
# job: the session supervises a job. closed: nothing more comes.
STATES = ("hello", "greeted", "proving", "judged", "paired", "open", "job", "closed")
METHODS = ("password", "code", "key")
REASONS = ("authentication", "busy", "limit", "version", "bundle", "failed")

PROBE_BYTES = 1 << 20  # enough to measure a bandwidth
SMALL_JSON = 1024  # what a stranger may make a beacon keep
LARGE_JSON = 1 << 20

_HEADER = struct.Struct("!BII")


class Row(NamedTuple):
    """One kind of frame.

    Attributes:
        number: the byte that says so.
        sender: "client", "beacon" or "both".
        moves: the states in which it may be sent, and the state that follows.
        fields: what its JSON says.
        data_limit: of its data, in bytes.
        json_limit: of its JSON, in bytes.
    """

    number: int
    sender: str
    moves: Mapping[str, str]
    fields: Record
    data_limit: int = 0
    json_limit: int = SMALL_JSON


class RecordRow(NamedTuple):
    """One word of a job, a ``record`` with this name; as in `Row`."""

    sender: str
    fields: Record
    data_limit: int = 0


class Frame(NamedTuple):
    """One frame, as it was received: every field that its row has, None where it was left out."""

    kind: str
    fields: dict[str, Any]
    data: bytes = b""


_KEY = Octets(32)
_NAME = Text(128)
_SENTENCE = Text(600)
_SECONDS = Integer(0, 2**40)
_LATER = {"open": "open", "job": "job"}  # an answer may cross the word that begins a job
_NOTHING = Record({})
_JOB: dict[str, FieldType] = {
    "id": Octets(16),
    "owner": _NAME,  # the name of a key, or nothing
    "method": Choice(*METHODS),
    "address": _NAME,
    "ranks": Integer(0, 2**20),
    "troubles": Integer(0, 2**40),  # runs that ranks there have ended
    "trouble": Text(300),  # the last of these
}

KINDS: dict[str, Row] = {
    # -- the handshake: each waits for the one before, so nothing is read that nobody has proved
    "hello": Row(1, "client", {"hello": "greeted"}, Record({"method": Choice(*METHODS), "nonce": Octets(32)})),
    "challenge": Row(
        2,
        "beacon",
        {"greeted": "proving"},
        Record({"nonce": Octets(32), "salt": Maybe(Octets(16)), "share": Maybe(Octets(33))}),
    ),
    "proof": Row(
        3,
        "client",
        {"proving": "judged"},
        Record({"share": Maybe(Octets(33)), "key": Maybe(_KEY), "proof": Octets(32, 64)}),
    ),
    "accepted": Row(4, "beacon", {"judged": "open"}, Record({"proof": Maybe(Octets(32))})),
    "paired": Row(5, "beacon", {"judged": "paired"}, Record({"proof": Octets(32)})),
    "refused": Row(
        6,
        "beacon",
        {
            **dict.fromkeys(("hello", "greeted", "proving", "judged", "paired", "job"), "closed"),
            "open": "open",  # one request is refused, the next may be granted
        },
        Record({"reason": Choice(*REASONS), "sentence": _SENTENCE, "limit": Maybe(_NAME)}),
    ),
    # -- how it ends
    "bye": Row(7, "both", {"paired": "paired", "open": "open", "job": "job"}, Record({"count": Integer(0, 2**63 - 1)})),
    # -- who is authenticated
    "enrol": Row(10, "client", {"paired": "paired"}, Record({"key": _KEY, "name": _NAME})),
    "enrolled": Row(11, "beacon", {"paired": "open"}, _NOTHING),
    "ping": Row(12, "both", _LATER, _NOTHING),
    "pong": Row(13, "both", _LATER, _NOTHING),
    "probe": Row(14, "client", {"open": "open"}, _NOTHING, PROBE_BYTES),
    "probe_reply": Row(15, "beacon", _LATER, _NOTHING, PROBE_BYTES),
    "status": Row(16, "client", {"open": "open"}, _NOTHING),
    "status_reply": Row(
        17,
        "beacon",
        _LATER,
        Record(
            {
                "versions": Table(_NAME, 64),  # of Python, klyng_mp, dill …
                "cpus": Integer(1, 2**20),  # that ranks may use
                "ranks": Integer(0, 2**20),  # that run now
                "max_ranks": Integer(0, 2**20),
                "load_percent": Integer(0, 2**20),
                "jobs": Items(Record({**_JOB, "age_seconds": _SECONDS}), LISTED_JOBS),
                "ended": Items(  # the last one first
                    Record(
                        {
                            **_JOB,
                            "ago_seconds": _SECONDS,
                            "lasted_ms": _SECONDS,
                            "outcome": Choice(*OUTCOMES),
                            "reason": _SENTENCE,
                            "limit": Maybe(_NAME),
                        }
                    ),
                    KEPT_JOBS,
                ),
            }
        ),
        json_limit=LARGE_JSON,
    ),
    # -- a job
    "job": Row(20, "client", {"open": "job"}, Record({"id": Octets(16), "ranks": Integer(1, 2**20)})),
    "record": Row(21, "both", {"job": "job"}, Record({"name": _NAME}), 16 << 20, LARGE_JSON),
}

RECORDS: dict[str, RecordRow] = {}  # what is said about a job: one row each

_BY_NUMBER = {row.number: kind for kind, row in KINDS.items()}


class _Unfinished(NamedTuple):
    """A frame of which the header has come."""

    kind: str
    json_size: int
    data_size: int
    fields: dict[str, Any] | None = None  # once the JSON has come


class Conversation:
    """One side of one control channel: checks and moves its state with each frame, whichever way it goes.

    Args:
        side: which of the two this is.
        records: the words of a job, as in `RECORDS`.

    Threads: none of its own, and no lock: one caller at a time.
    """

    def __init__(self, side: Side, *, records: Mapping[str, RecordRow] | None = None) -> None:
        self.side = side
        self._records = RECORDS if records is None else records
        self._phase = "hello"
        self._buffer = bytearray()
        self._unfinished: _Unfinished | None = None
        self._error: str | None = None
        self._transcript = hashlib.sha256()
        self._sent = self._received = 0  # frames, without the bye
        self._said_bye = self._heard_bye = False
        self._refused_it = False

    @property
    def state(self) -> str:
        """One of `STATES`."""
        over = self._error is not None or (self._said_bye and self._heard_bye)
        return "closed" if over else self._phase

    @property
    def transcript(self) -> bytes:
        """A hash of every byte of the handshake until now, the same on both sides."""
        return self._transcript.digest()

    # -- out

    def pack(self, kind: str, /, data: bytes = b"", **fields: Any) -> bytes:
        """Return a frame to be sent, and take it as sent.

        A ``bye`` is given its count here; after it nothing may be sent. A ``record`` has its row's fields besides its
        name.

        Raises:
            LocalProtocolError: it may not be sent now, or does not fit its row; the state is as before.
        """
        row = KINDS.get(kind)
        if row is None:
            raise LocalProtocolError(f"there is no frame {kind!r}")
        if self._said_bye or row.sender not in (self.side, "both") or self._phase not in row.moves:
            state = "closed" if self._said_bye else self._phase
            raise LocalProtocolError(f"a {self.side} cannot send {kind!r} in the state {state!r}")
        if kind == "bye":
            fields = {"count": self._sent}
        try:
            schema, limit = self._row_of(kind, fields, self.side)
            text = write_json(schema.encode(fields, kind))
        except MisfitError as error:
            raise LocalProtocolError(f"this frame cannot be sent: {error}") from None
        if len(text) > row.json_limit or len(data) > limit:
            raise LocalProtocolError(
                f"a frame {kind!r} has at most {row.json_limit} bytes of JSON and {limit} of data, "
                f"not {len(text)} and {len(data)}"
            )
        frame = b"".join((_HEADER.pack(row.number, len(text), len(data)), text, data))
        self._note(kind, frame)
        if kind == "bye":
            self._said_bye = True
        else:
            self._sent += 1
        self._refused_it = self._phase == "closed"
        return frame

    # -- in

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Take bytes that have come and return the frames that they complete.

        After this side has refused the other for good, what still comes is dropped.

        Raises:
            RemoteProtocolError: the bytes are nothing that may come now. The conversation is dead from then on
                and raises the same for ever; frames before the fault are lost with it.
        """
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        if self._refused_it:
            return []
        self._buffer += data
        frames = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except MisfitError as error:
            self._die(f"the other side sent what cannot be: {error}")
        return frames

    def feed_eof(self) -> None:
        """Take note that the stream is at its end.

        Raises:
            RemoteProtocolError: it was cut off, since no ``bye`` or final ``refused`` has come.
        """
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        if self._phase != "closed" and not self._heard_bye:
            within = "in the middle of a frame" if self._buffer or self._unfinished else "without a farewell"
            self._die(f"the other side closed the connection {within}, in the state {self._phase!r}")

    def _die(self, error: str) -> None:
        self._error = error
        self._buffer.clear()
        self._unfinished = None
        raise RemoteProtocolError(error) from None

    def _next(self) -> Frame | None:
        """Return the next frame, or None where it has not all come."""
        if self._unfinished is None:
            if self._buffer and (self._heard_bye or self._phase == "closed"):
                raise MisfitError("bytes after its farewell")
            if self._buffer:
                self._check_kind(self._buffer[0])
            if len(self._buffer) < _HEADER.size:
                return None
            self._unfinished = self._read_header()
        kind, json_size, data_size, fields = self._unfinished
        if fields is None:
            if len(self._buffer) < _HEADER.size + json_size:
                return None
            fields = self._read_fields(kind, json_size, data_size)
            self._unfinished = _Unfinished(kind, json_size, data_size, fields)
        start = _HEADER.size + json_size
        stop = start + data_size
        if len(self._buffer) < stop:
            return None
        self._check_kind(KINDS[kind].number)  # what was sent meanwhile may have moved the state
        with memoryview(self._buffer) as view:
            self._note(kind, view[:stop])
            body = bytes(view[start:stop])
        del self._buffer[:stop]
        self._unfinished = None
        if kind == "bye":
            self._hear_bye(fields["count"])
        else:
            self._received += 1
        return Frame(kind, fields, body)

    def _check_kind(self, number: int) -> str:
        """Return the kind with a number, if the other side may send it now."""
        kind = _BY_NUMBER.get(number)
        if kind is None:
            raise MisfitError(f"a frame of unknown kind {number}")
        row = KINDS[kind]
        if row.sender == self.side or self._phase not in row.moves:
            raise MisfitError(f"a frame {kind!r} in the state {self._phase!r}")
        return kind

    def _read_header(self) -> _Unfinished:
        number, json_size, data_size = _HEADER.unpack_from(self._buffer)
        kind = self._check_kind(number)
        row = KINDS[kind]
        if json_size > row.json_limit or data_size > row.data_limit:
            raise MisfitError(
                f"a frame {kind!r} that claims {json_size} bytes of JSON and {data_size} of data; "
                f"{row.json_limit} and {row.data_limit} are allowed"
            )
        return _Unfinished(kind, json_size, data_size)

    def _read_fields(self, kind: str, json_size: int, data_size: int) -> dict[str, Any]:
        said = read_json(bytes(self._buffer[_HEADER.size : _HEADER.size + json_size]))
        schema, limit = self._row_of(kind, said, "beacon" if self.side == "client" else "client")
        if data_size > limit:
            raise MisfitError(f"a record {said['name']!r} that claims {data_size} bytes of data; {limit} are allowed")
        return schema.decode(said, kind)

    def _row_of(self, kind: str, fields: Any, sender: Side) -> tuple[Record, int]:
        """Return the schema of a frame and the limit of its data, which a record's name decides."""
        row = KINDS[kind]
        if kind != "record":
            return row.fields, row.data_limit
        name = fields.get("name") if isinstance(fields, dict) else None
        record = self._records.get(name) if isinstance(name, str) else None
        if record is None:
            raise MisfitError(f"there is no record {name!r:.80}")
        if record.sender not in (sender, "both"):
            raise MisfitError(f"a {sender} does not send the record {name!r}")
        return Record({**row.fields.fields, **record.fields.fields}), min(row.data_limit, record.data_limit)

    def _hear_bye(self, count: int) -> None:
        self._heard_bye = True
        if count != self._received:
            raise MisfitError(f"it says that it sent {count} frames, and {self._received} have come")

    def _note(self, kind: str, frame: bytes | memoryview) -> None:
        """Take a frame as sent or received."""
        if self._phase in ("hello", "greeted", "proving", "judged"):
            self._transcript.update(frame)
        self._phase = KINDS[kind].moves[self._phase]
