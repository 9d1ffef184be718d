"""remote.records: what is said of a job is the same tuple on both sides, and nothing else can be said."""

from __future__ import annotations

import pytest

from klyng_mp.errors import LocalProtocolError
from klyng_mp.launch.control import Cause
from klyng_mp.launch.state import WAITING, RankState
from klyng_mp.remote import records
from klyng_mp.remote.protocol import RECORDS, Conversation
from klyng_mp.remote.records import pack_record, unpack_record

FROM_BEACONS = [
    ("born", [(4, 1), (5, 2)]),
    ("unlaunchable", "rank 4: no room"),
    ("parted", 4, 1, "was killed by SIGKILL", False),
    ("fenced", 7),
    ("closed",),
    ("output", "stderr", b"\x00\xff what was printed\n"),
    ("launched", 3, 4711, ""),
    ("arrived", 2, 3, 7),
    ("exited", 3, -9),
    ("left", 3, b"how far it had come"),
    ("refilled", 4),
    ("out", "dial", 2, [5]),
    ("out", "relay", 2, [5, "which call", 9, 3, None]),
    ("out", "relay", 2, [5, "call", 9, 3, "bcast() at app.py:3"]),
    ("out", "mail", 2, [5, 7, False, b"frame"]),
]
FROM_DRIVERS = [
    ("end", 7, "interrupted", None, "was interrupted by Ctrl-C", 1.0, 2),
    ("end", 7, "died", 3, "was killed", 0.5, None),
    ("fence", 7),
    ("over", 7),
    ("report", 1),
    ("survey", 3, 7),
    ("task", 3, b"\x00what it is to do"),
    ("content", bytes(32), b"what several share"),
    ("forget", bytes(32)),
    ("start", 3, "Process-1", 7, 2, "", [bytes(32)]),
    ("come", 2, 3, 7),
    ("signal", 3, 15),
    ("refill", 4, 7, True),
    ("close",),
    ("kill",),
    ("written", 4096),
    ("dial", 5, 2),
    ("gone", 2, 1, "exited with code 3", True),
    ("host_lost", 2, 4, "was on lab2, which is lost"),
    ("host_back", 2, 4),
    ("relayed", 5, 2, "call", 9, 3, "bcast()"),
    ("relayed", 5, 2, "which call", 9, 3, None),
    ("mail", 5, 2, 7, True, b"frame"),
]


def pair():
    """Return the two sides of a channel on which a job has begun."""
    sides = Conversation("client"), Conversation("beacon")
    for side in sides:
        side._phase = "job"
    return sides


def carry(record, sender, receiver):
    name, fields, data = pack_record(record)
    (frame,) = receiver.feed(sender.pack("record", data, name=name, **fields))
    return unpack_record(frame.fields.pop("name"), frame.fields, frame.data)


@pytest.mark.parametrize("record", FROM_BEACONS, ids=lambda record: record[0])
def test_a_beacons_word_arrives_as_it_was(record):
    client, beacon = pair()
    assert carry(record, beacon, client) == record


@pytest.mark.parametrize("record", FROM_DRIVERS, ids=lambda record: record[0])
def test_a_drivers_word_arrives_as_it_was(record):
    client, beacon = pair()
    assert carry(record, client, beacon) == record


@pytest.mark.parametrize("kind", ["caused", "settled"])
def test_a_cause(kind):
    client, beacon = pair()
    cause = Cause("failed", 3, "ValueError: no", "Traceback…\n", 1)
    found = carry((kind, 7, cause), beacon, client)
    assert found[:2] == (kind, 7)
    assert [getattr(found[2], name) for name in ("kind", "rank", "detail", "text", "exitcode")] == [
        "failed", 3, "ValueError: no", "Traceback…\n", 1,
    ]  # fmt: skip


def test_a_long_cause_is_cut_and_not_refused():
    client, beacon = pair()
    found = carry(("caused", 7, Cause("failed", 3, "x" * 10_000, "y" * 1_000_000)), beacon, client)
    assert (len(found[2].detail), len(found[2].text)) == (1000, 100_000)


def test_what_ranks_do_has_the_clock_of_who_is_told(monkeypatch):
    state = RankState(
        5, 4711, WAITING, call="recv(source=2)", peers=(2,), since=100.0, seconds=2.5, where="app.py:3 in f"
    )
    state = state._replace(doubts=("it has 2 threads",), unclaimed=((1, "x"), (1, 5)), unclaimed_count=2, received=3)
    state = state._replace(wait=99.5, steps=4, sent={2: 7}, exchanged={2: (7, 8)})
    client, beacon = pair()
    monkeypatch.setattr(records, "monotonic", lambda: 101.5)
    name, fields, data = pack_record(("answer", 9, [state]))
    (frame,) = client.feed(beacon.pack("record", data, name=name, **fields))
    monkeypatch.setattr(records, "monotonic", lambda: 7001.5)
    kind, question, (found,) = unpack_record(frame.fields.pop("name"), frame.fields, frame.data)
    assert (kind, question, found.since) == ("answer", 9, 7000.0)
    assert found._replace(since=100.0) == state


@pytest.mark.parametrize(("kind", "kept"), [("answer", range(1, 400)), ("surveyed", range(1))])
def test_what_too_many_ranks_do_does_not_break_the_channel(kind, kept):
    state = RankState(5, 4711, WAITING, call="x" * 3900, stack="x" * 300_000)
    client, beacon = pair()
    *_, found = carry((kind, 9, [state] * 4), beacon, client)
    assert [one.stack for one in found] == [""] * 4
    *_, found = carry((kind, 9, [state] * 400), beacon, client)
    assert len(found) in kept


def test_each_tuple_has_a_row_and_its_way():
    said = {pack_record(record)[0]: "beacon" for record in FROM_BEACONS}
    said |= {pack_record(record)[0]: "client" for record in FROM_DRIVERS}
    said |= dict.fromkeys(("caused", "settled", "states", "surveyed"), "beacon")
    assert said == {name: row.sender for name, row in RECORDS.items() if name not in records.BEGINNING}


@pytest.mark.parametrize("record", [("fenced", -1), ("fenced", "7"), ("born", [(4, -1)]), ("output", "stdin", b"")])
def test_what_cannot_be_said(record):
    _, beacon = pair()
    name, fields, data = pack_record(record)
    with pytest.raises(LocalProtocolError):
        beacon.pack("record", data, name=name, **fields)
