"""Receives: what an interruption leaves, and what is put back."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.deadline import Deadline
from klyng_mp.wire.frames import make_context
from klyng_mp.wire.mailbox import Receive

SOON = Deadline(0)


def test_an_interrupted_receive_takes_nothing():
    with ranks(2) as made:
        sender, receiver = made.comms
        room = receiver.endpoint._room
        poll = room._poll

        def interrupt(waiter, left):
            room._call(poll(waiter, left))  # the message is matched...
            room._poll = poll
            raise RuntimeError("as a signal handler would")  # ...and then comes the signal

        room._poll = interrupt
        sender.send("first", 1)
        sender.send("second", 1)
        with pytest.raises(RuntimeError, match="as a signal handler would"):
            receiver.recv(0)
        assert [receiver.recv(0, timeout=LIMIT) for _ in range(2)] == ["first", "second"]
        assert receiver.endpoint.mailbox.taken(1) == 2


def test_what_is_put_back_comes_first_again():
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.send("first", 1, 7)
        sender.send("second", 1, 7)
        endpoint = receiver.endpoint
        message = endpoint.receive(make_context(1), 0, 7, deadline=Deadline(LIMIT), doing="recv")
        endpoint.put_back(message)
        assert [receiver.recv(0, 7) for _ in range(2)] == ["first", "second"]
        assert endpoint.mailbox.taken(1) == 2


def test_what_is_put_back_is_for_who_waits_for_it():
    with ranks(2) as made:
        sender, receiver = made.comms
        endpoint = receiver.endpoint
        sender.send("first", 1, 7)
        message = endpoint.receive(make_context(1), 0, 7, deadline=Deadline(LIMIT), doing="recv")
        there = when_waiting(endpoint)
        call = Background(lambda: receiver.recv(0, 7, timeout=LIMIT))
        assert there.wait(LIMIT)
        endpoint.put_back(message)
        assert call.result() == "first"
        assert endpoint.mailbox.taken(1) == 1


def test_a_message_in_a_callers_buffer_is_put_back_with_memory_of_its_own():
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.send(bytes(10_000), 1, 7)
        message = receiver.endpoint.receive(make_context(1), 0, 7, deadline=Deadline(LIMIT), doing="recv_into")
        buffer = bytearray(10_000)
        message.buffers = [memoryview(buffer)]  # as if it had landed there
        receiver.endpoint.put_back(message)
        buffer[:] = b"x" * 10_000
        assert receiver.recv(0, 7) == bytes(10_000)


def test_a_landing_is_asked_for_only_by_the_first_receive_of_its_context():
    class Landing:
        asked = 0

        def prepare(self, _port, _receive):
            self.asked += 1

    class Port:
        def unland(self, _landing):
            pass

    with ranks(2) as made:
        _, receiver = made.comms
        receiver.endpoint.port = Port()
        landing = Landing()
        posted = receiver.irecv(0, 7)
        for expected in (0, 1):
            with pytest.raises(TimeoutError):
                receiver.endpoint.fulfil(
                    Receive(make_context(1), 0, 7), deadline=SOON, doing="recv_into", landing=landing
                )
            assert landing.asked == expected
            posted.cancel()
