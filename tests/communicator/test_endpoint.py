"""Messages out and in: when a send returns, what a deadline leaves behind, and what an interruption does."""

from __future__ import annotations

import socket

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.endpoint import EAGER_BYTES, OUTBOX_BYTES, Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, DeadlineError
from klyng_mp.transports.contract import SENT
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import FrameReader, Message, make_context

RUN = make_context(1)
SOON = Deadline(0)


def message(head=b"h", buffers=(), tag=7):
    return Message(RUN, 0, tag, 0, 1, head, buffers)


class Line:
    """An endpoint (number 0) and the bare socket of its peer (number 1), which reads when it is told to."""

    def __init__(self):
        self.endpoint = Endpoint(0)
        self.transport = StreamTransport(self.endpoint, self.endpoint.poller, connect=lambda _: None)
        self.endpoint.use(self.transport)
        self.endpoint.mark_present(1, 0)
        ours, self.sock = socket.socketpair()
        self.transport.adopt(1, ours)

    def send(self, *args, deadline=SOON, **kwargs):
        self.endpoint.send(1, message(*args, **kwargs), deadline=deadline, doing="send")

    def fill(self):
        """Send until the kernel takes no more; return how many messages that were, and the ticket of the last."""
        count, ticket = 0, SENT
        while ticket.done:
            ticket = self.endpoint.start_send(1, message(b"filler", [memoryview(bytes(100_000))]))
            count += 1
        return count, ticket

    def read(self, count):
        """Read messages at the other end while the endpoint flushes."""
        reader, got = FrameReader(), []
        self.sock.setblocking(False)
        while len(got) < count:
            try:
                room = reader.buffer()
                got += reader.received(self.sock.recv_into(room))
            except BlockingIOError:
                self.endpoint.progress()
        return got


@pytest.fixture
def line():
    made = Line()
    yield made
    made.endpoint.close()
    made.sock.close()


def test_a_small_message_need_not_wait_for_the_kernel_until_the_outbox_is_full(line):
    fillers, _ = line.fill()
    sent = 0
    while line.transport.pending(1) + EAGER_BYTES + 100 <= OUTBOX_BYTES:
        line.send(b"small", [memoryview(bytes(EAGER_BYTES - 5))])
        sent += 1
    assert sent
    with pytest.raises(DeadlineError, match="nothing of the message was sent"):
        line.send(b"small", [memoryview(bytes(EAGER_BYTES - 5))])
    assert [got.head for got in line.read(fillers + sent)] == [b"filler"] * fillers + [b"small"] * sent


def test_a_small_message_waits_for_room_in_the_outbox(line):
    fillers, _ = line.fill()
    line.endpoint.start_send(1, message(b"filler", [memoryview(bytes(OUTBOX_BYTES))]))
    waiting = when_waiting(line.endpoint)
    call = Background(lambda: line.send(b"small", deadline=Deadline(LIMIT)))
    assert waiting.wait(LIMIT)
    got = line.read(fillers + 2)
    call.result()
    assert [one.head for one in got] == [b"filler"] * (fillers + 1) + [b"small"]


def test_a_larger_message_waits_for_the_kernel(line):
    line.fill()
    with pytest.raises(DeadlineError):
        line.send(b"h", [memoryview(bytes(EAGER_BYTES))])


def test_a_small_message_is_copied_when_it_has_to_be_queued(line):
    fillers, _ = line.fill()
    buffer = bytearray(b"a" * 30_000)
    line.send(b"small", [memoryview(buffer)])
    buffer[:] = bytes(30_000)
    assert bytes(line.read(fillers + 1)[-1].buffers[0]) == b"a" * 30_000


def test_a_send_that_has_begun_is_delivered_after_its_time_and_the_buffers_are_free(line):
    buffer = bytearray(b"a" * 6_000_000)
    with pytest.raises(DeadlineError, match="a part of the message had left already, so the rest follows"):
        line.send(b"h", [memoryview(buffer)])
    buffer[:] = bytes(len(buffer))
    (got,) = line.read(1)
    assert bytes(got.buffers[0]) == b"a" * 6_000_000
    assert line.endpoint.sent_counts() == {1: 1}


def test_an_interrupted_send_leaves_whole_messages_only(line, monkeypatch):
    buffer = bytearray(b"a" * 6_000_000)

    def interrupted(_waiter, _left):
        raise RuntimeError("as a signal handler would")

    with monkeypatch.context() as patch:
        patch.setattr(line.endpoint._room, "_poll", interrupted)
        with pytest.raises(RuntimeError, match="as a signal handler would"):
            line.send(b"h", [memoryview(buffer)], deadline=Deadline(LIMIT))
    buffer[:] = bytes(len(buffer))
    line.endpoint.start_send(1, message(b"next"))
    first, second = line.read(2)
    assert bytes(first.buffers[0]) == b"a" * 6_000_000
    assert second.head == b"next"
    assert not line.endpoint.poisoned


@pytest.mark.parametrize("where", ["deliver", "post"])
def test_an_interruption_while_messages_are_moved_poisons(line, where, monkeypatch):
    class Interrupted:
        def __init__(self, mailbox):
            self.mailbox = mailbox

        def __getattr__(self, name):
            if name == where:
                raise KeyboardInterrupt
            return getattr(self.mailbox, name)

    with ranks(2) as made:
        sender, receiver = made.comms
        sender.send("x", 1)
        monkeypatch.setattr(receiver.endpoint, "mailbox", Interrupted(receiver.endpoint.mailbox))
        with pytest.raises(KeyboardInterrupt):
            receiver.recv(0)
        monkeypatch.undo()
        assert receiver.endpoint.poisoned
        with pytest.raises(ClosedError, match="its connections are closed and its process must end"):
            receiver.recv(0)


def test_an_interruption_of_a_send_poisons(line, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(line.transport, "send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        line.send(b"h")
    assert line.endpoint.poisoned
    assert line.sock.recv(1) == b""  # the peer sees an end, not half a frame


def test_start_send_copies(line):
    fillers, _ = line.fill()
    buffer = bytearray(b"a" * 1_000_000)
    ticket = line.endpoint.start_send(1, message(b"h", [memoryview(buffer)]))
    buffer[:] = bytes(len(buffer))
    assert not line.endpoint.is_sent(ticket, 1)
    with pytest.raises(DeadlineError, match="the message stays on its way"):
        line.endpoint.wait_sent(ticket, 1, deadline=SOON, doing="isend")
    assert bytes(line.read(fillers + 1)[-1].buffers[0]) == b"a" * 1_000_000
    assert line.endpoint.is_sent(ticket, 1)


def test_withdrawing_uncounts(line):
    fillers, filler = line.fill()
    sent = message()
    ticket = line.endpoint.start_send(1, sent)
    assert line.endpoint.sent_counts() == {1: fillers + 1}
    assert line.endpoint.withdraw_send(ticket, 1, sent)
    assert line.endpoint.sent_counts() == {1: fillers}
    assert not line.endpoint.withdraw_send(filler, 1, sent)
    assert not line.endpoint.withdraw_send(SENT, 1, sent)


def test_a_message_to_oneself_is_copied(line):
    buffer = bytearray(b"a" * 100)
    line.endpoint.send(0, message(b"h", [memoryview(buffer)]), deadline=SOON, doing="send")
    buffer[:] = bytes(100)
    got = line.endpoint.receive(RUN, 0, 7, deadline=SOON, doing="recv")
    assert bytes(got.buffers[0]) == b"a" * 100
