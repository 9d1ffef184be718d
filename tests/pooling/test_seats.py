from __future__ import annotations

import os
import pickle

import pytest

from klyng_mp.communicator.room import EpollPoller
from klyng_mp.native import core
from klyng_mp.pooling.seats import OPEN_WAYS, Seat, SharedWays, SocketWays, make_ways, ring_bytes
from klyng_mp.wire.frames import Message


class Sink:
    def __init__(self):
        self.messages = []

    def deliver(self, peer, message):
        self.messages.append(message)

    def lost(self, peer, reason):
        self.messages.append(reason)


def test_rings_are_large_and_their_sum_is_bounded():
    assert ring_bytes(3) == 1 << 20
    for places in (2, 9, 65, 257, 1024):
        size = ring_bytes(places)
        assert size & (size - 1) == 0
        assert size >= 4096
        assert size == 4096 or places * places * size <= 1 << 32


def test_a_seat_travels_to_processes_that_are_started_only():
    with pytest.raises(RuntimeError, match="being started"):
        pickle.dumps(Seat(1, 2, 0, (5,)))


@pytest.mark.parametrize(
    "kind", [SocketWays, pytest.param(SharedWays, marks=pytest.mark.skipif(core is None, reason="core"))]
)
def test_there_and_back(kind):
    ours, theirs, poller, other = Sink(), Sink(), EpollPoller(), EpollPoller()
    ways = kind(1, ours, poller)
    seat = ways.seat(1, 0)
    seat.fds = tuple(os.dup(fd) for fd in seat.fds)
    ways.seated(1, None)
    transport = seat.open(theirs, other)
    ways.transport.send(1, Message(1, 0, 7, 0, 2, b"there", ()), copy=True)
    transport.drain(0)
    transport.send(0, Message(0, 1, 1, 0, 2, b"back", ()), copy=True)
    ways.transport.drain(1)
    assert [(message.tag, message.head) for message in theirs.messages] == [(7, b"there")]
    assert [message.head for message in ours.messages] == [b"back"]
    transport.close()
    ways.close()
    poller.close()
    other.close()


def test_ways_are_known_while_they_are_open():
    poller = EpollPoller()
    ways = make_ways(2, Sink(), poller)
    assert ways in OPEN_WAYS
    assert isinstance(ways, SocketWays if core is None else SharedWays)
    ways.close()
    assert ways not in OPEN_WAYS
    poller.close()
