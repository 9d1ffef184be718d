"""Several transports as one."""

from __future__ import annotations

import pytest
from contracts.transport import Side, TransportContract, message, turn_until

from klyng_mp.transports.memory import MemoryHub, MemoryTransport
from klyng_mp.transports.routes import Routes


def memory(side, hub):
    return MemoryTransport(side, side.poller, hub=hub, number=side.number)


class TestRoutesContract(TransportContract):
    def join(self, one, other):
        hub = MemoryHub()
        for side in (one, other):
            side.transport = Routes(memory(side, MemoryHub()), {1 - side.number: memory(side, hub)})


@pytest.fixture
def sides():
    """0 reaches 1 by one hub and 2, like all others, by another."""
    trio = [Side(number) for number in range(3)]
    usual, special = MemoryHub(), MemoryHub()
    trio[0].transport = Routes(memory(trio[0], usual), {1: memory(trio[0], special)})
    trio[1].transport = memory(trio[1], special)
    trio[2].transport = memory(trio[2], usual)
    yield trio
    for side in trio:
        side.close()


def test_each_peer_is_reached_by_its_own(sides):
    one, other, third = sides
    one.send(other, message(one, b"special"))
    one.send(third, message(one, b"usual"))
    turn_until(lambda: other.messages and third.messages, *sides)
    assert (other.heads, third.heads) == ([b"special"], [b"usual"])
    assert one.transport.statistics().messages_sent == 2
    assert one.transport.statistics().connections == 2


def test_traffic_of_all_is_told_together(sides):
    one, other, third = sides
    for peer in (other, third, third):
        one.send(peer, message(one, b"h"))
    turn_until(lambda: other.messages and len(third.messages) == 2, *sides)
    traffic = one.transport.traffic()
    assert {peer: messages for peer, (messages, _) in traffic.items()} == {1: 1, 2: 2}
    assert traffic[2][1] == 2 * traffic[1][1] > 0


def test_what_is_pending_is_told_of_one_and_of_all(sides):
    one, other, third = sides
    for peer in (other, third):
        while one.send(peer, message(one, b"h" * 60_000), copy=True).done:
            pass
    assert one.transport.pending() == one.transport.pending(1) + one.transport.pending(2)
    assert one.transport.pending(1) > 0
    one.transport.disconnect(1)
    assert one.transport.pending() == one.transport.pending(2) > 0
