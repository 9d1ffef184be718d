"""segments: memory that travels as a descriptor, and is used again when nobody has it."""

from __future__ import annotations

import os

import pytest

from klyng_mp import native
from klyng_mp.segments import SegmentPool, receive, table_of

pytestmark = pytest.mark.skipif(native.core is None, reason="without the core there are no segments")


@pytest.fixture
def pool():
    pool = SegmentPool()
    yield pool
    pool._forget()


def received(segment, *sizes):
    return receive(os.dup(segment.fd), sizes)


def test_the_parts_arrive_as_they_were(pool):
    parts = [b"head", b"", memoryview(bytearray(range(100))), b"x" * 100_000]
    segment = pool.fill(parts)
    views = received(segment, *(len(part) for part in parts))
    assert [bytes(view) for view in views] == [bytes(part) for part in parts]
    assert not any(view.readonly for view in views)
    pool.keep(segment)


def test_a_table_tells_the_sizes(pool):
    parts = [b"head", b"x" * 1000, b""]
    segment = pool.fill([table_of(parts), *parts])
    assert [bytes(view) for view in receive(os.dup(segment.fd))] == parts
    pool.keep(segment)


def test_it_is_free_when_the_last_view_is_gone(pool):
    segment = pool.fill([b"a" * 100, b"b" * 100])
    first, second = received(segment, 100, 100)
    assert not segment.free
    del first
    assert not segment.free
    del second
    assert segment.free
    pool.keep(segment)


def test_a_free_one_is_filled_again_and_a_used_one_is_not(pool):
    first = pool.fill([b"1" * 50_000])
    view = received(first, 50_000)[0]
    pool.keep(first)
    second = pool.fill([b"2" * 50_000])
    assert second is not first
    pool.keep(second)
    assert bytes(view[:3]) == b"111"
    del view
    assert pool.fill([b"3" * 50_000]) is first


def test_small_things_do_not_take_large_segments(pool):
    large = pool.fill([b"x" * 10_000_000])
    large.give_back()
    pool.keep(large)
    small = pool.fill([b"x" * 1000])
    assert small is not large
    assert small.size < 100_000
    pool.keep(small)


def test_what_is_kept_is_bounded(pool):
    before = len(os.listdir("/proc/self/fd"))
    views = []
    for number in range(100):
        segment = pool.fill([bytes([number]) * 40_000])
        views += received(segment, 40_000)
        pool.keep(segment)
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * 16
    assert [view[-1] for view in views] == list(range(100))


def test_a_forked_child_leaves_its_parents_segments_alone(pool):
    segment = pool.fill([b"parent"])
    segment.give_back()
    pool.keep(segment)
    pid = os.fork()
    if not pid:
        os._exit(pool.fill([b"child!"]) is segment)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert bytes(received(segment, 6)[0]) == b"parent"


def test_a_fork_shares_nothing_that_was_received(pool):
    segment = pool.fill([b"a" * 10_000])
    view = received(segment, 10_000)[0]
    pool.keep(segment)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        view[0:1] = b"c"
        os.read(reading, 1)
        os._exit(bytes(view[:3]) != b"caa")
    view[1:2] = b"p"
    kept = bytes(view[:3])
    del view
    assert not segment.free, "the child may still have it"
    os.write(writing, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert kept == b"apa"
    os.close(reading)
    os.close(writing)
