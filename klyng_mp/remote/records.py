"""What a driver and a session say to each other about a job: the rows of the control channel's records.

Layer: remote; no sockets, no pickle. Most of it is what the driver of a local job and its supervisor say to each other
as tuples (`klyng_mp.launch.channel`); here each becomes a record of a closed form, and the same tuple again on the
other side.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from klyng_mp.launch.control import Cause
from klyng_mp.launch.occupant import ESTATE_BYTES
from klyng_mp.launch.processes import MAIL_BYTES
from klyng_mp.launch.state import RankState
from klyng_mp.remote.protocol import LARGE_JSON, RECORDS, RecordRow
from klyng_mp.remote.schema import Choice, Flag, Integer, Items, Maybe, Octets, Record, Table, Text, fit, write_json

if TYPE_CHECKING:
    from klyng_mp.remote.schema import FieldType

__all__ = [
    "BEGINNING",
    "CHUNK_BYTES",
    "HEARTBEAT_SECONDS",
    "MAX_RANKS",
    "SILENCE_SECONDS",
    "WORD",
    "pack_record",
    "unpack_record",
]

HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 10.0  # of the other side, then it is taken for dead

_MOST_CONTENTS = 240  # files that a process may be started with
CHUNK_BYTES = 1 << 20  # of a bundle, or of what ranks print
MAX_RANKS = 1 << 20
_STATES_BYTES = LARGE_JSON - 1000  # of JSON, beside which there is only the number of a question
_RANK = Integer(0, 0xFFFFFFFF)  # the driver's number, too
_COUNT = Integer(0, 2**63 - 1)
_NAME = Text(256)
_WORD = Text(4000, lines=True)
WORD = Text(100_000, lines=True)  # of the program's own: an argument, or what a variable of its environment says
_LONG = Text(400_000, lines=True)

_OCCUPANTS = Items(Record({"rank": _RANK, "incarnation": _COUNT}), MAX_RANKS)
_DIGEST = Octets(32)
_EXITCODE = Integer(-256, 2**31)
_MAIL: dict[str, FieldType] = {"rank": _RANK, "sender": _RANK, "run": _COUNT, "more": Flag()}

_CAUSE: dict[str, FieldType] = {
    "kind": Choice("failed", "died", "stillborn", "exited", "deadlock", "cancelled", "interrupted", "timeout", "lost"),
    "rank": Maybe(_RANK),
    "detail": _WORD,
    "text": _LONG,
    "exitcode": _EXITCODE,
}
_STATE: dict[str, FieldType] = {
    "rank": _RANK,
    "pid": _COUNT,
    "phase": _NAME,
    "call": _WORD,
    "peers": Maybe(Items(_RANK, MAX_RANKS)),
    "age_ms": _COUNT,
    "limit_ms": Maybe(_COUNT),
    "where": _WORD,
    "doubts": Items(_WORD, 100),
    "received": _COUNT,
    "pending_bytes": _COUNT,
    "unclaimed": Items(Record({"source": _RANK, "number": Maybe(_COUNT), "text": Maybe(_WORD)}), 100),
    "unclaimed_count": _COUNT,
    "stack": _LONG,
    "wait": _COUNT,
    "steps": _COUNT,
    "sent": Items(Record({"rank": _RANK, "count": _COUNT}), MAX_RANKS),
    "exchanged": Items(Record({"rank": _RANK, "sent": _COUNT, "taken": _COUNT}), MAX_RANKS),
}
_SITE: dict[str, FieldType] = {
    "name": _NAME,
    "first": _RANK,
    "size": _RANK,
    "address": _NAME,
    "port": Integer(0, 65535),
}

# -- what only this channel has: how a job begins ------------------------------------------------------------

BEGINNING: dict[str, tuple[str, dict[str, FieldType], int]] = {
    "describe": (
        "client",
        {
            "size": Integer(1, MAX_RANKS),
            "first": _RANK,
            "count": Integer(1, MAX_RANKS),
            "sites": Items(Record(_SITE), 10_000),
            "encrypt": Flag(),
            "seed": Maybe(Text(400)),
            "label": Flag(),
            "log_level": Maybe(Integer(0, 1000)),
            "by_reference": Flag(),
            "environment": Table(WORD, 1000),
            "argv": Items(WORD, 10_000),
            "packages": Items(Record({"module": _NAME, "distribution": _NAME}), 10_000),
            "bundle": Octets(32),
            "bundle_bytes": _COUNT,
        },
        0,
    ),
    "want": (
        "beacon",
        {"bundle": Flag(), "versions": Table(_NAME, 100), "packages": Table(Maybe(_NAME), 10_000)},
        0,
    ),
    "bundle": ("client", {"last": Flag()}, CHUNK_BYTES),
    "unpacked": ("beacon", {}, 0),
    "credentials": ("client", {"rank": _RANK, "sizes": Items(Integer(0, 65536), 3)}, 65536),
    "launch": ("client", {"join_key": Octets(32), "incarnations": _OCCUPANTS}, 0),
}

# -- what a local job has as tuples: (who says it, the tuple's items behind its name in their order) -----------

_TUPLES: dict[str, tuple[str, dict[str, FieldType]]] = {
    "born": ("beacon", {"who": _OCCUPANTS}),
    "unlaunchable": ("beacon", {"reason": _WORD}),
    "parted": ("beacon", {"rank": _RANK, "incarnation": _COUNT, "what": _WORD, "orderly": Flag()}),
    "fenced": ("beacon", {"run": _COUNT}),
    "closed": ("beacon", {}),
    "end": (
        "client",
        {
            "run": _COUNT,
            "kind": _CAUSE["kind"],
            "rank": Maybe(_RANK),
            "phrase": _WORD,
            "grace_ms": Integer(0, 600_000),
            "signum": Maybe(Integer(1, 64)),
        },
    ),
    "launched": ("beacon", {"serial": _COUNT, "pid": _COUNT, "wrong": _WORD}),
    "arrived": ("beacon", {"rank": _RANK, "incarnation": _COUNT, "run": _COUNT}),
    "exited": ("beacon", {"serial": _COUNT, "exitcode": _EXITCODE}),
    "refilled": ("beacon", {"question": _COUNT}),
    "start": (
        "client",
        {
            "serial": _COUNT,
            "process": _WORD,
            "run": _COUNT,
            "rank": _RANK,
            "no_rank": _WORD,
            "contents": Items(_DIGEST, _MOST_CONTENTS),
        },
    ),
    "forget": ("client", {"digest": _DIGEST}),
    "come": ("client", {"rank": _RANK, "incarnation": _COUNT, "run": _COUNT}),
    "signal": ("client", {"serial": _COUNT, "signum": Integer(1, 64)}),
    "refill": ("client", {"question": _COUNT, "run": _COUNT, "renew": Flag()}),
    "fence": ("client", {"run": _COUNT}),
    "over": ("client", {"run": _COUNT}),
    "report": ("client", {"question": _COUNT}),
    "survey": ("client", {"question": _COUNT, "run": _COUNT}),
    "close": ("client", {}),
    "written": ("client", {"size": _COUNT}),
    "kill": ("client", {}),
    "dial": ("client", {"rank": _RANK, "peer": _RANK}),
    "gone": ("client", {"rank": _RANK, "incarnation": _COUNT, "what": _WORD, "orderly": Flag()}),
    "host_lost": ("client", {"first": _RANK, "count": _RANK, "what": _WORD}),
    "host_back": ("client", {"first": _RANK, "count": _RANK}),
    "relayed": (
        "client",
        {
            "rank": _RANK,
            "source": _RANK,
            "word": Choice("which call", "call"),
            "context": _COUNT,
            "number": _COUNT,
            "text": Maybe(_WORD),
        },
    ),
    # ("out", kind, rank, words): what a rank wants of another host's.
    "out_dial": ("beacon", {"rank": _RANK, "asker": _RANK}),
    "out_relay": (
        "beacon",
        {
            "rank": _RANK,
            "asker": _RANK,
            "word": Choice("which call", "call"),
            "context": _COUNT,
            "number": _COUNT,
            "text": Maybe(_WORD),
        },
    ),
}
_SPECIAL: dict[str, tuple[str, dict[str, FieldType], int]] = {
    "caused": ("beacon", {"run": _COUNT, **_CAUSE}, 0),
    "settled": ("beacon", {"run": _COUNT, **_CAUSE}, 0),
    "output": ("beacon", {"stream": Choice("stdout", "stderr")}, CHUNK_BYTES),
    "task": ("client", {"serial": _COUNT}, CHUNK_BYTES),
    "content": ("client", {"digest": _DIGEST}, CHUNK_BYTES),
    "left": ("beacon", {"serial": _COUNT}, ESTATE_BYTES),
    "mail": ("client", _MAIL, MAIL_BYTES),
    "out_mail": ("beacon", _MAIL, MAIL_BYTES),
    "states": ("beacon", {"question": _COUNT, "states": Items(Record(_STATE), MAX_RANKS)}, 0),
    "surveyed": ("beacon", {"question": _COUNT, "states": Items(Record(_STATE), MAX_RANKS)}, 0),
}

_OF_DATA = {name: list(fields) for name, (_, fields, limit) in _SPECIAL.items() if limit}  # what is said of data
_REPLIES = {"answer": "states", "surveyed": "surveyed"}  # what tuples with states are called as records

RECORDS.update({name: RecordRow(who, Record(fields), limit) for name, (who, fields, limit) in BEGINNING.items()})
RECORDS.update({name: RecordRow(who, Record(fields)) for name, (who, fields) in _TUPLES.items()})
RECORDS.update({name: RecordRow(who, Record(fields), limit) for name, (who, fields, limit) in _SPECIAL.items()})


def pack_record(record: tuple[Any, ...]) -> tuple[str, dict[str, Any], bytes]:
    """Return the name, the fields and the data of the record that stands for a tuple of a local job's channel.

    Texts that programs have written (exceptions, last words on stderr, tags) are made to fit.
    """
    name, fields, data = _pack(record)
    return name, fit(RECORDS[name].fields, fields), data


def _pack(record: tuple[Any, ...]) -> tuple[str, dict[str, Any], bytes]:
    kind, *rest = record
    if kind == "out":
        kind, rest = f"out_{rest[0]}", [rest[1], *rest[2]]
    if kind in {"caused", "settled"}:
        run, cause = rest
        fields = {name: getattr(cause, name) for name in _CAUSE}
        return kind, {"run": run, **fields, "detail": cause.detail[:1000], "text": cause.text[-100_000:]}, b""
    if kind in _OF_DATA:
        return kind, dict(zip(_OF_DATA[kind], rest[:-1], strict=True)), bytes(rest[-1])
    if kind in _REPLIES:
        return _REPLIES[kind], {"question": rest[0], "states": _pack_states(rest[1], whole=kind == "surveyed")}, b""
    if kind == "born":
        rest = [[{"rank": rank, "incarnation": incarnation} for rank, incarnation in rest[0]]]
    if kind == "end":
        rest[4:] = [int(rest[4] * 1000), None if rest[5] is None else int(rest[5])]
    names = list(_TUPLES[kind][1])
    rest += [None] * (len(names) - len(rest))
    return kind, dict(zip(names, rest, strict=True)), b""


def unpack_record(kind: str, fields: dict[str, Any], data: bytes) -> tuple[Any, ...]:
    """Return the tuple that a record stands for."""
    if kind in {"caused", "settled"}:
        return kind, fields["run"], Cause(*(fields[name] for name in _CAUSE))
    if kind in _REPLIES.values():
        name = "answer" if kind == "states" else kind
        return name, fields["question"], [_unpack_state(state) for state in fields["states"]]
    if kind == "born":
        return kind, [(one["rank"], one["incarnation"]) for one in fields["who"]]
    if kind in _OF_DATA:
        words = [*(fields[name] for name in _OF_DATA[kind]), data]
    else:
        words = [fields[name] for name in _TUPLES[kind][1]]
    if kind == "end":
        words[4] /= 1000
    if kind.startswith("out_"):
        return "out", kind.removeprefix("out_"), words[0], words[1:]
    return kind, *words


def _pack_states(states: list[RankState], *, whole: bool) -> list[dict[str, Any]]:
    """Return what fits into one record: all of it, or without stacks, or of some ranks; nothing if all is wanted."""
    said = [_pack_state(state) for state in states]
    if _size_of(said) > _STATES_BYTES:
        said = [one | {"stack": ""} for one in said]
    if _size_of(said) > _STATES_BYTES:
        most = _STATES_BYTES // (max(map(_size_of, said)) + 1)
        said = [] if whole else said[:most]
    return said


def _size_of(said: Any) -> int:
    return len(write_json(said))


def _pack_state(state: RankState) -> dict[str, Any]:
    said = state._asdict()
    said.update(
        peers=None if state.peers is None else list(state.peers),
        age_ms=max(0, int((monotonic() - state.since) * 1000)) if state.since else 0,
        limit_ms=None if state.seconds is None else int(state.seconds * 1000),
        doubts=list(state.doubts),
        unclaimed=[
            {
                "source": source,
                "number": tag if isinstance(tag, int) else None,
                "text": tag if isinstance(tag, str) else None,
            }
            for source, tag in state.unclaimed
        ],
        wait=int(state.wait * 1e9),
        sent=[{"rank": rank, "count": count} for rank, count in state.sent.items()],
        exchanged=[{"rank": rank, "sent": sent, "taken": taken} for rank, (sent, taken) in state.exchanged.items()],
    )
    return {name: said[name] for name in _STATE}


def _unpack_state(said: dict[str, Any]) -> RankState:
    """Return the state of a rank whose host has another clock."""
    state = RankState(said["rank"], said["pid"], said["phase"])
    return state._replace(
        call=said["call"],
        peers=None if said["peers"] is None else tuple(said["peers"]),
        since=monotonic() - said["age_ms"] / 1000,
        seconds=None if said["limit_ms"] is None else said["limit_ms"] / 1000,
        where=said["where"],
        doubts=tuple(said["doubts"]),
        received=said["received"],
        pending_bytes=said["pending_bytes"],
        unclaimed=tuple(
            (one["source"], one["text"] if one["number"] is None else one["number"]) for one in said["unclaimed"]
        ),
        unclaimed_count=said["unclaimed_count"],
        stack=said["stack"],
        wait=said["wait"] / 1e9,
        steps=said["steps"],
        sent={one["rank"]: one["count"] for one in said["sent"]},
        exchanged={one["rank"]: (one["sent"], one["taken"]) for one in said["exchanged"]},
    )
