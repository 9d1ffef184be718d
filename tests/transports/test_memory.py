"""The memory transport keeps the contract, and what is its own."""

from __future__ import annotations

import pytest
from contracts.transport import Side, TransportContract, message, turn_until

from klyng_mp.errors import ClosedError
from klyng_mp.transports.memory import MemoryHub, MemoryTransport


def join(*sides, hub=None):
    hub = hub or MemoryHub()
    for side in sides:
        side.transport = MemoryTransport(side, side.poller, hub=hub, number=side.number)


class TestMemoryContract(TransportContract):
    def join(self, one, other):
        join(one, other)


def test_a_full_inbox_holds_the_sender_back_until_it_is_emptied():
    one, other = Side(0), Side(1)
    join(one, other, hub=MemoryHub(capacity_bytes=100))
    tickets = [one.send(other, message(one, b"%d" % number), copy=True) for number in range(20)]
    assert [ticket.done for ticket in tickets] != [True] * 20
    turn_until(lambda: len(other.messages) == 20, one, other)
    assert all(ticket.done for ticket in tickets)
    assert other.heads == [b"%d" % number for number in range(20)]
    one.close()
    other.close()


def test_senders_do_not_hold_each_other_back():
    sides = [Side(number) for number in range(3)]
    join(*sides, hub=MemoryHub(capacity_bytes=100))
    first, second, receiver = sides
    while first.send(receiver, message(first, b"first"), copy=True).done:
        pass
    assert second.send(receiver, message(second, b"second")).done
    for side in sides:
        side.close()


def test_nobody_there():
    side = Side(0)
    join(side)
    ticket = side.transport.send(5, message(side, b"h"), copy=False)
    assert ticket.error is not None
    assert side.losses == [(5, "closed its connection")]
    side.transport.close()
    with pytest.raises(ClosedError):
        side.transport.send(5, message(side, b"h"), copy=False)
    side.close()
