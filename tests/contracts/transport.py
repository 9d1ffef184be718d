"""What every transport promises, as a suite: subclass `TransportContract` and say how two sides are joined."""

from __future__ import annotations

import os
import select
import time

import pytest

from klyng_mp.communicator.room import EpollPoller
from klyng_mp.errors import PeerLostError
from klyng_mp.wire.frames import Message

FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))


class Side:
    """One end: a sink that takes notes, a poller that turns when told to, and the transport."""

    def __init__(self, number):
        self.number = number
        self.poller = EpollPoller()
        self.messages = []
        self.losses = []
        self.transport = None

    def deliver(self, peer, message):
        self.messages.append((peer, message))

    def lost(self, peer, reason):
        self.losses.append((peer, reason))

    def turn(self, timeout=0.0):
        """Do what is due; tell whether there was anything."""
        events = self.poller.noises(before_sleep=False) or self.poller.wait(timeout, 64)
        for fd, happened in events:
            callback = self.poller.callbacks.get(fd)
            if callback is not None:
                callback(happened)
        return bool(events)

    def send(self, peer, message, *, copy=False):
        return self.transport.send(peer.number, message, copy=copy)

    def close(self):
        self.transport.close()
        self.poller.close()

    @property
    def heads(self):
        return [message.head for _, message in self.messages]


def message(side, head=b"", buffers=(), tag=7, context=1 << 32):
    return Message(context, side.number, tag, 3, 1, head, buffers)


def much():
    """Return 20 MiB in buffers that no transport has a better place for than its queue."""
    return [memoryview(bytes(20 << 10))] * 1024


def fill(side, peer):
    """Send so much that whatever follows is queued."""
    return side.send(peer, message(side, b"filler", much()))


def turn_until(condition, *sides):
    """Let the sides take turns until the condition holds."""
    end = time.monotonic() + 20 * FACTOR
    while not condition():
        assert time.monotonic() < end, "it never came"
        moved = [side.turn() for side in sides]
        if not any(moved) and not any(side.poller.noises(before_sleep=True) for side in sides):
            # Whoever's turn it is next: wait for any of the pollers without a busy loop.
            select.select([side.poller.fileno() for side in sides], [], [], 0.05)


BODIES = {
    "nothing": (b"", []),
    "head": (b"hello", []),
    "large head": (bytes(range(256)) * 3000, []),
    "one small buffer": (b"h", [b"abc"]),
    "empty buffers": (b"h", [b"", b"x", b""]),
    "one of 100 KiB": (b"h", [b"q" * 100_000]),
    "one of 9 MiB": (b"h", [bytes(9 << 20)]),
    "small and large": (b"h" * 500, [b"a" * 10, b"b" * 200_000, b"c" * 10, b"", b"d" * 70_000, b"e" * 1000]),
    "more than the kernel gathers": (b"h", [bytes([number % 256]) * 100 for number in range(3000)]),
}


class TransportContract:
    """Subclass it, name it Test…, and implement `join`."""

    def join(self, one: Side, other: Side) -> None:
        """Give both sides a transport, connected to each other."""
        raise NotImplementedError

    @pytest.fixture
    def sides(self):
        pair = Side(0), Side(1)
        self.join(*pair)
        yield pair
        for side in pair:
            side.close()

    @pytest.mark.parametrize("name", BODIES)
    def test_a_message_arrives_as_it_was_sent(self, sides, name):
        one, other = sides
        head, buffers = BODIES[name]
        one.send(other, message(one, head, [memoryview(buffer) for buffer in buffers]))
        turn_until(lambda: other.messages, *sides)
        ((peer, got),) = other.messages
        assert peer == 0
        assert (got.context, got.source, got.tag, got.incarnation, got.code) == (1 << 32, 0, 7, 3, 1)
        assert type(got.head) is bytes
        assert got.head == head
        assert [bytes(buffer) for buffer in got.buffers] == buffers

    @pytest.mark.parametrize("tag", [0, 2**63 - 1, "", "a word", "ünï¢ode 🐍", "x" * 65536])
    def test_tags_of_all_kinds(self, sides, tag):
        one, other = sides
        one.send(other, message(one, b"h", tag=tag))
        turn_until(lambda: other.messages, *sides)
        assert other.messages[0][1].tag == tag
        assert type(other.messages[0][1].tag) is type(tag)

    def test_what_arrives_is_writable_and_its_own(self, sides):
        one, other = sides
        ours = [bytearray(b"a" * 10), bytearray(b"b" * 100_000), bytearray(9 << 20)]
        one.send(other, message(one, b"h", [memoryview(buffer) for buffer in ours]))
        turn_until(lambda: other.messages, *sides)
        for buffer in other.messages[0][1].buffers:
            memoryview(buffer)[0] = 255
        assert [buffer[0] for buffer in ours] == [ord("a"), ord("b"), 0]

    def test_order_is_kept_whatever_the_sizes(self, sides):
        one, other = sides
        sizes = [0, 10, 200_000, 3, 70_000, 1, 500_000, 2, 64 * 1024, 20_000] * 5
        for number, size in enumerate(sizes):
            one.send(other, message(one, b"%d" % number, [memoryview(bytes(size))]), copy=True)
        turn_until(lambda: len(other.messages) == len(sizes), *sides)
        assert other.heads == [b"%d" % number for number in range(len(sizes))]

    def test_send_never_waits_and_says_what_is_pending(self, sides):
        one, other = sides
        fill(one, other)
        ticket = one.send(other, message(one, b"h", much()))
        assert not ticket.done
        assert one.transport.pending(1) >= 20 << 20
        assert one.transport.pending() == one.transport.pending(1)
        turn_until(lambda: ticket.done and len(other.messages) == 2, *sides)
        assert one.transport.pending(1) == one.transport.pending() == 0
        assert one.transport.pending(99) == 0

    def test_small_messages_are_with_the_kernel_at_once(self, sides):
        one, other = sides
        assert one.send(other, message(one, b"h")).done
        assert one.transport.pending() == 0

    @pytest.mark.parametrize("how", ["copy", "keep"])
    def test_a_copied_buffer_may_be_changed_at_once(self, sides, how):
        one, other = sides
        fill(one, other)
        buffer = bytearray(b"a" * (10 << 20))
        ticket = one.send(other, message(one, b"h", [memoryview(buffer)]), copy=how == "copy")
        if how == "keep":
            ticket.keep()
        buffer[:] = bytes(len(buffer))
        turn_until(lambda: len(other.messages) == 2, *sides)
        assert bytes(other.messages[1][1].buffers[0]) == b"a" * (10 << 20)

    def test_what_has_not_begun_can_be_withdrawn(self, sides):
        one, other = sides
        first = fill(one, other)
        second = one.send(other, message(one, b"second", much()))
        third = one.send(other, message(one, b"third"), copy=True)
        before = one.transport.pending()
        assert second.withdraw()
        assert not second.done
        assert one.transport.pending() < before - (19 << 20)
        turn_until(lambda: len(other.messages) == 2, *sides)
        assert other.heads == [b"filler", b"third"]
        assert first.done
        assert third.done
        assert not first.withdraw()

    def test_both_may_send_much_at_once(self, sides):
        one, other = sides
        tickets = [
            side.send(peer, message(side, b"h", [memoryview(bytes(30 << 20))]))
            for side, peer in ((one, other), (other, one))
        ]
        turn_until(lambda: one.messages and other.messages, *sides)
        assert all(ticket.done for ticket in tickets)

    def test_what_was_sent_before_the_end_comes_before_the_end(self, sides):
        one, other = sides
        for number in range(100):
            one.send(other, message(one, b"%d" % number))
        one.transport.close()
        turn_until(lambda: other.losses, other)
        assert other.heads == [b"%d" % number for number in range(100)]
        assert other.losses == [(0, "closed its connection")]
        assert one.losses == []

    def test_drain_takes_in_all_that_has_arrived(self, sides):
        one, other = sides
        for number in range(200):
            one.send(other, message(one, b"%d" % number, [memoryview(bytes(100))]))
        turn_until(lambda: other.transport.drain(0) or len(other.messages) == 200)  # nobody polls
        other.transport.drain(99)
        assert len(other.messages) == 200

    def test_what_is_queued_for_the_lost_fails(self, sides):
        one, other = sides
        fill(one, other)
        tickets = [fill(one, other) for _ in range(3)]
        other.transport.close()
        turn_until(lambda: one.losses, one)
        assert not any(ticket.done for ticket in tickets)
        assert all(isinstance(ticket.error, PeerLostError) for ticket in tickets)
        assert not any(ticket.withdraw() for ticket in tickets)
        assert one.transport.pending() == 0

    def test_a_send_to_the_lost_tells_instead_of_raising(self, sides):
        one, other = sides
        other.send(one, message(other, b"last words"))
        other.transport.close()
        ticket = None
        for _ in range(100):  # a kernel may take one or the other before it notices
            ticket = one.send(other, message(one, b"h"))
            if one.losses:
                break
            one.turn()
        assert one.losses == [(1, "closed its connection")]
        assert one.heads == [b"last words"]
        assert ticket is not None

    def test_disconnect_tells_the_other_side_only(self, sides):
        one, other = sides
        one.send(other, message(one, b"first"))
        one.transport.disconnect(1)
        one.transport.disconnect(1)
        turn_until(lambda: other.losses, other)
        assert other.heads == [b"first"]
        assert one.losses == []
        assert one.transport.pending() == 0

    def test_an_abandoned_transport_tells_its_own_side_nothing(self, sides):
        one, other = sides
        one.send(other, message(one, b"first"))
        one.poller.close()
        one.transport.abandon()
        turn_until(lambda: other.messages, other)
        assert one.losses == []

    def test_statistics_count(self, sides):
        one, other = sides
        one.send(other, message(one, b"x" * 1000, [memoryview(bytes(300_000))]))
        one.send(other, message(one, b"h"))
        turn_until(lambda: len(other.messages) == 2, *sides)
        sent, received = one.transport.statistics(), other.transport.statistics()
        assert (sent.messages_sent, sent.messages_received) == (2, 0)
        assert (received.messages_sent, received.messages_received) == (0, 2)
        assert sent.bytes_sent >= 301_001
        assert received.bytes_received >= 301_001
        assert sent.connections == 1

    def test_traffic_counts_what_has_left_for_whom(self, sides):
        one, other = sides
        assert one.transport.traffic() == {}
        fill(one, other)
        for number in range(10):
            one.send(other, message(one, b"x" * 1000), copy=True)
        withdrawn = one.send(other, message(one, b"", much()))
        assert one.transport.traffic().get(1, (0, 0))[0] < 10
        assert withdrawn.withdraw()
        turn_until(lambda: len(other.messages) == 11, *sides)
        ((peer, (messages, size)),) = one.transport.traffic().items()
        assert (peer, messages) == (1, 11)
        assert 10_000 + (20 << 20) < size < 22 << 20
        assert other.transport.traffic() == {}

    def test_traffic_with_the_lost_stays_counted(self, sides):
        one, other = sides
        one.send(other, message(one, b"h", [memoryview(bytes(100_000))]))
        turn_until(lambda: other.messages, *sides)
        before = one.transport.traffic()
        other.transport.close()
        turn_until(lambda: one.losses, one)
        assert one.transport.traffic() == before
        assert before[1][0] == 1
        assert before[1][1] > 100_000

    def test_close_may_be_called_again(self, sides):
        one, _ = sides
        one.transport.close()
        one.transport.close()
        assert one.transport.statistics().connections == 0
