"""The shared-memory transport keeps the contract, and what is its own."""

from __future__ import annotations

import gc
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

from sharing import Shared

from klyng_mp.transports.shm import ring_size


class TestShmContract(TransportContract):
    @pytest.fixture(autouse=True)
    def _segment(self):
        self.shared = Shared()
        yield
        self.shared.close()

    def join(self, one, other):
        for side in (one, other):
            self.shared.join(side)


def test_rings_shrink_as_worlds_grow():
    assert ring_size(2) == 1024 * 1024
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
    ticket = one.send(other, message(one, b"h" * 2_000_000))
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


def test_a_bell_that_is_known_already_is_not_kept_twice(sides, shared):
    one = sides[0]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        one.transport.learn_bell(1, os.dup(shared.segment.bells[1]))
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_what_is_pending_is_what_has_not_left(sides):
    one, other, _ = sides
    tickets = [one.send(other, message(one, b"x" * 1000), copy=True) for _ in range(3000)]
    queued = [ticket for ticket in tickets if not ticket.done]
    assert one.transport.pending(1) == sum(ticket.size_bytes for ticket in queued) > 1_000_000
    withdrawn = [ticket for ticket in queued[::3] if ticket.withdraw()]
    other.turn()
    one.turn()
    left = [ticket for ticket in queued if not ticket.done and ticket not in withdrawn]
    assert one.transport.pending() == sum(ticket.size_bytes for ticket in left) > 0
    turn_until(lambda: not one.transport.pending(), one, other)
    turn_until(lambda: len(other.messages) == 3000 - len(withdrawn), one, other)


def test_a_transport_that_is_closed_while_it_reads(sides):
    """A collection may run anything, in the middle of a read."""
    one, other, _ = sides
    for _ in range(200):
        one.send(other, message(one, b"h", [memoryview(b"b")]), copy=True)

    def close(_phase, _info):
        gc.callbacks.remove(close)
        other.poller.unregister(other.transport._bell)
        other.transport.abandon()

    usual = gc.get_threshold()
    gc.callbacks.append(close)
    gc.set_threshold(1)
    try:
        other.turn()
    finally:
        gc.set_threshold(*usual)
        if close in gc.callbacks:
            gc.callbacks.remove(close)
    assert other.transport._closed
