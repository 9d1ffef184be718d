"""Scenarios of the core's short way."""

from __future__ import annotations

import pickle
from functools import partial

from memorywork.driver import Outcome, RebuildError, each, scenario
from memorywork.matching import CONTEXT, RUN, text
from memorywork.ports import APART, OTHER, contents, is_lost, make_ports, say_asleep

import klyng_mp._core as core


class Way:
    """One rank's short way, with what belongs to it."""

    def __init__(self, port):
        self.port = port
        self.gate = core.Gate()
        self.mailbox = core.Mailbox()
        self.express = core.Express(self.gate, port, self.mailbox, CONTEXT, range(port.size), True, blame)
        self.send, self.recv = self.express.send, self.express.recv
        for peer in range(port.size):
            if peer != port.rank:
                port.open(peer, 3)


def blame(error, _code, _head):
    assert isinstance(error, MemoryError)
    return RebuildError()


def make_ways(ranks=2, *, pools=False, calls=None):
    return [Way(port) for port in make_ports(ranks, pools=pools, calls=calls)]


class Buffer(bytearray):
    """It is pickled as one of the buffers that pickle asks about."""

    def __reduce_ex__(self, protocol):
        return bytearray, (pickle.PickleBuffer(self),)


OBJECTS = {
    "none": lambda: None,
    "bool": lambda: True,
    "int": lambda: -(10**15),
    "float": lambda: 1.5,
    "str": text,
    "bytes": lambda: b"x" * 300,
    "list": lambda: [1.5, [text(), None], 10**40],
    "tuple": lambda: (1, b"x" * 300),
    "dict": lambda: {text(): {10**10: 1.5}},
    "set": lambda: {text(), 10**10},
    "bytearray_within": lambda: [bytearray(b"x" * 300), text()],
    "buffer_within": lambda: [Buffer(b"x" * 300)],
}


@scenario
def make_express():
    port, _ = make_ports()
    one = Way(port)
    members = [number for number in range(500)]  # noqa: C416 - not a range
    got = yield partial(core.Express, one.gate, port, one.mailbox, CONTEXT, members, True, blame)
    assert got.error is not None or type(got.value) is core.Express


@each(**OBJECTS)
def express_send(make):
    one, other = make_ways()
    obj = make()
    got = yield partial(one.send, obj, 1, 7)
    if got.value is not True:
        assert other.port.read(None) == []
        assert got.hit
        assert one.send(obj, 1, 7) is True
    assert other.recv(0, 7) == obj
    assert one.port.take_counts() == {1: 1}


@scenario
def express_send_to_a_sleeper():
    """What was sent counts as sent, even if nobody could be told to wake its receiver; the next call tells."""
    calls = []
    one, other = make_ways(calls=calls)
    say_asleep(other.port)
    got = yield partial(one.send, 1.5, 1, 7)
    assert one.port.take_counts() == ({1: 1} if other.port.read(None) else {})
    if got.error is not None and calls == []:
        assert one.send(2.5, 1, 7) is True
    assert calls == [1]


@each(**OBJECTS)
def express_recv(make):
    """What was taken and cannot be rebuilt is gone, as on the long way; what was not taken is lost with its sender."""
    one, other = make_ways()
    obj = make()
    assert one.send(obj, 1, 7)
    assert one.send("next", 1, 7)
    got = yield partial(other.recv, 0, 7)
    if is_lost(other.port, got):
        assert other.recv(0, 7) is core.NOTHING
        return
    if other.mailbox.taken(RUN) == 0:
        got = Outcome(other.recv(0, 7))
    assert got.error is not None or got.value == obj
    assert other.recv(0, 7) == "next"
    assert other.mailbox.taken(RUN) == 2


@each(number=8, text=text())
def express_recv_past_others(tag):
    """What comes before the wanted one is kept for others."""
    one, other = make_ways()
    others = [core.Message(CONTEXT, 0, tag, 3, 4, b"%d" % number, ()) for number in range(3)]
    for sent in others:
        assert one.port.send(1, sent) is None
    assert one.send("wanted", 1, 7)
    got = yield partial(other.recv, 0, 7)
    if is_lost(other.port, got):
        others = others[: len(other.mailbox)]
    else:
        if other.mailbox.taken(RUN) == 0:
            got = Outcome(other.recv(0, 7))
        assert got.error is not None or got.value == "wanted"
    kept = [other.mailbox.take(CONTEXT, 0, -1) for _ in others]
    assert [contents(sent) for sent in kept] == [contents(sent) for sent in others]
    assert len(other.mailbox) == 0


@each(apart=(APART, b"x" * 700), slab=(OTHER, b"x" * 40_000), pickled=(9, bytearray(b"x" * 700)))
def express_recv_large(case):
    one, other = make_ways(pools=True)
    code, part = case
    pickled = []
    head = pickle.dumps(pickle.PickleBuffer(part), 5, buffer_callback=pickled.append) if code == 9 else b"head"
    sent = core.Message(CONTEXT, 0, 7, 3, code, head, [part])
    assert one.port.send(1, sent) is None
    got = yield partial(other.recv, 0, 7)
    if is_lost(other.port, got):
        assert len(other.mailbox) == 0
        return
    if other.mailbox.taken(RUN) == 0:
        got = Outcome(other.recv(0, 7))
    if got.error is None:
        assert contents(got.value) == contents(sent) if code == OTHER else got.value == part
    assert one.send("next", 1, 7)
    assert other.recv(0, 7) == "next"
    assert other.mailbox.taken(RUN) == 2


@scenario
def express_recv_from_the_mailbox():
    one, other = make_ways()
    assert one.send([1.5, text()], 1, 7)
    for sent in other.port.read(None):
        other.mailbox.deliver(sent)
    got = yield partial(other.recv, 0, 7)
    if other.mailbox.taken(RUN) == 0:
        got = Outcome(other.recv(0, 7))
    assert got.error is not None or got.value == [1.5, text()]
    assert len(other.mailbox) == 0


@scenario
def express_recv_wakes():
    """A receiver that makes room wakes who waits for it; if it cannot, the message is there again."""
    calls = []
    one, other = make_ways(calls=calls)
    sent = 0
    while one.port.send(1, core.Message(CONTEXT, 0, 7, 3, 4, b"%c" % (48 + sent % 10), ())) is None:
        sent += 1
    say_asleep(one.port)
    got = yield partial(other.recv, 0, 7)
    if is_lost(other.port, got):
        return
    if got.error is not None and other.mailbox.taken(RUN) == 0:
        got = Outcome(other.recv(0, 7))
    assert got.error is not None or got.value == "0"
    assert other.recv(0, 7) == "1"
    assert calls == [0]


@each(small=b"", large=b"x" * 3000)
def express_recv_for_who_wants_to_know(part):
    """Whoever waits for a match is told by who is called; what cannot be told now is told later."""
    calls = []
    one, other = make_ways(calls=calls)
    sent = core.Message(CONTEXT, 0, 7, 3, 0x80 | 5, b"head" + part, ())
    assert one.port.send(1, sent) is None
    got = yield partial(other.recv, 0, 7)
    if is_lost(other.port, got):
        return
    if got.error is not None and other.mailbox.taken(RUN) == 0:
        got = Outcome(other.recv(0, 7))
    assert got.error is not None or got.value == b"head" + part
    assert other.mailbox.unanswered == 1
    assert [one.code for one in other.mailbox.take_unanswered()] == [5]


@scenario
def take_counts():
    ways = make_ways(4)
    for peer in (1, 2, 3):
        for _ in range(peer):
            assert ways[0].send(None, peer, 7)
    got = yield ways[0].port.take_counts
    assert (got.value or ways[0].port.take_counts()) == {1: 1, 2: 2, 3: 3}
    assert ways[0].port.take_counts() == {}
