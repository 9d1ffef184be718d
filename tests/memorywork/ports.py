"""Scenarios of the core's ports, parcels and slabs."""

from __future__ import annotations

import os
from functools import partial
from weakref import ref

from memorywork.driver import each, scenario
from memorywork.matching import CONTEXT, text

import klyng_mp._core as core

RING = 4096
OTHER, APART = 11, 6  # codes of the codec, of which the core knows the second: bytes that are the object itself


def make_segment(ranks=2, *, pools=False):
    fd = os.memfd_create("memorywork", os.MFD_CLOEXEC)
    os.ftruncate(fd, core.segment_size(ranks, RING, pools))
    return fd


def make_ports(ranks=2, *, pools=False, calls=None):
    """Return the ports of all ranks; those that they wake are put into `calls`."""
    fd = make_segment(ranks, pools=pools)
    wakers = [Waker(calls) for _ in range(ranks)]
    ports = [core.Port(fd, ranks, RING, rank, 3, False, wakers[rank]) for rank in range(ranks)]
    for waker, port in zip(wakers, ports, strict=True):
        waker.port = ref(port)
    os.close(fd)
    return ports


def say_asleep(port):
    assert port.prepare_sleep()


class Waker:
    """What has those woken who are due; see `ShmTransport`."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self):
        port = self.port()
        while (peer := port.next_due()) is not None:
            self.calls.append(peer)
            port.rung(peer)


def is_lost(port, got):
    """Tell whether the reader has given up its ring from peer 0; it says so, and that it has no memory."""
    if not port.endings:
        return False
    assert got.hit
    ((peer, reason),) = port.take_endings()
    assert (peer, "no memory" in reason) == (0, True)
    return True


def contents(one):
    return one.context, one.source, one.tag, one.code, one.head, [bytes(part) for part in one.buffers]


def transmit(port, peer, one, reader):
    """Send a message the long way, and return all that the reader has then."""
    parcel, found = port.send(peer, one), reader.read(None)
    while parcel is not None:
        parcel = port.push(peer, parcel)
        found += reader.read(None)
    return found


MESSAGES = {
    "small": lambda: core.Message(CONTEXT, 0, 7, 3, 2, b"head", ()),
    "text": lambda: core.Message(CONTEXT, 0, text(), 3, 2, b"head", ()),
    "buffers": lambda: core.Message(CONTEXT, 0, 7, 3, OTHER, b"head", [b"one", bytearray(600), b""]),
    "apart": lambda: core.Message(CONTEXT, 0, 7, 3, APART, b"", [b"x" * 700]),
    "empty": lambda: core.Message(CONTEXT, 0, "", 3, OTHER, b"", [b""]),
    "slabs": lambda: core.Message(CONTEXT, 0, text(), 3, OTHER, b"head", [b"x" * 40_000, b"one", bytearray(50_000)]),
    "large": lambda: core.Message(CONTEXT, 0, 7, 3, OTHER, b"h" * 5000, [b"x" * 9000]),
}


@each(allocate=("allocate", 40_960), small=("allocate", 10), trim=("trim",), find_slab=("find_slab", b"x"))
def slab_calls(case):
    port, reader = make_ports(pools=True)
    action = partial(getattr(port, case[0]), *case[1:])
    got = yield action
    if got.error is not None:
        got.value = action()
    assert (got.value is None) is (case[1:] != (40_960,))
    assert port.slab_bytes == port.living_bytes
    got.value = None
    assert port.living_bytes == 0
    assert [contents(one) for one in transmit(port, 1, MESSAGES["slabs"](), reader)] == [contents(MESSAGES["slabs"]())]


@scenario
def find_slab():
    port, _ = make_ports(pools=True)
    slab = port.allocate(40_000)
    got = yield partial(port.find_slab, memoryview(slab))
    assert got.error is not None or got.value is slab


@each(send="send", pack="pack")
def give_a_slab(name):
    """It is given when the message has left, and not before."""
    port, reader = make_ports(pools=True)
    slab = port.allocate(40_000)
    memoryview(slab)[:] = b"x" * 40_000
    one = core.Message(CONTEXT, 0, text(), 3, OTHER, b"head", [slab])
    got = yield partial(getattr(port, name), 1, one)
    if got.error is not None:
        assert not slab.given
    del slab
    found = transmit(port, 1, one, reader) if got.error is not None else []
    if got.value is not None:
        assert port.push(1, got.value) is None
    found += reader.read(None)
    assert [bytes(sent.buffers[0]) for sent in found] == [b"x" * 40_000]
    assert port.slab_bytes == 40_960


@scenario
def segment_size():
    got = yield partial(core.segment_size, 64, RING, True)
    assert got.error is not None or got.value > 2**30


@scenario
def make_port():
    fd = make_segment()
    fds = len(os.listdir("/proc/self/fd"))
    got = yield partial(core.Port, fd, 2, RING, 1, 3, False, None)
    if got.error is not None:
        assert len(os.listdir("/proc/self/fd")) == fds
    os.close(fd)


@each(open=("open", 1, 3), shut=("shut", 1), set_bell=("set_bell", 1, -1), leave=("leave", 1, True),
      has_news=("has_news",), prepare_sleep=("prepare_sleep",), spin=("spin",), connections=("connections",),
      privatize=("privatize",), next_due=("next_due",), rung=("rung", 1), spins=("spins",))  # fmt: skip
def small_calls(case):
    port, reader = make_ports()
    action = partial(getattr(port, case[0]), *case[1:])
    got = yield action
    assert got.error is None or action() in (None, True, False, 0, {})
    assert [contents(one) for one in transmit(port, 1, MESSAGES["small"](), reader)] == [contents(MESSAGES["small"]())]


@scenario
def traffic():
    port, reader = make_ports()
    transmit(port, 1, MESSAGES["small"](), reader)
    got = yield port.traffic
    assert got.error is not None or got.value == {1: (1, port.bytes_sent)}


@each(**{name: name for name in ("messages_sent", "bytes_received", "slab_bytes", "living_bytes", "endings")})
def statistics(name):
    port, reader = make_ports(pools=True)
    for _ in range(9):
        kept = transmit(port, 1, MESSAGES["slabs"](), reader) + transmit(reader, 0, MESSAGES["slabs"](), port)
    expected = getattr(port, name)
    got = yield partial(getattr, port, name)
    assert got.error is not None or got.value == expected
    assert len(kept) == 2


@each(**MESSAGES)
def send(make):
    port, reader = make_ports(pools=True)
    one = make()
    got = yield partial(port.send, 1, one)
    found = reader.read(None)
    if got.error is not None:
        assert found == []
        found = transmit(port, 1, one, reader)
    while got.value is not None:
        got.value = port.push(1, got.value)
        found += reader.read(None)
    assert [contents(sent) for sent in found] == [contents(one)]
    del found
    assert reader.living_bytes == 0
    assert port.slab_bytes <= 40_960 + 53_248, "the slabs of a message that was not sent are used again"


@each(**MESSAGES)
def pack(make):
    port, reader = make_ports(pools=True)
    one = make()
    action = partial(port.pack, 1, one)
    got = yield action
    parcel = got.value if got.error is None else action()
    found = []
    while parcel is not None:
        parcel = port.push(1, parcel)
        found += reader.read(None)
    assert [contents(sent) for sent in found] == [contents(one)]
    assert port.slab_bytes <= 40_960 + 53_248


@scenario
def push():
    port, reader = make_ports()
    one = MESSAGES["large"]()
    parcel, found = port.send(1, one), reader.read(None)
    got = yield partial(port.push, 1, parcel)
    parcel = got.value if got.error is None else parcel
    while parcel is not None:
        found += reader.read(None)
        parcel = port.push(1, parcel)
    found += reader.read(None)
    assert [contents(sent) for sent in found] == [contents(one)]


@each(unstarted=False, started=True)
def keep(started):
    port, reader = make_ports()
    one = MESSAGES["large"]()
    parcel, found = port.pack(1, one), []
    if started:
        parcel = port.push(1, parcel)
        found += reader.read(None)
    got = yield parcel.keep
    if got.error is not None:
        parcel.keep()
    while parcel is not None:
        parcel = port.push(1, parcel)
        found += reader.read(None)
    assert [contents(sent) for sent in found] == [contents(one)]


@each(small=["small"], several_small=["small"] * 3, text=["text"], empty=["empty"], buffers=["buffers"],
      apart=["apart"], slabs=["slabs"], mixed=["small", "text", "buffers", "small"])  # fmt: skip
def read(names):
    """What was read before is there, and what comes behind is lost with its sender, or it is there as well."""
    port, reader = make_ports(pools=True)
    some = [MESSAGES[name]() for name in names]
    for one in some:
        assert port.send(1, one) is None
    got = yield partial(reader.read, None)
    found = got.value if got.error is None else []
    found += reader.read(None)
    if is_lost(reader, got):
        assert len(found) == reader.messages_received - (len(found) < reader.messages_received)
        some = some[: len(found)]
    assert [contents(sent) for sent in found] == [contents(one) for one in some]


@scenario
def read_from_several():
    """Nothing is lost of those who are not said to be lost."""
    reader, *ports = make_ports(4)
    for port in ports:
        assert port.send(0, core.Message(CONTEXT, 0, port.rank, 3, 2, b"head", ())) is None
    got = yield partial(reader.read, None)
    found = got.value if got.error is None else []
    found += reader.read(None)
    lost = {peer for peer, _ in reader.take_endings()}
    assert len(lost) <= got.hit
    assert {one.source for one in found} | lost == {1, 2, 3}


@scenario
def read_pieces():
    """Of a message that is larger than the ring; the failing read is the second one."""
    port, reader = make_ports()
    one = MESSAGES["large"]()
    parcel, found = port.send(1, one), reader.read(None)
    parcel = port.push(1, parcel)
    got = yield partial(reader.read, 0)
    if is_lost(reader, got):
        return
    found += got.value or []
    while parcel is not None:
        parcel = port.push(1, parcel)
        found += reader.read(None)
    assert [contents(sent) for sent in found] == [contents(one)]


@scenario
def waking():
    """Whom a call has to wake stays noted until somebody was told."""
    calls = []
    port, reader = make_ports(calls=calls)
    say_asleep(reader)
    assert port.send(1, MESSAGES["small"]()) is None
    assert port.due
    got = yield partial(Waker.__call__, port_waker(port, calls))
    if got.error is not None and calls == []:
        assert port.due
        port_waker(port, calls)()
    assert calls == [1]
    assert port.next_due() is None
    assert not port.due


def port_waker(port, calls):
    waker = Waker(calls)
    waker.port = ref(port)
    return waker


@scenario
def take_endings():
    reader, *ports = make_ports(4)
    for port in ports:
        port.send(0, MESSAGES["small"]())
        port.leave(0, True)
    reader.read(None)
    got = yield reader.take_endings
    if got.error is not None:
        assert reader.endings == 3
        got.value = reader.take_endings()
    assert [peer for peer, _ in got.value] == [1, 2, 3]
    assert reader.take_endings() == []
