"""Bad links: each fault happens, is counted, and does what such a fault does to a connection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import socket
import struct
import threading
import time

import badlinks
import pytest

pytestmark = pytest.mark.slow

SOON = 0.3  # in which something arrives where nothing is wrong
DATA = random.Random(5).randbytes(2_000_000)


@pytest.fixture
def hosts(network):
    return network.add_hosts("a", "b")


@pytest.fixture
def link(network, hosts):
    if (reason := badlinks.skip_reason()) is not None:
        pytest.skip(reason)
    return badlinks.BadLink(network, *hosts, seed=7)


@pytest.fixture
def ends(link, hosts):
    """Both ends of a connection over the link, opened by the first host."""
    a, b = hosts
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(b.call(socket.create_server, (link.address(b), 0)))
        near = stack.enter_context(a.connect(listener.getsockname()))
        far, _ = listener.accept()
        stack.enter_context(far)
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(30)
        yield near, far


def carry(ends, data=DATA):
    """Send data from the first host to the second; return what arrived."""
    near, far = ends
    sender = threading.Thread(target=near.sendall, args=(data,))
    sender.start()
    try:
        received = bytearray()
        while len(received) < len(data):
            received += far.recv(1 << 16)
    finally:
        sender.join()
    return bytes(received)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def round_trip(ends):
    near, far = ends
    began = time.monotonic()
    near.sendall(b"x")
    far.recv(1)
    far.sendall(b"x")
    near.recv(1)
    return time.monotonic() - began


def arrives(sock, seconds=SOON):
    return bool(select.select([sock], [], [], seconds)[0])


def test_a_clean_link_carries_all(link, hosts, ends):
    assert digest(carry(ends)) == digest(DATA)
    counts = link.counts(hosts[1])
    assert counts.pop("packets") > len(DATA) / 1500
    assert set(counts.values()) == {0}


def test_a_delay_is_as_long_as_it_is_to_be(link, hosts, ends):
    link.set(delay=0.05)
    assert round_trip(ends) >= 0.1
    link.set()
    link.set(delay=0.05, towards=hosts[1])
    assert 0.05 <= min(round_trip(ends) for _ in range(10)) < 0.1
    link.set(jitter=0.02)
    assert max(round_trip(ends) for _ in range(20)) >= 0.01
    link.set()
    assert min(round_trip(ends) for _ in range(20)) < 0.01


@pytest.mark.parametrize(
    ("fault", "count"),
    [("loss", "lost"), ("duplicate", "duplicated"), ("reorder", "reordered"), ("corrupt", "corrupted")],
)
def test_a_connection_survives(link, hosts, ends, fault, count):
    link.set(**{fault: 0.02})
    assert digest(carry(ends)) == digest(DATA)
    assert link.counts(hosts[1])[count] > 0


def test_a_connection_survives_all_at_once(link, hosts, ends):
    link.set(delay=0.002, jitter=0.002, loss=0.01, duplicate=0.01, reorder=0.02, corrupt=0.01)
    assert digest(carry(ends)) == digest(DATA)
    counts = link.counts(hosts[1])
    assert all(counts[name] for name in ("lost", "duplicated", "reordered", "corrupted"))


def test_tampered_bytes_arrive(link, hosts, ends):
    link.set(tamper=0.02, towards=hosts[1])
    received = carry(ends)
    differing = sum((one ^ other).bit_count() for one, other in zip(received, DATA, strict=True))
    assert 0 < differing <= link.counts(hosts[1])["tampered"]


def test_nothing_passes_a_partition(link, hosts, ends):
    near, far = ends
    link.set(partition=True)
    near.sendall(b"a")
    assert not arrives(far)
    assert link.counts(hosts[1])["lost"] > 0
    link.set()
    assert far.recv(1) == b"a"


def test_a_partition_of_one_direction(link, hosts, ends):
    near, far = ends
    link.set(partition=True, towards=hosts[0])
    near.sendall(b"a")
    far.sendall(b"b")
    assert far.recv(1) == b"a"
    assert not arrives(near)
    link.set()
    assert near.recv(1) == b"b"


def test_who_is_not_to_be_called_calls(link, hosts):
    laptop, lab = hosts
    link.set(no_calls=True, towards=laptop)
    with laptop.call(socket.create_server, (link.address(laptop), 0)) as listener:
        probe = lab.call(socket.socket)
        with probe:
            probe.settimeout(SOON)
            with pytest.raises(TimeoutError):
                probe.connect(listener.getsockname())
    assert link.counts(laptop)["refused"] > 0
    with lab.call(socket.create_server, (link.address(lab), 0)) as listener:
        laptop.connect(listener.getsockname()).close()


def test_a_slow_link(link, hosts, ends):
    link.set(rate_bytes=4e6, towards=hosts[1])
    began = time.monotonic()
    assert digest(carry(ends)) == digest(DATA)
    assert time.monotonic() - began >= 0.8 * len(DATA) / 4e6


def test_a_full_queue_loses_packets(link, hosts, ends):
    link.set(rate_bytes=4e6, queue_bytes=20_000, towards=hosts[1])
    assert digest(carry(ends)) == digest(DATA)
    assert link.counts(hosts[1])["overflowed"] > 0


def test_a_host_without_power_is_silent_over_the_link(link, hosts, ends):
    near, far = ends
    hosts[1].power_off()
    near.sendall(b"a")
    assert not arrives(near)
    assert not arrives(far, 0)
    assert link.counts(hosts[1])["lost"] > 0


# -- what decides ----------------------------------------------------------------------------------


def packet_of(payload):
    """Return a TCP packet with a right checksum."""
    addresses = bytes([10, 78, 0, 1, 10, 78, 0, 2])
    segment = struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 5 << 4, badlinks.ACK, 100, 0, 0) + payload
    checksum = ~tcp_sum(addresses, segment) & 0xFFFF
    segment = segment[:16] + checksum.to_bytes(2, "big") + segment[18:]
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, badlinks.TCP, 0) + addresses + segment


def tcp_sum(addresses, segment):
    data = addresses + struct.pack("!HH", badlinks.TCP, len(segment)) + segment + b"\0" * (len(segment) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def is_right(packet):
    return tcp_sum(packet[12:20], packet[20:]) == 0xFFFF


@pytest.mark.parametrize("length", [1, 2, 7, 1000])
def test_a_flipped_bit_is_in_the_payload(length):
    packet = packet_of(bytes(range(256)) * 4)[: 40 + length] if length > 1024 else packet_of(bytes([3]) * length)
    assert is_right(packet)
    chance = random.Random(1)
    for _ in range(200):
        for mend in (False, True):
            damaged = badlinks.flip(packet, chance, mend=mend)
            assert damaged[40:] != packet[40:]
            assert damaged[:36] == packet[:36]
            assert is_right(damaged) == mend


@pytest.mark.parametrize(
    ("flags", "opens"), [(badlinks.SYN, True), (badlinks.SYN | badlinks.ACK, False), (badlinks.ACK, False)]
)
def test_which_packets_open_connections(flags, opens):
    packet = bytearray(packet_of(b""))
    packet[33] = flags
    assert badlinks.opens_a_connection(bytes(packet)) == opens


@pytest.mark.parametrize("packet", [b"\x45" + bytes(19), b"\x60" + bytes(39), packet_of(b"")[:24], packet_of(b"")])
def test_packets_without_payload_are_left_as_they_are(packet):
    assert badlinks.payload_of(packet)[0] == len(packet)
    assert not badlinks.opens_a_connection(packet)


def fates(seed):
    """Return what becomes of a thousand packets."""
    with contextlib.ExitStack() as stack:
        near, sink = (stack.enter_context(sock) for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        direction = badlinks.Direction(-1, near.fileno(), seed)
        direction.set(badlinks.Faults(loss=0.1, duplicate=0.1, corrupt=0.1, tamper=0.1))
        seen = []
        for number in range(1000):
            direction.meet(packet_of(number.to_bytes(4, "big")))
            assert direction.release() is None
            with contextlib.suppress(BlockingIOError):
                while True:
                    seen.append(sink.recv(1 << 16, socket.MSG_DONTWAIT))
        return seen, direction.counts


def test_a_seed_decides():
    assert fates(1) == fates(1)
    assert fates(1) != fates(2)
    seen, counts = fates(1)
    assert len(seen) == 1000 - counts["lost"] + counts["duplicated"]
    assert all(50 < counts[name] < 150 for name in ("lost", "duplicated", "corrupted", "tampered"))


def test_a_packet_that_is_held_back_is_overtaken():
    near, sink = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, sink:
        direction = badlinks.Direction(-1, near.fileno(), 0)
        direction.set(badlinks.Faults(reorder=1.0))
        direction.meet(packet_of(b"first"))
        direction.set(badlinks.Faults())
        direction.meet(packet_of(b"second"))
        while (left := direction.release()) is not None:
            assert not select.select([], [], [], left)[0]
        assert [sink.recv(100)[40:] for _ in range(2)] == [b"second", b"first"]


def test_links_need_their_device(monkeypatch):
    def refuse(*_args):
        raise PermissionError(1, "not permitted")

    badlinks.skip_reason.cache_clear()
    monkeypatch.setattr(os, "open", refuse)
    reason = badlinks.skip_reason()
    badlinks.skip_reason.cache_clear()
    assert reason == "/dev/net/tun cannot be opened: not permitted"
