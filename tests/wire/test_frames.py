"""Frames: every vector whole, byte by byte, with more behind it, cut off, and corrupted."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.errors import LocalProtocolError, MessageTooLargeError, RemoteProtocolError
from klyng_mp.wire.frames import (
    DRIVER,
    FrameReader,
    Limits,
    Message,
    PureMessage,
    is_collective,
    make_context,
    pack_frame,
    run_of,
)

HEADER_SIZE = 40
CONTEXT = make_context(1)

VECTORS = {
    "nothing": Message(0, 0, 0, 0, 0, b"", ()),
    "a head": Message(CONTEXT, 1, 7, 2, 3, b"hello", ()),
    "largest numbers": Message(2**64 - 1, DRIVER, 2**63 - 1, 2**32 - 1, 255, b"x", ()),
    "a word as tag": Message(CONTEXT, 1, "greeting", 0, 1, b"hello", ()),
    "an empty word as tag": Message(CONTEXT, 1, "", 0, 1, b"hello", ()),
    "a snake as tag": Message(CONTEXT, 1, "🐍", 0, 1, b"", ()),
    "buffers": Message(CONTEXT, 1, 7, 0, 1, b"h", [b"abc", bytearray(b"de"), memoryview(b"f")]),
    "empty buffers": Message(CONTEXT, 1, 7, 0, 1, b"", [b"", b""]),
    "word and buffers": Message(CONTEXT, 1, "w", 0, 1, b"h", [b"", b"abc", b""]),
    "a longest tag": Message(CONTEXT, 1, "x" * 65536, 0, 1, b"h", [b"abc"]),
    "a large head": Message(CONTEXT, 1, 7, 0, 1, bytes(range(256)) * 400, ()),
    "just the area": Message(CONTEXT, 1, 7, 0, 1, bytes(64 * 1024 - HEADER_SIZE), ()),
    "one more than the area": Message(CONTEXT, 1, 7, 0, 1, bytes(64 * 1024 - HEADER_SIZE + 1), ()),
    "a large buffer": Message(CONTEXT, 1, 7, 0, 1, b"h", [bytes(range(256)) * 400]),
    "large and small": Message(
        CONTEXT, 1, "w", 0, 1, b"h" * 100_000, [b"a", b"b" * 70_000, b"", b"c" * 90_000, b"d", b"", b"e" * 10]
    ),
    "empty ones around a large one": Message(CONTEXT, 1, 7, 0, 1, b"", [b"", b"b" * 70_000, b"", b""]),
    "many buffers": Message(CONTEXT, 1, 7, 0, 1, b"", [b"ab"] * 20_000),
}
SMALL = [name for name, message in VECTORS.items() if message.nbytes < 100 and len(str(message.tag)) < 100]


def whole(message):
    return b"".join(pack_frame(message))


def fields(message):
    return (
        message.context,
        message.source,
        message.tag,
        message.incarnation,
        message.code,
        bytes(message.head),
        [bytes(buffer) for buffer in message.buffers],
    )


def feed(reader, data, step=None):
    """Give the reader the data, at most ``step`` bytes at a time; return the messages."""
    messages = []
    data = memoryview(data)
    while data:
        room = reader.buffer()
        count = min(len(room), len(data), step or len(data))
        assert count, "there is always room"
        room[:count] = data[:count]
        messages += reader.received(count)
        data = data[count:]
    return messages


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_whole(name):
    (message,) = feed(FrameReader(), whole(VECTORS[name]))
    assert fields(message) == fields(VECTORS[name])
    assert type(message.head) is bytes
    assert type(message.tag) is type(VECTORS[name].tag)


@pytest.mark.parametrize("name", VECTORS)
def test_in_pieces(name):
    data = whole(VECTORS[name])
    step = 1 if len(data) < 300_000 else 977
    reader = FrameReader()
    for _ in range(2):
        (message,) = feed(reader, data, step)
        assert fields(message) == fields(VECTORS[name])
    assert reader.received(0) == []


@pytest.mark.parametrize("name", VECTORS)
def test_with_more_behind_it(name):
    after = Message(CONTEXT, 5, "after", 0, 1, b"after", [b"buffer"])
    reader = FrameReader()
    message, second, third = feed(reader, whole(VECTORS[name]) + 2 * whole(after))
    assert fields(message) == fields(VECTORS[name])
    assert fields(second) == fields(third) == fields(after)
    assert reader.received(0) == []


@pytest.mark.parametrize("step", [1, 3, 39, 40, 41, 1000, 65536, None])
def test_all_one_after_the_other(step):
    names = VECTORS if step is None or step > 3 else SMALL
    data = b"".join(whole(VECTORS[name]) for name in names)
    messages = feed(FrameReader(), data, step)
    assert [fields(message) for message in messages] == [fields(VECTORS[name]) for name in names]


@pytest.mark.parametrize("name", VECTORS)
def test_what_is_handed_out_is_writable_and_nobody_elses(name):
    reader = FrameReader()
    (message,) = feed(reader, whole(VECTORS[name]))
    for index, buffer in enumerate(message.buffers):
        memoryview(buffer)[:] = bytes([index % 251]) * len(buffer)
    feed(reader, whole(VECTORS["buffers"]))
    assert all(bytes(b) == bytes([i % 251]) * len(b) for i, b in enumerate(message.buffers))


@settings(max_examples=150, deadline=None)
@given(
    messages=st.lists(
        st.builds(
            Message,
            st.integers(0, 2**64 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
            st.integers(0, 2**32 - 1),
            st.integers(0, 255),
            st.binary(max_size=50) | st.integers(0, 150_000).map(bytes),
            st.lists(st.binary(max_size=20) | st.integers(0, 150_000).map(bytes), max_size=5),
        ),
        max_size=5,
    ),
    steps=st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_any_messages_in_any_pieces(messages, steps):
    data = memoryview(b"".join(whole(message) for message in messages))
    reader, got, turn = FrameReader(), [], 0
    while data:
        size = steps[turn % len(steps)]
        turn += 1
        got += feed(reader, data[:size])
        data = data[size:]
    assert [fields(message) for message in got] == [fields(message) for message in messages]


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_cut_off_anywhere(name):
    data = whole(VECTORS[name])
    ends = range(1, len(data)) if len(data) < 300 else {*range(1, 200), *range(200, len(data), len(data) // 50)}
    for end in ends:
        reader = FrameReader()
        assert feed(reader, data[:end]) == []
        with pytest.raises(RemoteProtocolError, match="in the middle of a frame"):
            reader.received(0)


@pytest.mark.parametrize("name", [*SMALL, "large and small"])
def test_every_byte_of_the_start_corrupted(name):
    original = fields(VECTORS[name])
    data = whole(VECTORS[name])
    for position in range(min(len(data), HEADER_SIZE + 60)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[position] ^= flip
            reader = FrameReader()
            try:
                messages = feed(reader, broken)
                messages += reader.received(0)
            except RemoteProtocolError:
                continue
            assert [fields(message) for message in messages] != [original], f"byte {position} does not matter"


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.booleans())
def test_garbage_is_refused_or_waits_for_more(data, greeted):
    reader = FrameReader()
    try:
        feed(reader, (b"\xc7\x01" if greeted else b"") + data)
        reader.received(0)
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            reader.received(1)


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x00", bytes(100)])
def test_what_does_not_speak_frames_is_refused_at_once(data):
    with pytest.raises(RemoteProtocolError, match="no frames"):
        feed(FrameReader(), data)


def test_another_version_is_named():
    data = bytearray(whole(VECTORS["a head"]))
    data[1] = 9
    with pytest.raises(RemoteProtocolError, match="version 9 of the frames, this one version 1"):
        feed(FrameReader(), data)


def test_a_reader_that_met_an_error_stays_dead():
    reader = FrameReader()
    good = whole(VECTORS["a head"])
    with pytest.raises(RemoteProtocolError) as first:
        feed(reader, b"bad")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as later:
            reader.received(len(good))
        assert str(later.value) == str(first.value)


def header(*, kind=0, count=0, tag=7, head=0):
    return struct.pack("<BBBBIQIIqQ", 0xC7, 1, 1, kind, count, CONTEXT, 0, 0, tag, head)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (header(kind=2), "unknown kind 2"),
        (header(tag=-1), r"impossible tag \(-1\)"),
        (header(kind=1, tag=-1), r"impossible tag \(-1\)"),
        (header(kind=1, tag=65537), r"impossible tag \(65537\)"),
        (header(count=65537), "65537 buffers; 65536 are allowed"),
        (header(head=2**48 + 1), "a head of 281474976710657 bytes"),
        (header(count=1) + struct.pack("<Q", 2**48 + 1), "a buffer of 281474976710657 bytes"),
        (header(kind=1, tag=2) + b"\xff\xfe", "is no text"),
    ],
)
def test_impossible_claims(data, complaint):
    with pytest.raises(RemoteProtocolError, match=complaint):
        feed(FrameReader(), data)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(parts=2), Message(CONTEXT, 1, 7, 0, 1, b"", [b""] * 3)),
        (Limits(part_bytes=10), Message(CONTEXT, 1, 7, 0, 1, b"x" * 11, [b""])),
        (Limits(part_bytes=10), Message(CONTEXT, 1, 7, 0, 1, b"", [b"x" * 11])),
        (Limits(tag_bytes=10), Message(CONTEXT, 1, "x" * 11, 0, 1, b"", ())),
    ],
)
def test_both_sides_keep_the_limits(limits, message):
    with pytest.raises(MessageTooLargeError, match="over the limit"):
        pack_frame(message, limits)
    with pytest.raises(RemoteProtocolError):
        feed(FrameReader(limits=limits), whole(message))


@pytest.mark.parametrize("where", ["head", "buffer"])
def test_memory_that_does_not_exist_is_an_error_and_not_a_crash(where):
    data = header(head=2**48) if where == "head" else header(count=1) + struct.pack("<Q", 2**48)
    with pytest.raises(RemoteProtocolError, match="cannot hold"):
        feed(FrameReader(), data)


def test_who_claims_much_must_send_it():
    """A thousand buffers of 7 MiB are claimed; memory is taken for the first only."""
    import tracemalloc

    data = header(count=1000) + struct.pack("<1000Q", *[7 << 20] * 1000)
    reader = FrameReader()
    tracemalloc.start()
    try:
        assert feed(reader, data + bytes(1000)) == []
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (PureMessage(CONTEXT, 1, 2**63, 0, 1, b"", ()), LocalProtocolError),
        (PureMessage(CONTEXT, 1, 7, 0, 256, b"", ()), LocalProtocolError),
        (PureMessage(2**64, 1, 7, 0, 1, b"", [b"x"]), LocalProtocolError),
        (PureMessage(CONTEXT, 1, "\ud800", 0, 1, b"", ()), LocalProtocolError),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_sent(message, error):
    with pytest.raises(error):
        pack_frame(message)


# -- copies ----------------------------------------------------------------------------------------


def test_a_small_message_is_one_object():
    assert [type(part) for part in pack_frame(VECTORS["word and buffers"])] == [bytes]
    assert [type(part) for part in pack_frame(VECTORS["a head"])] == [bytes]


def test_large_parts_are_not_copied():
    head, buffer = bytes(100_000), bytearray(100_000)
    first, *rest = pack_frame(Message(CONTEXT, 1, 7, 0, 1, head, [memoryview(buffer), b"", b"x"]))
    assert len(first) == HEADER_SIZE + 3 * 8
    assert rest[0] is head
    assert rest[1].obj is buffer
    assert [len(part) for part in rest] == [100_000, 100_000, 1]


def test_buffers_of_any_shape_travel_as_bytes():
    import array

    numbers = array.array("d", range(10_000))
    (message,) = feed(FrameReader(), whole(Message(CONTEXT, 1, 7, 0, 1, b"", [memoryview(numbers)])))
    assert bytes(message.buffers[0]) == numbers.tobytes()


@pytest.mark.parametrize("size", [100_000, 9 << 20])
def test_a_large_part_is_read_into_its_own_memory(size):
    reader = FrameReader()
    data = whole(Message(CONTEXT, 1, 7, 0, 1, b"h", [bytes(size)]))
    feed(reader, data[: HEADER_SIZE + 8 + 1 + 10])
    assert len(reader.buffer()) == size - 10
    reader.buffer()[:5] = b"12345"
    assert reader.received(5) == []
    (message,) = feed(reader, data[HEADER_SIZE + 8 + 1 + 15 :])
    assert bytes(message.buffers[0][10:15]) == b"12345"


def test_a_large_head_is_read_into_the_bytes_that_are_handed_out():
    import tracemalloc

    data = whole(Message(CONTEXT, 1, 7, 0, 1, bytes(20 << 20), ()))
    reader = FrameReader()
    tracemalloc.start()
    try:
        (message,) = feed(reader, data)
        assert tracemalloc.get_traced_memory()[1] < 25 << 20
    finally:
        tracemalloc.stop()
    assert len(message.head) == 20 << 20


# -- names -----------------------------------------------------------------------------------------


def test_contexts():
    assert run_of(make_context(5, 3)) == run_of(make_context(5, 3, collective=True)) == 5
    assert is_collective(make_context(5, 3, collective=True))
    assert not is_collective(make_context(5, 3))
    assert len({make_context(r, i, collective=c) for r in (1, 2) for i in (0, 1) for c in (False, True)}) == 8


def test_a_message_shows_what_it_is():
    assert repr(VECTORS["a head"]) == "<Message source=1 tag=7 context=0x100000000 of 5 bytes>"
    assert VECTORS["buffers"].nbytes == 7
