"""The shared-memory transport keeps the contract, and what is its own."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from contracts.transport import Side, TransportContract, fill, message, turn_until

from klyng_mp import native
from klyng_mp.errors import ClosedError, LocalProtocolError

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)

from klyng_mp.transports.shm import Segment, ShmTransport, ring_size


class Shared:
    """A segment, and the transports of some of its ranks in this process."""

    def __init__(self, ranks=2):
        self.segment = Segment(ranks)
        self.ranks = ranks
        self.calls = []

    def join(self, side, *, incarnation=3, known_bells=False):
        def call(peer):
            self.calls.append((side.number, peer))
            self.segment.ring(peer)
            side.transport.learn_bell(peer, os.dup(self.segment.bells[peer]))

        place = os.dup(self.segment.fd), os.dup(self.segment.bells[side.number]), self.ranks, side.number, incarnation
        side.transport = ShmTransport(side, side.poller, place=place, spin=False, call=call)

    def close(self):
        self.segment.close()


class TestShmContract(TransportContract):
    @pytest.fixture(autouse=True)
    def _segment(self):
        self.shared = Shared()
        yield
        self.shared.close()

    def join(self, one, other):
        for side in (one, other):
            self.shared.join(side)


@pytest.fixture
def shared():
    made = Shared(3)
    yield made
    made.close()


@pytest.fixture
def sides(shared):
    trio = [Side(number) for number in range(3)]
    for side in trio:
        shared.join(side)
    yield trio
    for side in trio:
        side.close()


def test_rings_shrink_as_worlds_grow():
    assert ring_size(2) == 128 * 1024
    assert ring_size(64) == 16 * 1024
    assert ring_size(1000) == 4096
    for ranks in range(1, 1025):
        size = ring_size(ranks)
        assert size & (size - 1) == 0


def test_nobody_is_called_who_does_not_sleep(shared, sides):
    one, other, _ = sides
    one.send(other, message(one, b"h"))
    assert shared.calls == []
    other.turn()
    assert other.heads == [b"h"]


def test_who_sleeps_is_called_once_and_then_rung(shared, sides):
    one, other, _ = sides
    for number in range(3):
        assert other.poller.noises(before_sleep=True) == []
        one.send(other, message(one, b"%d" % number))
        one.send(other, message(one, b"again"))
        assert other.poller.wait(0, 10) != []
        other.turn()
    assert shared.calls == [(0, 1)]
    assert len(other.messages) == 6


def test_a_successor_goes_on_where_the_dead_one_stopped(shared, sides):
    one, other, _ = sides
    for number in range(5):
        one.send(other, message(one, b"%d" % number))
    other.turn()
    fill(one, other)  # a message of which only a part is there
    other.poller.unregister(other.transport._bell)
    other.transport.abandon()
    shared.join(other, incarnation=4)
    one.transport.disconnect(1)
    one.send(other, message(one, b"for the former"))
    mine = message(one, b"for the successor")
    mine = type(mine)(mine.context, 0, mine.tag, 4, mine.code, mine.head, mine.buffers)
    one.transport.send(1, mine, copy=False)
    other.messages.clear()
    turn_until(lambda: other.messages, other)
    assert other.heads == [b"for the successor"]
    assert other.transport.port.dropped >= 1


def test_a_sender_that_dies_within_a_message_leaves_no_half_of_it(shared, sides):
    one, other, _ = sides
    fill(one, other)
    one.poller.unregister(one.transport._bell)
    one.transport.abandon()
    shared.join(one)
    other.turn()
    one.send(other, message(one, b"whole"))
    turn_until(lambda: other.messages, other)
    assert other.heads == [b"whole"]


def let_die(side):
    side.poller.unregister(side.transport._bell)
    side.transport.abandon()


def test_the_end_of_a_dead_one_is_not_taken_for_its_successors(shared, sides):
    one, other, _ = sides
    one.send(other, message(one, b"before"))
    other.turn()
    one.transport.close()
    turn_until(lambda: other.losses, other)
    other.transport.disconnect(0, dead=True)  # its end is explained
    other.transport.disconnect(0, dead=True)  # its successor is presented
    shared.join(one, incarnation=4)
    assert not other.turn()
    assert len(other.losses) == 1
    one.send(other, message(one, b"after"))
    other.turn()
    assert (other.heads, len(other.losses)) == ([b"before", b"after"], 1)
    one.transport.close()
    turn_until(lambda: len(other.losses) == 2, other)


def test_a_successor_that_says_nothing_can_end_all_the_same(shared, sides):
    one, other, _ = sides
    other.send(one, message(other, b"before"))
    one.turn()
    one.transport.close()
    turn_until(lambda: other.losses, other)
    other.transport.disconnect(0, dead=True)
    other.transport.disconnect(0, dead=True)
    shared.join(one, incarnation=4)
    assert not other.turn()
    one.transport.close()
    turn_until(lambda: len(other.losses) == 2, other)


def test_the_end_of_one_that_wrote_nonsense_is_not_taken_for_its_successors(shared, sides):
    one, other, _ = sides
    one.send(other, message(one, b"before"))
    other.turn()
    with mmap.mmap(shared.segment.fd, shared.ranks * 8192) as memory:
        tail = shared.ranks * 4096 + 1 * shared.ranks * 256
        memory[tail + 4] = 1  # more is said to be there than a ring holds
    one.transport.close()
    turn_until(lambda: other.losses, other)
    assert "broke the protocol" in other.losses[0][1]
    other.transport.disconnect(0, dead=True)
    other.transport.disconnect(0, dead=True)
    shared.join(one, incarnation=4)
    assert not other.turn()
    one.send(other, message(one, b"after"))
    other.turn()
    assert (other.heads, len(other.losses)) == ([b"before", b"after"], 1)


def test_room_is_told_until_it_is_used(sides):
    one, other, _ = sides
    ticket = one.send(other, message(one, b"h" * 300_000))
    assert not ticket.done
    other.turn()
    for _ in range(3):  # who hears of it may be interrupted before he does anything about it
        assert one.poller.noises(before_sleep=True) != []
    turn_until(lambda: ticket.done, one, other)
    one.turn()
    assert one.poller.noises(before_sleep=True) == []


def test_room_that_nobody_wants_any_more_is_told_once(sides):
    one, other, _ = sides
    fill(one, other)
    other.turn()
    one.transport.disconnect(1)
    one.turn()
    assert one.poller.noises(before_sleep=True) == []


def test_senders_do_not_hold_each_other_back(sides):
    first, second, receiver = sides
    fill(first, receiver)
    second.send(receiver, message(second, b"second"))
    turn_until(lambda: len(receiver.messages) == 2, first, receiver)
    assert sorted(receiver.heads) == [b"filler", b"second"]


def test_what_cannot_be_sent_is_refused_and_nothing_is(sides):
    one, other, _ = sides
    with pytest.raises(LocalProtocolError):
        one.send(other, message(one, b"h", tag="\ud800"))
    one.send(other, message(one, b"h"))
    other.turn()
    assert other.heads == [b"h"]
    one.transport.close()
    with pytest.raises(ClosedError):
        one.send(other, message(one, b"h"))


# -- slabs: large buffers that are copied once


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
    other.poller.unregister(other.transport._bell)
    other.transport.abandon()
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
    one.poller.unregister(one.transport._bell)
    one.transport.abandon()
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


def test_where_files_may_not_be_large_buffers_come_in_pieces():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, hard))
    try:
        shared = Shared()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    one, other = Side(0), Side(1)
    for side in (one, other):
        shared.join(side)
    one.send(other, message(one, b"h", [memoryview(b"a" * (1 << 20))]), copy=True)
    turn_until(lambda: other.messages, one, other)
    (buffer,) = other.messages.pop()[1].buffers
    assert buffer == bytearray(b"a" * (1 << 20))
    for side in (one, other):
        side.close()
    shared.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_peer_that_writes_nonsense_harms_nobody_but_itself(seed):
    """In a process of its own, since what is tested is that it does not crash."""
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run([sys.executable, script, str(seed), "2000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2000 rounds: ")
