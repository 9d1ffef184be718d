"""TLS connections keep the contract of transports, and what is their own."""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import ssl
import struct
import subprocess
import termios

import pytest
from contracts.transport import Side, TransportContract, message, turn_until
from secured import Relay, certificate, contexts, secure, tcp_pair

from klyng_mp.errors import PeerLostError
from klyng_mp.transports.secure import SecureSocket
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import pack_frame


def never(peer):
    raise AssertionError(f"nobody asked to connect to {peer}")


def adopt(side, peer, sock):
    side.transport = StreamTransport(side, side.poller, connect=never)
    side.transport.adopt(peer.number, SecureSocket(sock))


def join(one, other, pair):
    for side, peer, sock in zip((one, other), (other, one), pair, strict=True):
        adopt(side, peer, sock)


class TestTlsContract(TransportContract):
    def join(self, one, other):
        join(one, other, secure(tcp_pair()))


@pytest.fixture
def sides():
    pair = Side(0), Side(1)
    yield pair
    for side in pair:
        if side.transport is not None:
            side.transport.close()
        side.poller.close()


@pytest.fixture
def joined(sides):
    join(*sides, secure(tcp_pair()))
    return sides


def unread(file):
    """Return how many bytes the kernel has for who reads."""
    return struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, bytes(4)))[0]


def assorted(seed):
    """Return the bodies of some messages of all sizes."""
    source = random.Random(seed)
    sizes = [0, 1, 16_383, 16_384, 16_385, 70_000, 131_073, 400_000, *(source.randrange(3000) for _ in range(40))]
    source.shuffle(sizes)
    return [source.randbytes(size) for size in sizes]


def slices(most):
    source = random.Random(most)

    def cut(data):
        position, pieces = 0, []
        while position < len(data):
            size = source.randint(1, most)
            pieces.append(data[position : position + size])
            position += size
        return pieces

    return cut


@pytest.mark.parametrize("most", [1, 7, 1000, 20_000])
def test_streams_survive_any_fragmentation(sides, most):
    one, other = sides
    relay = Relay(slices(most))
    join(one, other, secure(relay.between()))
    bodies = [body[:3000] for body in assorted(most)] if most < 10 else assorted(most)
    for index, body in enumerate(bodies):
        one.send(other, message(one, b"%d" % index, [memoryview(body)]), copy=True)
        other.send(one, message(other, body[:100]), copy=True)
    turn_until(lambda: len(other.messages) == len(one.messages) == len(bodies), one, other)
    assert [bytes(got.buffers[0]) for _, got in other.messages] == bodies
    assert one.heads == [body[:100] for body in bodies]
    one.transport.close()
    turn_until(lambda: other.losses, other)
    assert other.losses == [(0, "closed its connection")]
    other.transport.close()
    relay.close()


@pytest.mark.parametrize("where", [0, 3, 5, 6, 30, 2000, 17_000, 99_000])
def test_a_byte_that_is_changed_on_its_way_is_an_error_and_never_wrong_data(sides, where):
    one, other = sides
    state = {"armed": False, "seen": 0}

    def flip(data):
        if not state["armed"]:
            return [data]
        begin, state["seen"] = state["seen"], state["seen"] + len(data)
        if begin <= where < state["seen"]:
            data = bytearray(data)
            data[where - begin] ^= 0x20
        return [bytes(data)]

    relay = Relay(flip)
    join(one, other, secure(relay.between()))
    one.send(other, message(one, b"before"))
    turn_until(lambda: other.messages, one, other)
    state["armed"] = True
    body = os.urandom(100_000)
    one.send(other, message(one, b"after", [memoryview(body)]), copy=True)
    turn_until(lambda: other.losses or one.losses, one, other)
    if where == 3:  # a length: it may claim more than ever comes
        one.transport.close()
        turn_until(lambda: other.losses, other)
    assert other.heads == [b"before"]
    ((peer, reason),) = other.losses
    assert peer == 0
    assert reason.startswith("was cut off: ")
    for side in sides:
        side.transport.close()
    relay.close()


def test_a_byte_that_nobody_changes_arrives(sides):  # else the test above would prove nothing
    one, other = sides
    relay = Relay()
    join(one, other, secure(relay.between()))
    body = os.urandom(100_000)
    one.send(other, message(one, b"after", [memoryview(body)]), copy=True)
    turn_until(lambda: other.messages, one, other)
    assert bytes(other.messages[0][1].buffers[0]) == body
    for side in sides:
        side.transport.close()
    relay.close()


def test_what_comes_in_one_read_with_a_damaged_record_is_delivered_before_the_loss_is_told(sides):
    one, other = sides
    join(one, other, secure(tcp_pair()))
    one.send(other, message(one, b"good"))
    # Straight into the socket: bytes that are no record, right behind one that is.
    raw = socket.socket(fileno=os.dup(next(iter(one.poller.callbacks))))
    raw.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    turn_until(lambda: other.losses, other)
    assert other.heads == [b"good"]
    assert other.losses[0][1].startswith("was cut off: what arrived was damaged on its way")
    raw.close()


@pytest.mark.parametrize("whole", [True, False], ids=["between messages", "within a message"])
def test_an_end_without_a_goodbye_is_told_as_a_cut(sides, whole):
    one, other = sides
    ours, theirs = secure(tcp_pair())
    adopt(other, one, theirs)
    frame = pack_frame(message(one, b"x" * 100))[0]
    ours.send(frame)
    if not whole:
        ours.send(frame[:50])
    turn_until(lambda: other.messages, other)
    ours.close()  # a bare FIN, as when the process is killed
    turn_until(lambda: other.losses, other)
    assert other.heads == [b"x" * 100]
    assert other.losses == [(0, "was cut off: the stream ended without a goodbye")]


def test_a_goodbye_within_a_message_is_a_cut_too(sides):
    one, other = sides
    ours, theirs = secure(tcp_pair())
    adopt(other, one, theirs)
    ours.send(pack_frame(message(one, b"x" * 100))[0][:50])
    ours.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        ours.unwrap()
    turn_until(lambda: other.losses, other)
    assert other.losses == [(0, "was cut off: the stream ended in the middle of a frame")]
    ours.close()


def test_who_closes_with_something_unsent_says_no_goodbye(joined):
    one, other = joined
    one.send(other, message(one, b"whole"))
    one.send(other, message(one, b"", [memoryview(bytes(30 << 20))]), copy=True)
    one.transport.close()
    turn_until(lambda: other.losses, other)
    assert other.heads == [b"whole"]
    assert other.losses == [(0, "was cut off: the stream ended without a goodbye")]


def test_both_send_64_mib_at_once(joined):
    one, other = joined
    bodies = [os.urandom(1 << 20) * 64, os.urandom(1 << 20) * 64]
    one.send(other, message(one, b"h", [memoryview(bodies[0])]))
    other.send(one, message(other, b"h", [memoryview(bodies[1])]))
    turn_until(lambda: one.messages and other.messages, one, other)
    assert other.messages[0][1].buffers[0] == bodies[0]
    assert one.messages[0][1].buffers[0] == bodies[1]
    assert one.transport.pending() == other.transport.pending() == 0


def test_a_sender_may_give_up_within_a_large_message_and_go_on_with_others(joined):
    one, other = joined
    body = bytearray(os.urandom(1 << 20) * 16)
    expected = bytes(body)
    first = one.send(other, message(one, b"first", [memoryview(body)]))
    second = one.send(other, message(one, b"second", [memoryview(bytes(1 << 20))]))
    assert first.started
    assert not first.withdraw()
    assert second.withdraw()
    first.keep()
    body[:] = bytes(len(body))  # the caller's again, also where TLS has tried a part of it
    for index in range(100):
        one.send(other, message(one, b"%d" % index), copy=True)
    turn_until(lambda: len(other.messages) == 101, one, other)
    assert other.heads == [b"first", *(b"%d" % index for index in range(100))]
    assert bytes(other.messages[0][1].buffers[0]) == expected


def test_what_is_held_is_pending_is_watched_and_leaves_first(sides):
    one, other = sides
    join(one, other, secure(tcp_pair(send_buffer=4096)))
    accepted = 0
    while not one.transport.pending():
        one.send(other, message(one, b"%d" % accepted + b" " * 1000), copy=True)
        accepted += 1
    (fd,) = one.poller.callbacks
    assert not select.select([], [fd], [], 0)[1]
    one.send(other, message(one, b"last"), copy=True)
    turn_until(lambda: len(other.messages) == accepted + 1, one, other)
    assert other.heads[-1] == b"last"
    assert [int(head) for head in other.heads[:-1]] == list(range(accepted))
    turn_until(lambda: not one.transport.pending(), one)
    assert not one.turn()  # nothing is watched for that is always there


def test_drain_takes_what_the_descriptor_does_not_show(joined):
    one, other = joined
    frames = b"".join(pack_frame(message(one, b"%d" % index))[0] for index in range(1000))
    (out,) = one.transport._links[1].connections
    assert out.secure.send(frames) == len(frames)
    (fd,) = other.poller.callbacks
    turn_until(lambda: unread(fd) > len(frames), one)
    other.transport.drain(0)
    assert len(other.messages) == 1000


def test_a_forked_child_says_nothing_and_harms_nothing(joined):
    one, other = joined
    one.send(other, message(one, b"before"))
    pid = os.fork()
    if not pid:
        one.transport.abandon()
        other.transport.abandon()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    one.send(other, message(one, b"after"))
    other.send(one, message(other, b"answer"))
    turn_until(lambda: len(other.messages) == 2 and one.messages, one, other)
    assert other.losses == one.losses == []


@pytest.mark.parametrize(
    ("options", "what"),
    [({"suppress_ragged_eofs": False}, "handshake"), ({"suppress_ragged_eofs": True}, "suppress_ragged_eofs")],
)
def test_what_could_not_be_trusted_is_refused(options, what):
    ours, theirs = tcp_pair()
    with theirs, contexts()[1].wrap_socket(ours, do_handshake_on_connect=False, **options) as sock:  # noqa: SIM117
        with pytest.raises(ValueError, match=what):
            SecureSocket(sock)


class Fussy:
    """An SSL socket whose writes and reads want now this, now that."""

    suppress_ragged_eofs = False
    family = socket.AF_UNIX

    def __init__(self):
        self.wants = []
        self.written = []
        self.tried = []

    def version(self):
        return "TLSv1.3"

    def fileno(self):
        return 0

    setblocking = setsockopt = None

    def send(self, data):
        self.tried.append(bytes(data))
        if self.wants:
            raise self.wants.pop(0)(2, "as told")
        self.written.append(bytes(data))
        return len(data)

    def read(self, size, buffer):
        if self.wants:
            raise self.wants.pop(0)(2, "as told")
        raise ssl.SSLWantReadError(2, "nothing")

    def pending(self):
        return 0


def test_what_was_tried_is_tried_again_with_the_same_bytes_before_all_else():
    fussy = Fussy()
    sock = SecureSocket(fussy)
    waits = []
    sock.on_wait = lambda: waits.append(sock.waits)
    fussy.wants = [ssl.SSLWantWriteError, ssl.SSLWantWriteError]
    data = bytearray(b"first")
    assert sock.send(data) == 5
    data[:] = b"wrong"
    assert sock.held == 5
    with pytest.raises(BlockingIOError):
        sock.send(b"second")
    assert sock.send(b"second") == 6
    assert fussy.tried == [b"first", b"first", b"first", b"second"]
    assert waits == [True]
    assert not sock.waits


def test_a_write_may_want_to_read_and_a_read_to_write():
    fussy = Fussy()
    sock = SecureSocket(fussy)
    waits = []
    sock.on_wait = lambda: waits.append(sock.waits)
    fussy.wants = [ssl.SSLWantReadError]
    assert sock.sendmsg([b"a", b"b"]) == 2
    assert sock.held == 2
    assert not sock.waits  # for the kernel to take bytes, which it does
    fussy.wants = [ssl.SSLWantWriteError]
    with pytest.raises(BlockingIOError):
        sock.recv_into(memoryview(bytearray(10)))
    assert sock.waits
    with pytest.raises(BlockingIOError):
        sock.recv_into(memoryview(bytearray(10)))
    assert sock.send(b"") == 0
    assert fussy.written == [b"ab"]
    assert not sock.waits
    assert waits == [False, True, True]


@pytest.fixture
def foreigner(sides, tmp_path):
    """Join the first side to OpenSSL's own client: its input is sent, but for lines k and K, which update its keys."""
    one, other = sides
    file = tmp_path / "both.pem"
    file.write_bytes(b"".join(certificate()))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", where, "-cert", file, "-key", file, "-CAfile", file, "-brief"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0) as peer:
            accepted, _ = listener.accept()
            adopt(one, other, contexts()[0].wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False))
            yield peer
            peer.kill()


def tell(peer, data, *sides):
    """Give the foreigner something on its input, and wait until it has taken it."""
    peer.stdin.write(data)
    turn_until(lambda: not unread(peer.stdin), *sides)


def test_keys_may_be_changed_between_messages(sides, foreigner):
    one, other = sides
    for index, update in enumerate([b"k\n", b"K\n", b"K\n", b"k\n"]):
        tell(foreigner, pack_frame(message(other, b"%d" % index))[0], one)
        turn_until(lambda index=index: len(one.messages) == index + 1, one)
        tell(foreigner, update, one)
        one.send(other, message(one, b"answer"))
        frame = pack_frame(message(one, b"answer"))[0]
        assert foreigner.stdout.read(len(frame)) == frame
    assert one.heads == [b"0", b"1", b"2", b"3"]
    assert not one.losses


def test_keys_may_be_changed_while_a_write_is_held(sides, foreigner):
    one, other = sides
    body = os.urandom(1 << 20) * 16
    expected = b"".join(pack_frame(message(one, b"h", [memoryview(body)])))
    one.send(other, message(one, b"h", [memoryview(body)]))
    assert one.transport.pending()
    tell(foreigner, b"K\n", one)
    (fd,) = one.poller.callbacks
    turn_until(lambda: unread(fd), other)
    one.turn()
    tell(foreigner, pack_frame(message(other, b"in between"))[0], one)
    got = bytearray()
    while len(got) < len(expected):
        assert not one.losses
        one.turn()
        if select.select([foreigner.stdout], [], [], 0)[0]:
            got += foreigner.stdout.read(1 << 16)
    assert got == expected
    turn_until(lambda: one.messages, one)
    assert one.heads == [b"in between"]
    assert not one.losses


def test_a_lost_peer_fails_what_is_queued(joined):
    one, other = joined
    ticket = one.send(other, message(one, b"", [memoryview(bytes(30 << 20))]), copy=True)
    other.transport.close()
    turn_until(lambda: one.losses, one)
    assert isinstance(ticket.error, PeerLostError)
