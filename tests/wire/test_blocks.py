"""Memory of large parts: handed out again only when nobody has it any more."""

from __future__ import annotations

from klyng_mp.wire import blocks
from klyng_mp.wire.frames import FrameReader, Message, pack_frame


def receive_large(size, value):
    reader = FrameReader()
    frame = b"".join(pack_frame(Message(1 << 32, 0, 7, 0, 1, b"h", [bytes([value]) * size])))
    position, got = 0, []
    while position < len(frame):
        room = reader.buffer()
        count = min(len(room), len(frame) - position)
        room[:count] = frame[position : position + count]
        got += reader.received(count)
        position += count
    return got[0].buffers[0]


def test_large_memory_is_handed_out_again_only_when_nobody_has_it_any_more():
    size = 9 << 20
    first = receive_large(size, 1)
    part = memoryview(first)[:10]
    second = receive_large(size, 2)
    del first
    third = receive_large(size, 3)  # a slice of the first is left
    assert (bytes(part), second[0], second[-1], third[0], third[-1]) == (b"\1" * 10, 2, 2, 3, 3)
    known = {id(block) for block in blocks._kept}
    del part
    fourth = receive_large(size - 1000, 4)
    assert len(fourth) == size - 1000
    assert {id(block) for block in blocks._kept} == known
    assert (second[0], third[0], fourth[0], fourth[-1]) == (2, 3, 4, 4)
    assert sum(map(len, blocks._kept)) <= 64 << 20
