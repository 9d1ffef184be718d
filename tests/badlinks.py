"""A bad link between two hosts of a test: it delays, loses, doubles, reorders, damages and cuts what it carries.

Each host has a TUN device, and a Python process between them reads IPv4 packets from one and writes them to the
other; what it does to each follows from a seed and the order in which packets come. It needs nothing of the kernel
but TUN: `tc netem` is often missing.

Run as a program, this is the process between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
BURST = 64  # packets that one side may bring before the other side is looked at
LARGEST_PACKET = 1 << 16
HELD_BACK_SECONDS = 0.005  # a reordered packet comes so much later: those after it overtake it
ANSWER_SECONDS = 10.0
TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}
SYN, ACK = 0x02, 0x10


@dataclasses.dataclass(frozen=True)
class Faults:
    """What a direction does to packets: seconds, and shares of 1 of the packets that it happens to."""

    delay: float = 0.0
    jitter: float = 0.0  # up to so much more than the delay; it keeps the order
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0  # a bit of the payload flips in the wire: checksums find it, and the packet is sent again
    tamper: float = 0.0  # a bit of a TCP payload is flipped by somebody who mends the checksum: only TLS finds it
    partition: bool = False  # nothing passes
    no_calls: bool = False  # no TCP connection is opened in this direction, as towards a laptop behind NAT
    rate_bytes: float = 0.0  # bytes a second; 0 is no limit
    queue_bytes: int = 1 << 20  # what waits at most where there is a rate; more is lost


class BadLink:
    """A second link between two hosts, at addresses of its own; it begins without faults."""

    def __init__(self, network, a, b, *, seed=0, mtu=1500):
        """Lay it; it ends with the network. A host that is powered off has no more of it when it is on again."""
        number = network.number_link()
        device = f"bad{number}"
        self._hosts = {a.name: (0, f"10.78.{number}.1"), b.name: (1, f"10.78.{number}.2")}
        with contextlib.ExitStack() as stack:
            tuns = []
            for host, peer in ((a, b), (b, a)):
                tuns.append(host.call(open_tun, device))
                stack.callback(os.close, tuns[-1])
                host.devices.append(device)
                host.namespace.configure(
                    f"address add {self.address(host)} peer {self.address(peer)} dev {device}",
                    f"link set {device} up mtu {mtu}",
                )
            self._process = network.switch.start(
                [sys.executable, "-I", "-S", __file__, *map(str, tuns), str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=tuns,
                cwd="/",
                text=True,
            )
        self._ask({})

    def address(self, host):
        """Return the address by which this host is reached over the link."""
        return self._hosts[host.name][1]

    def set(self, faults=None, *, towards=None, **changes):
        """Replace the faults of both directions, or of the one towards a host; they are in force on return.

        ``set()`` is a clean link; ``set(delay=0.01, loss=0.1)`` says all that is wrong with it. Packets that wait
        already come when they were to come.
        """
        wanted = dataclasses.replace(faults or Faults(), **changes)
        sides = [0, 1] if towards is None else [1 - self._hosts[towards.name][0]]
        self._ask({"sides": sides, "faults": dataclasses.asdict(wanted)})

    def counts(self, towards):
        """Return how many packets towards a host came in, and how many met with what."""
        return self._ask({})[1 - self._hosts[towards.name][0]]

    def _ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0], "the link's process does not answer"
        return json.loads(self._process.stdout.readline())


def open_tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    except BaseException:
        os.close(fd)
        raise
    return fd


@functools.cache
def skip_reason():
    """Return why no link can be made where networks can, or None."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun cannot be opened: {error.strerror}"
    return None


# -- the process between -----------------------------------------------------------------------------


def payload_of(packet):
    """Return where the payload of a packet begins, its protocol, and where that one's header begins."""
    start = (packet[0] & 0x0F) * 4
    protocol = packet[9]
    if packet[0] >> 4 != 4 or protocol not in CHECKSUM_AT or len(packet) < start + 8:
        return len(packet), 0, start
    length = (packet[start + 12] >> 4) * 4 if protocol == TCP else 8
    return min(start + length, len(packet)), protocol, start


def opens_a_connection(packet):
    _, protocol, start = payload_of(packet)
    return protocol == TCP and packet[start + 13] & (SYN | ACK) == SYN


def flip(packet, chance, *, mend):
    """Return the packet with one bit of its payload flipped, and its checksum as if it were right."""
    begin, protocol, start = payload_of(packet)
    damaged = bytearray(packet)
    at = chance.randrange(begin, len(packet))
    damaged[at] ^= 1 << chance.randrange(8)
    if mend:
        place = start + CHECKSUM_AT[protocol]
        word = at - (at - start) % 2  # of the two bytes that are summed together
        old, new = (int.from_bytes((data[word : word + 2] + b"\0")[:2], "big") for data in (packet, bytes(damaged)))
        total = (~int.from_bytes(packet[place : place + 2], "big") & 0xFFFF) + (~old & 0xFFFF) + new
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        damaged[place : place + 2] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(damaged)


class Direction:
    """What packets meet with on their way from one device to the other."""

    def __init__(self, source, sink, seed):
        self.source = source
        self.sink = sink
        self.chance = random.Random(seed)
        self.counts = dict.fromkeys(
            ("packets", "lost", "duplicated", "reordered", "corrupted", "tampered", "refused", "overflowed"), 0
        )
        self.waiting = []  # (when due, number, packet)
        self.numbers = itertools.count()
        self.last_due = 0.0
        self.free_at = 0.0
        self.set(Faults())

    def set(self, faults):
        self.faults = faults
        self.is_clean = faults == Faults()

    def carry(self):
        """Take what its device has to send, but not for long."""
        for _ in range(BURST):
            try:
                packet = os.read(self.source, LARGEST_PACKET)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno != errno.EBADFD:
                    raise
                return False  # the host is gone, and its device with it
            self.counts["packets"] += 1
            if self.is_clean and not self.waiting:
                self.deliver(packet)
            else:
                self.meet(packet)
        return True

    def deliver(self, packet):
        try:
            os.write(self.sink, packet)
        except OSError as error:
            # The host is gone or its device is down: as with a wire that ends in the air. EINVAL: no IP at all.
            if error.errno not in (errno.EBADFD, errno.EIO, errno.EINVAL):
                raise
            self.counts["lost"] += 1

    def happens(self, share, name):
        if share and self.chance.random() < share:
            self.counts[name] += 1
            return True
        return False

    def meet(self, packet):
        faults = self.faults
        if faults.partition or self.happens(faults.loss, "lost"):
            self.counts["lost"] += faults.partition
            return
        if faults.no_calls and opens_a_connection(packet):
            self.counts["refused"] += 1
            return
        begin, protocol, _ = payload_of(packet)
        if begin < len(packet):
            if self.happens(faults.corrupt, "corrupted"):
                packet = flip(packet, self.chance, mend=False)
            if protocol == TCP and self.happens(faults.tamper, "tampered"):
                packet = flip(packet, self.chance, mend=True)
        now = time.monotonic()
        due = now + faults.delay + (self.chance.random() * faults.jitter if faults.jitter else 0.0)
        if faults.rate_bytes:
            if (max(self.free_at, now) - now) * faults.rate_bytes > faults.queue_bytes:
                self.counts["overflowed"] += 1
                return
            self.free_at = max(self.free_at, now) + len(packet) / faults.rate_bytes
            due += self.free_at - now
        due = max(due, self.last_due)
        if self.happens(faults.reorder, "reordered"):
            self.wait(due + HELD_BACK_SECONDS, packet)
        else:
            self.last_due = due
            self.wait(due, packet)
        if self.happens(faults.duplicate, "duplicated"):
            self.wait(due, packet)

    def wait(self, due, packet):
        heapq.heappush(self.waiting, (due, next(self.numbers), packet))

    def release(self):
        """Deliver what is due; return in how many seconds the next is."""
        while self.waiting:
            left = self.waiting[0][0] - time.monotonic()
            if left > 0:
                return left
            self.deliver(heapq.heappop(self.waiting)[2])
        return None


def forward(first, second, seed):
    """Carry packets between two devices until the standard input ends, and answer what it asks."""
    directions = [Direction(first, second, f"{seed} there"), Direction(second, first, f"{seed} back")]
    by_source = {direction.source: direction for direction in directions}
    control = sys.stdin.fileno()
    timeout = None
    while True:
        ready, _, _ = select.select([control, *by_source], [], [], timeout)
        for fd in ready:
            if fd == control:
                if not (line := sys.stdin.readline()):
                    return
                answer(json.loads(line), directions)
            elif not by_source[fd].carry():
                del by_source[fd]
        timeout = min((left for way in directions if (left := way.release()) is not None), default=None)


def answer(question, directions):
    for side in question.get("sides", ()):
        directions[side].set(Faults(**question["faults"]))
    print(json.dumps([direction.counts for direction in directions]), flush=True)


if __name__ == "__main__":
    forward(*map(int, sys.argv[1:]))
