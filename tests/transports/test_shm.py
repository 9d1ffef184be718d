"""The shared-memory transport keeps the contract, and what is its own."""

from __future__ import annotations

import os

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
