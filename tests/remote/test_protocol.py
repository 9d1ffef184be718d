"""protocol: every frame in every state, in whatever pieces it comes; what no row allows ends the conversation."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.errors import LocalProtocolError, RemoteProtocolError
from klyng_mp.remote.protocol import KINDS, PROBE_BYTES, RECORDS, STATES, Conversation, Frame, RecordRow
from klyng_mp.remote.schema import Integer, Record, write_json

ROOT = Path(__file__).resolve().parent.parent.parent
N32 = b"n" * 32
SIDES = ("client", "beacon")
WORDS = {
    "order": RecordRow("client", Record({"rank": Integer(0, 9)})),
    "output": RecordRow("beacon", Record({"rank": Integer(0, 9)}), 100),
    "word": RecordRow("both", Record({})),
}

JOB = {
    "id": b"j" * 16,
    "owner": "ada",
    "method": "key",
    "address": "10.0.0.7",
    "ranks": 3,
    "troubles": 1,
    "trouble": "rank 1 raised ValueError",
}
EXAMPLES = {  # one of each kind: its fields and its data
    "hello": ({"method": "password", "nonce": N32}, b""),
    "challenge": ({"nonce": N32, "salt": b"s" * 16, "share": b"B" * 33}, b""),
    "proof": ({"share": b"A" * 33, "key": None, "proof": N32}, b""),
    "accepted": ({"proof": N32}, b""),
    "paired": ({"proof": N32}, b""),
    "refused": ({"reason": "limit", "sentence": "8 ranks at most", "limit": "ranks"}, b""),
    "bye": ({"count": 0}, b""),
    "enrol": ({"key": N32, "name": "ada@box"}, b""),
    "enrolled": ({}, b""),
    "ping": ({}, b""),
    "pong": ({}, b""),
    "probe": ({}, bytes(range(256))),
    "probe_reply": ({}, bytes(range(256))),
    "status": ({}, b""),
    "status_reply": (
        {
            "versions": {"python": "3.11.7", "klyng_mp": "0.1.0"},
            "ranks": 3,
            "cpus": 2,
            "max_ranks": 8,
            "load_percent": 120,
            "jobs": [JOB | {"age_seconds": 60}],
            "ended": [
                JOB | {"ago_seconds": 5, "lasted_ms": 7, "outcome": "limit", "reason": "too long", "limit": "max_job"}
            ],
        },
        b"",
    ),
    "job": ({"id": b"j" * 16, "ranks": 4}, b""),
    "record": ({"name": "word"}, b""),
}

# Who may send what, when: c the client, b the beacon. The answers that may cross the word "job" are there twice.
TABLE = """
                hello  greeted  proving  judged  paired  open  job  closed
hello           c      .        .        .       .       .     .    .
challenge       .      b        .        .       .       .     .    .
proof           .      .        c        .       .       .     .    .
accepted        .      .        .        b       .       .     .    .
paired          .      .        .        b       .       .     .    .
refused         b      b        b        b       b       b     b    .
bye             .      .        .        .       cb      cb    cb   .
enrol           .      .        .        .       c       .     .    .
enrolled        .      .        .        .       b       .     .    .
ping            .      .        .        .       .       cb    cb   .
pong            .      .        .        .       .       cb    cb   .
probe           .      .        .        .       .       c     .    .
probe_reply     .      .        .        .       .       b     b    .
status          .      .        .        .       .       c     .    .
status_reply    .      .        .        .       .       b     b    .
job             .      .        .        .       .       c     .    .
record          .      .        .        .       .       .     cb   .
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
ALLOWED = {(row[0], state): row[1:][index] for row in ROWS[1:] for index, state in enumerate(ROWS[0])}

WAYS = {  # how a state is come to: who says what
    "hello": [],
    "greeted": [("client", "hello")],
    "proving": [("client", "hello"), ("beacon", "challenge")],
    "judged": [("client", "hello"), ("beacon", "challenge"), ("client", "proof")],
    "paired": [("client", "hello"), ("beacon", "challenge"), ("client", "proof"), ("beacon", "paired")],
    "open": [("client", "hello"), ("beacon", "challenge"), ("client", "proof"), ("beacon", "accepted")],
    "closed": [("client", "hello"), ("beacon", "refused")],
}
WAYS["job"] = [*WAYS["open"], ("client", "job")]


def other(side):
    return SIDES[side == "client"]


def said(kind, fields=None, data=None):
    """Return a frame as nobody has to agree to."""
    example, its_data = EXAMPLES[kind]
    schema = WORDS[example["name"]].fields.fields | KINDS[kind].fields.fields if kind == "record" else None
    schema = Record(schema) if schema else KINDS[kind].fields
    text = write_json(schema.encode(example if fields is None else fields, kind))
    data = its_data if data is None else data
    return struct.pack("!BII", KINDS[kind].number, len(text), len(data)) + text + data


def pair_in(state):
    """Return both sides of a conversation that has come to a state."""
    sides = {side: Conversation(side, records=WORDS) for side in SIDES}
    for side, kind in WAYS[state]:
        fields, data = EXAMPLES[kind]
        assert [one.kind for one in sides[other(side)].feed(sides[side].pack(kind, data, **fields))] == [kind]
    assert {one.state for one in sides.values()} == {state}
    return sides


def test_the_table_is_of_all_there_is():
    assert tuple(ROWS[0]) == STATES
    assert {row[0] for row in ROWS[1:]} == set(KINDS) == set(EXAMPLES)
    numbers = [row.number for row in KINDS.values()]
    assert sorted(set(numbers)) == sorted(numbers)
    assert all(set(row.moves) | set(row.moves.values()) <= set(STATES) for row in KINDS.values())


@pytest.mark.parametrize("state", STATES)
def test_every_frame_in_every_state(state):
    for kind in KINDS:
        for sender in SIDES:
            check_frame_in_state(state, kind, sender)


def check_frame_in_state(state, kind, sender):
    fields, data = EXAMPLES[kind]
    if kind == "bye":
        fields = {"count": sum(side == sender for side, _ in WAYS[state])}
    sides = pair_in(state)
    receiver = sides[other(sender)]
    if sender[0] in ALLOWED[kind, state]:
        raw = sides[sender].pack(kind, data, **fields)
        assert receiver.feed(raw) == [Frame(kind, fields, data)]
        assert sides[sender].state == receiver.state
        return
    with pytest.raises(LocalProtocolError, match=f"a {sender} cannot send '{kind}' in the state '{state}'"):
        sides[sender].pack(kind, data, **fields)
    assert sides[sender].state == state, "as before"
    if state == "closed" and receiver.side == "beacon":
        assert receiver.feed(said(kind)) == [], "who has refused listens no more"
        return
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            receiver.feed(said(kind))
    assert receiver.state == "closed"


def test_frames_are_what_they_were():
    """Bytes that another implementation could have written; a change of them is another protocol."""
    sides = pair_in("hello")
    nonce = b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    hello = b"\x01\0\0\0\x47\0\0\0\0" + b'{"method":"key","nonce":"' + nonce + b'"}'
    assert sides["client"].pack("hello", method="key", nonce=bytes(32)) == hello
    assert sides["beacon"].feed(hello) == [Frame("hello", {"method": "key", "nonce": bytes(32)})]
    sides = pair_in("open")
    probe = b"\x0e\0\0\0\x02\0\0\0\x03{}abc"
    assert sides["client"].pack("probe", b"abc") == probe
    assert sides["beacon"].feed(probe) == [Frame("probe", {}, b"abc")]
    bye = b'\x07\0\0\0\x0b\0\0\0\0{"count":3}'
    assert sides["client"].pack("bye") == bye
    assert sides["beacon"].feed(bye) == [Frame("bye", {"count": 3})]


# -- in pieces -------------------------------------------------------------------------------------

VECTORS = [(state, kind, sender) for (kind, state), who in ALLOWED.items() for sender in SIDES if sender[0] in who]


def example_of(state, kind, sender):
    return said(kind, {"count": sum(side == sender for side, _ in WAYS[state])} if kind == "bye" else None)


@pytest.mark.parametrize("state", STATES[:-1])
def test_a_frame_comes_in_whatever_pieces(state):
    for kind, sender in senders_in(state):
        check_pieces(state, kind, sender)


def senders_in(state):
    return [(kind, sender) for its_state, kind, sender in VECTORS if its_state == state]


def check_pieces(state, kind, sender):
    raw = example_of(state, kind, sender)
    whole = pair_in(state)[other(sender)].feed(raw)
    assert [frame.kind for frame in whole] == [kind]
    receiver = pair_in(state)[other(sender)]
    pieces = [receiver.feed(raw[index : index + 1]) for index in range(len(raw))]
    assert pieces[:-1] == [[]] * (len(raw) - 1)
    assert pieces[-1] == whole


def test_a_stream_that_ends_within_a_frame_is_noticed():
    for state, kind, sender in VECTORS:
        raw = example_of(state, kind, sender)
        for size in range(1, len(raw)):
            receiver = pair_in(state)[other(sender)]
            assert receiver.feed(raw[:size]) == []
            with pytest.raises(RemoteProtocolError, match="in the middle of a frame"):
                receiver.feed_eof()


def test_bytes_behind_a_frame_are_refused():
    for state, kind, sender in VECTORS:
        receiver = pair_in(state)[other(sender)]
        with pytest.raises(RemoteProtocolError):
            receiver.feed(example_of(state, kind, sender) + b"\x00")


def test_a_handshake_has_a_transcript_that_both_have():
    seen = set()
    for state in ("hello", "greeted", "proving", "judged", "open"):
        sides = pair_in(state)
        assert sides["client"].transcript == sides["beacon"].transcript
        seen.add(sides["client"].transcript)
    assert len(seen) == 5
    assert pair_in("job")["client"].transcript == pair_in("open")["beacon"].transcript


# -- what a frame may not be -----------------------------------------------------------------------


def test_a_kind_that_nobody_knows_is_refused_at_its_first_byte():
    unknown = set(range(256)) - {row.number for row in KINDS.values()}
    assert len(unknown) == 256 - len(KINDS)
    for number in unknown:
        with pytest.raises(RemoteProtocolError, match=f"unknown kind {number}$"):
            pair_in("open")["beacon"].feed(bytes([number]))


def test_a_length_is_refused_before_anything_of_it_has_come():
    for state, kind, sender in VECTORS:
        row = KINDS[kind]
        for sizes in [(row.json_limit + 1, 0), (2, row.data_limit + 1), (2**32 - 1, 2**32 - 1)]:
            with pytest.raises(RemoteProtocolError, match="are allowed"):
                pair_in(state)[other(sender)].feed(struct.pack("!BII", row.number, *sizes))


def test_strangers_make_nobody_keep_more_than_a_kilobyte():
    for kind in ("hello", "challenge", "proof", "accepted", "paired", "refused"):
        assert (KINDS[kind].json_limit, KINDS[kind].data_limit) == (1024, 0)


BAD_HELLOS = {
    "no JSON": b"}",
    "no object": b"[]",
    "nothing": b"",
    "too little": b'{"method":"key"}',
    "too much": write_json({"method": "key", "nonce": "A" * 43 + "=", "more": 1}),
    "twice": b'{"method":"key","method":"key","nonce":"' + b"A" * 43 + b'="}',
    "a word of no meaning": write_json({"method": "none", "nonce": "A" * 43 + "="}),
    "a wrong type": write_json({"method": 1, "nonce": "A" * 43 + "="}),
    "too short": write_json({"method": "key", "nonce": "AAAA"}),
    "another spelling": write_json({"method": "key", "nonce": "A" * 42 + "B="}),
    "deep": b"[" * 1024,
    "a pickle": b"\x80\x05cos\nsystem\n",
}


@pytest.mark.parametrize("text", BAD_HELLOS.values(), ids=BAD_HELLOS)
def test_what_does_not_fit_the_row_is_refused(text):
    beacon = Conversation("beacon")
    with pytest.raises(RemoteProtocolError, match="the other side sent what cannot be"):
        beacon.feed(struct.pack("!BII", 1, len(text), 0) + text)
    assert beacon.state == "closed"


MISUSES = {
    "no such frame": ("hallo", b"", {}),
    "no such field": ("ping", b"", {"more": 1}),
    "a field left out": ("enrol", b"", {"key": N32}),
    "too much data": ("probe", bytes(PROBE_BYTES + 1), {}),
    "data that nobody wants": ("ping", b"x", {}),
    "a wrong type": ("job", b"", {"id": "j" * 16, "ranks": 1}),
    "a wrong number": ("job", b"", {"id": b"j" * 16, "ranks": 0}),
}


@pytest.mark.parametrize(("kind", "data", "fields"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_this_sides_fault_and_changes_nothing(kind, data, fields):
    sides = pair_in("open")
    with pytest.raises(LocalProtocolError):
        sides["client"].pack(kind, data, **fields)
    assert sides["beacon"].feed(sides["client"].pack("ping")) == [Frame("ping", {})]


# -- records ---------------------------------------------------------------------------------------


def test_a_record_has_the_fields_and_the_limits_of_its_own_row():
    sides = pair_in("job")
    raw = sides["beacon"].pack("record", b"hello", name="output", rank=3)
    assert sides["client"].feed(raw) == [Frame("record", {"name": "output", "rank": 3}, b"hello")]
    for fields, data in [
        ({"name": "output"}, b""),
        ({"name": "output", "rank": 10}, b""),
        ({"name": "output", "rank": 3}, bytes(101)),
        ({"name": "order", "rank": 3}, b""),
        ({"name": "nothing"}, b""),
        ({"rank": 3}, b""),
    ]:
        with pytest.raises(LocalProtocolError):
            sides["beacon"].pack("record", data, **fields)
        text = write_json(fields)
        with pytest.raises(RemoteProtocolError):
            pair_in("job")["client"].feed(struct.pack("!BII", KINDS["record"].number, len(text), len(data)) + text)


def test_every_record_fits_into_a_frame():
    assert all(row.data_limit <= KINDS["record"].data_limit for row in RECORDS.values())
    assert all(row.sender in (*SIDES, "both") and "name" not in row.fields.fields for row in RECORDS.values())


# -- how it ends -----------------------------------------------------------------------------------


def test_each_side_says_bye_for_itself():
    sides = pair_in("open")
    ping = sides["beacon"].pack("ping")
    assert sides["beacon"].feed(sides["client"].pack("bye")) == [Frame("bye", {"count": 2})]
    with pytest.raises(LocalProtocolError, match="in the state 'closed'"):
        sides["client"].pack("ping")
    assert len(sides["client"].feed(ping)) == 1, "the other side goes on"
    sides["beacon"].feed_eof()
    assert sides["client"].state == sides["beacon"].state == "open"
    sides["client"].feed(sides["beacon"].pack("bye"))
    sides["client"].feed_eof()
    assert sides["client"].state == sides["beacon"].state == "closed"


def test_a_bye_counts():
    for count, fine in [(1, False), (2, True), (3, False)]:
        beacon = pair_in("open")["beacon"]
        if fine:
            assert beacon.feed(said("bye", {"count": count})) == [Frame("bye", {"count": count})]
        else:
            with pytest.raises(RemoteProtocolError, match=f"sent {count} frames, and 2 have come"):
                beacon.feed(said("bye", {"count": count}))


def test_nothing_comes_after_a_bye():
    sides = pair_in("open")
    sides["beacon"].feed(sides["client"].pack("bye"))
    with pytest.raises(RemoteProtocolError, match="after its farewell"):
        sides["beacon"].feed(said("ping"))


@pytest.mark.parametrize("state", [state for state in STATES if state != "closed"])
def test_an_end_without_a_farewell_is_an_error(state):
    for one in pair_in(state).values():
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match=f"without a farewell, in the state '{state}'"):
                one.feed_eof()
        assert one.state == "closed"


def test_a_refusal_is_a_farewell():
    sides = pair_in("closed")
    sides["client"].feed_eof()
    sides["beacon"].feed_eof()


def test_an_answer_may_cross_the_word_that_begins_a_job():
    sides = pair_in("open")
    status, job = sides["client"].pack("status"), sides["client"].pack("job", id=b"j" * 16, ranks=1)
    sides["beacon"].feed(status)
    fields, data = EXAMPLES["status_reply"]
    reply = sides["beacon"].pack("status_reply", data, **fields)
    assert [frame.kind for frame in sides["client"].feed(reply)] == ["status_reply"]
    sides["beacon"].feed(job)
    assert sides["client"].state == sides["beacon"].state == "job"


# -- whatever comes --------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.sampled_from(STATES), st.sampled_from(SIDES), st.lists(st.binary(max_size=40), max_size=8))
def test_no_bytes_do_worse_than_being_refused(state, side, pieces):
    one = pair_in(state)[side]
    try:
        for piece in pieces:
            one.feed(piece)
        one.feed_eof()
    except RemoteProtocolError:
        assert one.state == "closed"


@settings(max_examples=300)
@given(st.data())
def test_a_changed_stream_is_refused_or_means_something_that_fits(data):
    state, kind, sender = data.draw(st.sampled_from(VECTORS))
    raw = bytearray(example_of(state, kind, sender) + said("ping"))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    receiver = pair_in(state)[other(sender)]
    cut = data.draw(st.integers(0, len(raw)))
    try:
        frames = receiver.feed(raw[:cut]) + receiver.feed(raw[cut:])
    except RemoteProtocolError:
        return
    for frame in frames:
        schema = KINDS[frame.kind].fields
        if frame.kind != "record":
            schema.encode(frame.fields, frame.kind)


def test_it_needs_neither_sockets_nor_pickle_nor_keys():
    code = "import sys; before = set(sys.modules); import klyng_mp.remote.protocol; print(*sys.modules.keys() - before)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"ssl", "cryptography", "spake2", "dill"} & set(done.stdout.split())
