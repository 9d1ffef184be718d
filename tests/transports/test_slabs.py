"""Large buffers in slabs: copied once or not at all, given back once, and shared with no forked child."""

from __future__ import annotations

import gc
import os
import resource

import pytest
from contracts.transport import fill, message, turn_until

from klyng_mp import native
from klyng_mp.communicator.buffers import give_unshared

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)


def die(side):
    """Leave as a process does that is killed: nobody is told."""
    side.poller.unregister(side.transport._bell)
    side.transport.abandon()


def take(side):
    turn_until(lambda: side.messages, side)
    return side.messages.pop()[1].buffers


def test_a_large_buffer_is_the_senders_slab_until_it_is_collected(sides):
    one, other, _ = sides
    for _ in range(20):
        assert one.send(other, message(one, b"h", [memoryview(bytes(10 << 20))])).done
        (buffer,) = take(other)
        assert type(buffer).__name__ == "Slab"
        assert other.transport.port.living_bytes == 10 << 20
        del buffer
    assert other.transport.port.living_bytes == 0
    assert one.transport.port.slab_bytes == 10 << 20  # the same memory each time


def test_the_sender_may_change_its_buffer_at_once(sides):
    one, other, _ = sides
    ours = bytearray(b"a" * 100_000)
    one.send(other, message(one, b"h", [memoryview(ours)]))
    ours[:] = bytes(100_000)
    (buffer,) = take(other)
    assert bytes(buffer) == b"a" * 100_000


def test_what_is_kept_stays_and_what_finds_no_slab_comes_in_pieces(sides):
    """A receiver that keeps a slice of everything takes the pool, and no more than that."""
    one, other, _ = sides
    kept = []
    for number in range(40):
        one.send(other, message(one, b"h", [memoryview(bytes([number]) * (10 << 20))]), copy=True)
        turn_until(lambda: other.messages, *sides[:2])
        (buffer,) = other.messages.pop()[1].buffers
        kept.append(memoryview(buffer)[5:10])
        del buffer
    kinds = [type(view.obj).__name__ for view in kept]
    assert kinds == ["Slab"] * 25 + ["bytearray"] * 15
    assert [bytes(view) for view in kept] == [bytes([number]) * 5 for number in range(40)]
    kept.clear()
    one.send(other, message(one, b"h", [memoryview(bytes(10 << 20))]))
    (buffer,) = take(other)
    assert type(buffer).__name__ == "Slab"


def test_sizes_of_all_kinds_share_the_pool(sides):
    one, other, _ = sides
    for number in range(600):
        size = 32768 + number * 7919 % (3 << 20)
        one.send(other, message(one, b"h", [memoryview(bytes([number % 256]) * size)]))
        (buffer,) = take(other)
        assert len(buffer) == size
        assert memoryview(buffer)[-1] == number % 256
        del buffer


def test_bytes_are_no_slabs(sides):
    """They become objects that own their memory, so a slab would be a second copy."""
    one, other, _ = sides
    for code, kind in ((6, bytes), (8, bytearray)):
        mine = message(one, b"", [memoryview(bytes(100_000))])
        mine = type(mine)(mine.context, 0, mine.tag, 3, code, mine.head, mine.buffers)
        one.transport.send(1, mine, copy=True)
        turn_until(lambda: other.messages, *sides[:2])
        assert type(other.messages.pop()[1].buffers[0]) is kind


def test_slabs_of_a_receiver_that_died_come_back(sides, shared):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(bytes(1 << 20))]))
    kept = take(other)
    die(other)
    one.transport.disconnect(1, dead=True)
    shared.join(other, incarnation=4)
    for _ in range(5):
        mine = message(one, b"h", [memoryview(bytes(1 << 20))])
        one.transport.send(1, type(mine)(mine.context, 0, 7, 4, 1, b"h", mine.buffers), copy=False)
        turn_until(lambda: other.messages, other)
        other.messages.clear()
    assert one.transport.port.slab_bytes == 1 << 20
    del kept


def test_a_successor_leaves_alone_what_receivers_still_have_of_the_dead_one(sides, shared):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(b"a" * (1 << 20))]))
    (kept,) = take(other)
    die(one)
    shared.join(one)
    for _ in range(3):
        one.send(other, message(one, b"h", [memoryview(b"b" * (1 << 20))]))
        (buffer,) = take(other)
        assert bytes(buffer) == b"b" * (1 << 20)
        del buffer
    assert bytes(kept) == b"a" * (1 << 20)


def test_a_slab_outlives_its_transport(sides):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(b"a" * (1 << 20))]))
    (kept,) = take(other)
    other.transport.close()
    one.transport.close()
    memoryview(kept)[0] = 7
    assert bytes(kept) == b"\x07" + b"a" * ((1 << 20) - 1)


def test_a_message_that_was_never_sent_gives_its_slabs_back(sides):
    one, other, _ = sides
    fill(one, other)
    for _ in range(5):
        ticket = one.send(other, message(one, b"h", [memoryview(bytes(1 << 20))]))
        assert ticket.withdraw()
        del ticket
    assert one.transport.port.slab_bytes == 1 << 20


def in_child(action):
    """Fork, run the action there, and return what it returned: a small int."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_child_has_slabs_of_its_own(sides):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(b"a" * 1_000_001)]))
    (kept,) = take(other)

    def write_and_drop():
        nonlocal kept
        view = memoryview(kept)
        if bytes(view) != b"a" * 1_000_001:
            return 1
        view[:] = b"c" * 1_000_001
        view.release()
        kept = None  # its finalizer must not give the parent's slab away
        return 0

    assert in_child(write_and_drop) == 0
    assert bytes(kept) == b"a" * 1_000_001
    one.send(other, message(one, b"h", [memoryview(b"b" * 1_000_001)]))
    (second,) = take(other)
    assert bytes(kept) == b"a" * 1_000_001
    assert bytes(second) == b"b" * 1_000_001
    assert one.transport.port.slab_bytes == 2 * 1_003_520


def test_what_the_parent_does_later_does_not_show_in_the_child(sides):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(b"a" * 1_000_000)]))
    (kept,) = take(other)
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(bytes(kept) != b"a" * 1_000_000)
    os.close(ready)
    memoryview(kept)[:] = bytes(1_000_000)
    del kept
    one.send(other, message(one, b"h", [memoryview(b"b" * 1_000_000)]))
    assert bytes(take(other)[0]) == b"b" * 1_000_000
    os.close(go)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_fork_without_slabs_waits_for_nobody(sides):
    assert in_child(lambda: 0) == 0


def test_a_child_without_memory_for_its_copies_ends_and_its_parent_goes_on(sides):
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(b"a" * (64 << 20))]))
    (kept,) = take(other)
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, usual[1]))
    try:
        assert in_child(lambda: 0) == 71
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, usual)
    assert in_child(lambda: bytes(kept) != b"a" * (64 << 20)) == 0


def test_what_was_queued_for_the_dead_gives_its_slab_back_once(sides, shared):
    """Its parcel may be collected long after, when the slab is another's."""
    one, other, third = sides
    fill(one, other)
    ticket = one.send(other, message(one, b"h", [memoryview(b"a" * (1 << 20))]))
    parcel = ticket.parcel
    die(other)
    one.transport.disconnect(1, dead=True)
    shared.join(other, incarnation=4)
    one.send(third, message(one, b"h", [memoryview(b"b" * (1 << 20))]))
    (kept,) = take(third)
    del parcel, ticket
    one.send(third, message(one, b"h", [memoryview(b"c" * (1 << 20))]))
    (later,) = take(third)
    assert bytes(kept) == b"b" * (1 << 20)
    assert bytes(later) == b"c" * (1 << 20)


def test_slabs_come_back_when_sender_and_receiver_have_both_died(sides, shared):
    one, other, _ = sides
    for _ in range(3):
        one.send(other, message(one, b"h", [memoryview(bytes(1 << 20))]))
    for side in (one, other):
        die(side)
        shared.join(side, incarnation=4)
    for _ in range(5):
        mine = message(one, b"h", [memoryview(bytes(1 << 20))])
        one.transport.send(1, type(mine)(mine.context, 0, 7, 4, 1, b"h", mine.buffers), copy=False)
        turn_until(lambda: other.messages, other)
        other.messages.clear()
    assert one.transport.port.slab_bytes == 3 << 20


# -- slabs that are written at their place, and given away


def test_a_slab_is_given_away_and_nothing_is_copied(sides):
    one, other, _ = sides
    mine = one.transport.port.allocate(1 << 20)
    memoryview(mine)[:5] = b"hello"
    assert not mine.given
    one.send(other, message(one, b"h", [mine]))
    assert mine.given
    (theirs,) = take(other)
    memoryview(theirs)[0:1] = b"j"
    assert bytes(memoryview(mine)[:5]) == b"jello"  # it is one memory
    del mine
    assert one.transport.port.allocate(1 << 20) is not None
    assert bytes(memoryview(theirs)[:5]) == b"jello"


def test_what_was_received_can_be_given_on(sides):
    one, other, third = sides
    mine = one.transport.port.allocate(1 << 20)
    memoryview(mine)[:5] = b"hello"
    one.send(other, message(one, b"h", [mine]))
    (theirs,) = take(other)
    other.send(third, message(other, b"h", [theirs]))
    (last,) = take(third)
    assert bytes(memoryview(last)[:5]) == b"hello"
    assert other.transport.port.slab_bytes == 0
    del mine, theirs, last
    gc.collect()
    again = one.transport.port.allocate(1 << 20)
    assert one.transport.port.slab_bytes == 1 << 20  # it came back to its owner
    del again


def test_a_gift_that_was_never_sent_stays_with_its_sender(sides):
    one, other, third = sides
    fill(one, other)
    mine = one.transport.port.allocate(1 << 20)
    ticket = one.send(other, message(one, b"h", [mine]))
    assert mine.given
    assert ticket.withdraw()
    assert not mine.given
    one.send(third, message(one, b"h", [mine]))
    assert mine.given


def test_a_gift_is_found_by_its_memory(sides):
    one, other, _ = sides
    port = one.transport.port
    mine = port.allocate(1 << 20)
    view = memoryview(mine)
    assert port.find_slab(view) is mine
    assert port.find_slab(view[4096:]) is None
    assert port.find_slab(bytes(1 << 20)) is None
    one.send(other, message(one, b"h", [mine]))
    assert port.find_slab(view) is None


def test_what_only_a_message_has_is_given_and_all_else_is_copied(sides):
    np = pytest.importorskip("numpy")
    one, other, _ = sides
    port = one.transport.port
    lone, shared, part, twice = (np.frombuffer(memoryview(port.allocate(1 << 20)), "u1") for _ in range(4))
    for number, array in enumerate((lone, shared, part, twice)):
        array[:] = number
    buffers = [memoryview(array) for array in (lone, np.ones(10), shared, part[5:], twice, twice)]
    kept = shared
    del lone, part, twice, shared, array
    given = give_unshared(port, buffers)
    assert not buffers
    assert [type(buffer).__name__ for buffer in given] == ["Slab"] + ["memoryview"] * 5
    one.send(other, message(one, b"h", given))
    assert given[0].given
    kept[:] = 9
    assert [bytes(buffer)[-1] for buffer in take(other)] == [0, 63, 1, 2, 3, 3]


def test_small_ones_are_not_worth_a_slab(sides):
    assert sides[0].transport.port.allocate(100) is None


def test_the_memory_of_slabs_that_nobody_used_goes_back(sides, shared):
    def in_use():
        return os.fstat(shared.segment.fd).st_blocks * 512

    one, other, _ = sides
    before = in_use()
    one.send(other, message(one, b"h", [memoryview(bytes(8 << 20))]))
    (kept,) = take(other)
    one.send(other, message(one, b"h", [memoryview(bytes(8 << 20))]))
    other.messages.clear()
    turn_until(lambda: other.messages, other)
    other.messages.clear()
    assert in_use() - before >= 16 << 20
    one.transport.port.trim()  # they were used since the last time, which never was
    assert in_use() - before >= 16 << 20
    one.transport.port.trim()
    assert 8 << 20 <= in_use() - before < 9 << 20
    assert bytes(kept) == bytes(8 << 20)


def test_slabs_that_were_trimmed_are_used_again(sides):
    one, other, _ = sides
    for number in range(4):
        one.send(other, message(one, b"h", [memoryview(bytes([number]) * (1 << 20))]))
        assert bytes(take(other)[0]) == bytes([number]) * (1 << 20)
        one.transport.port.trim()
        one.transport.port.trim()
    assert one.transport.port.slab_bytes == 1 << 20


def test_a_successor_keeps_what_is_booked_for_it_within_one_message(sides, shared):
    """To look for slabs of the dead must not take those that were given to who came after it."""
    one, other, _ = sides
    one.send(other, message(one, b"h", [memoryview(bytes(80_000))]))
    die(other)
    one.transport.disconnect(1, dead=True)
    shared.join(other, incarnation=4)
    parts = [memoryview(bytes([number]) * 80_000) for number in range(4)]
    mine = message(one, b"h", parts)
    one.transport.send(1, type(mine)(mine.context, 0, 7, 4, 1, b"h", mine.buffers), copy=False)
    assert [bytes(part) for part in take(other)] == [bytes(part) for part in parts]
