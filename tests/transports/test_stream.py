"""The stream transport keeps the contract over unix sockets and TCP, and what is its own."""

from __future__ import annotations

import errno
import select
import socket

import pytest
from contracts.transport import Side, TransportContract, message, turn_until

from klyng_mp.errors import MessageTooLargeError, PeerLostError
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import pack_frame


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        return one, other


def never(peer):
    raise AssertionError(f"nobody asked to connect to {peer}")


def give_transport(side, connect=never):
    side.transport = StreamTransport(side, side.poller, connect=connect)


def join(one, other, pair):
    for side, peer, sock in zip((one, other), (other, one), pair, strict=True):
        give_transport(side)
        side.transport.adopt(peer.number, sock)


class TestUnixContract(TransportContract):
    def join(self, one, other):
        join(one, other, socket.socketpair())


class TestTcpContract(TransportContract):
    def join(self, one, other):
        join(one, other, tcp_pair())


@pytest.fixture
def raw():
    """Give a side and a bare socket that plays its peer number 1."""
    side = Side(0)
    give_transport(side)
    ours, theirs = socket.socketpair()
    side.transport.adopt(1, ours)
    yield side, theirs
    theirs.close()
    side.close()


@pytest.fixture
def lonely():
    """Give a side that notes whom it is asked to connect to."""
    side = Side(0)
    side.asked = []
    give_transport(side, side.asked.append)
    yield side
    side.close()


class Choked:
    """A socket that takes only so many bytes a call, and gives only so many."""

    def __init__(self, sock, limit_bytes):
        self._sock = sock
        self._limit_bytes = limit_bytes

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def send(self, data):
        return self._sock.send(memoryview(data)[: self._limit_bytes])

    def sendmsg(self, parts):
        return self._sock.send(b"".join(parts)[: self._limit_bytes])

    def recv_into(self, buffer):
        return self._sock.recv_into(buffer[: self._limit_bytes])


class Failing:
    """A socket whose calls fail as a network does."""

    def __init__(self, sock, code):
        self._sock = sock
        self._code = code

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def send(self, data):
        raise OSError(self._code, "as told")

    sendmsg = recv_into = send


@pytest.mark.parametrize("limit_bytes", [1, 7, 41, 1000])
def test_frames_survive_any_fragmentation(limit_bytes):
    one, other = Side(0), Side(1)
    ours, theirs = socket.socketpair()
    join(one, other, (Choked(ours, limit_bytes), Choked(theirs, limit_bytes)))
    size = 300 * limit_bytes
    for number in range(3):
        one.send(other, message(one, b"%d" % number, [memoryview(bytes(size)), memoryview(b"end")], tag="word"))
    turn_until(lambda: len(other.messages) == 3, one, other)
    assert other.heads == [b"0", b"1", b"2"]
    assert [bytes(got.buffers[0]) for _, got in other.messages] == [bytes(size)] * 3
    assert [bytes(got.buffers[1]) for _, got in other.messages] == [b"end"] * 3
    one.close()
    other.close()


def test_a_peer_without_connection_is_asked_for_once_and_gets_all_in_order(lonely):
    tickets = [lonely.transport.send(1, message(lonely, b"%d" % number), copy=True) for number in range(5)]
    assert lonely.asked == [1]
    assert not any(ticket.done for ticket in tickets)
    assert tickets[2].withdraw()
    other = Side(1)
    give_transport(other)
    ours, theirs = socket.socketpair()
    lonely.transport.adopt(1, ours)
    other.transport.adopt(0, theirs)
    assert [ticket.done for ticket in tickets] == [True, True, False, True, True]
    turn_until(lambda: len(other.messages) == 4, other)
    assert other.heads == [b"0", b"1", b"3", b"4"]
    other.close()


def test_connect_may_adopt_at_once():
    side = Side(0)
    ours, theirs = socket.socketpair()
    give_transport(side, lambda peer: side.transport.adopt(peer, ours))
    assert side.transport.send(1, message(side, b"h"), copy=False).done
    assert theirs.recv(1000) == pack_frame(message(side, b"h"))[0]
    side.close()
    theirs.close()


def test_who_cannot_be_reached_is_lost():
    side = Side(0)

    def connect(_peer):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    give_transport(side, connect)
    ticket = side.transport.send(1, message(side, b"h"), copy=False)
    assert isinstance(ticket.error, PeerLostError)
    assert side.losses == [(1, "could not be reached: Connection refused")]
    side.close()


def test_two_that_connect_at_the_same_time_use_both_sockets():
    one, other = Side(0), Side(1)
    first, second = socket.socketpair(), socket.socketpair()
    for side in (one, other):
        give_transport(side)
    one.transport.adopt(1, first[0])
    other.transport.adopt(0, second[1])
    one.transport.adopt(1, second[0])
    other.transport.adopt(0, first[1])
    for number in range(10):
        one.send(other, message(one, b"%d" % number))
        other.send(one, message(other, b"%d" % number))
    turn_until(lambda: len(one.messages) == len(other.messages) == 10, one, other)
    assert one.heads == other.heads == [b"%d" % number for number in range(10)]
    one.close()
    other.close()


def test_what_the_second_socket_holds_comes_before_the_end_that_the_first_tells(raw):
    side, first = raw
    ours, second = socket.socketpair()
    side.transport.adopt(1, ours)
    fds = list(side.poller.callbacks)
    second.send(pack_frame(message(Side(1), b"last words"))[0])
    first.close()
    side.poller.callbacks[fds[0]](select.EPOLLIN)
    assert side.heads == [b"last words"]
    assert side.losses == [(1, "closed its connection")]
    second.close()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (
            b"GET / HTTP/1.1\r\n",
            "broke the protocol: the other side sent bytes that are no frames, starting with b'GE'",
        ),
        (
            b"\xc7\x63" + bytes(38),
            "broke the protocol: the other side speaks version 99 of the frames, this one version 1",
        ),
    ],
)
def test_garbage_ends_the_connection(raw, data, reason):
    side, theirs = raw
    theirs.send(data)
    turn_until(lambda: side.losses, side)
    assert side.losses == [(1, reason)]
    assert theirs.recv(1) == b""


def test_nobody_may_speak_for_another(raw):
    side, theirs = raw
    theirs.send(pack_frame(message(Side(1), b"mine"))[0] + pack_frame(message(Side(2), b"not mine"))[0])
    turn_until(lambda: side.losses, side)
    assert side.heads == [b"mine"]
    assert side.losses == [(1, "broke the protocol: it sent in the name of 2")]


def test_an_end_within_a_frame_says_so(raw):
    side, theirs = raw
    theirs.send(pack_frame(message(Side(1), b"x" * 100))[0][:50])
    theirs.close()
    turn_until(lambda: side.losses, side)
    assert side.losses == [(1, "was cut off: the stream ended in the middle of a frame")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.ECONNRESET, "closed its connection"), (errno.ETIMEDOUT, "was cut off: as told")],
)
def test_a_network_that_fails_is_told_as_a_loss(code, reason):
    side = Side(0)
    give_transport(side)
    ours, theirs = socket.socketpair()
    side.transport.adopt(1, Failing(ours, code))
    ticket = side.transport.send(1, message(side, b"h"), copy=False)
    assert isinstance(ticket.error, PeerLostError)
    assert len(side.losses) == 1
    ours, others = socket.socketpair()
    side.transport.adopt(2, Failing(ours, code))
    others.send(b"x")
    turn_until(lambda: len(side.losses) == 2, side)
    assert side.losses[1] == (2, reason)
    theirs.close()
    others.close()
    side.close()


def test_what_is_too_large_is_refused_before_anything_is_sent(raw, monkeypatch):
    side, _ = raw
    monkeypatch.setattr(
        "klyng_mp.transports.stream.pack_frame",
        lambda _: (_ for _ in ()).throw(MessageTooLargeError(2, 1)),
    )
    with pytest.raises(MessageTooLargeError):
        side.transport.send(1, message(side, b"h"), copy=False)
    assert side.transport.statistics().messages_sent == 0


def test_what_was_exchanged_is_that_of_the_present_connections():
    one, other = Side(0), Side(1)
    for round_ in range(2):
        pair = socket.socketpair()
        if round_ == 0:
            join(one, other, pair)
        else:
            one.transport.adopt(1, pair[0])
            other.transport.adopt(0, pair[1])
        for _ in range(3):
            one.transport.send(1, message(one, b"h"), copy=False)
        turn_until(lambda: other.transport.exchanged().get(0) == (0, 3), one, other)
        assert one.transport.exchanged() == {1: (3, 0)}
        other.transport.send(0, message(other, b"h" * 10), copy=False)
        turn_until(lambda: one.transport.exchanged() == {1: (3, 1)}, one, other)
        one.transport.disconnect(1)
        other.transport.disconnect(0)
        assert one.transport.exchanged() == {}
    assert one.transport.traffic()[1][0] == 6
    one.close()
    other.close()
