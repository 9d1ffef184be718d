"""The core's short way between ranks of one process: what it takes, and what it leaves to the long way."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref

import pytest

from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.communicator.room import Gate
from klyng_mp.native import core
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message, make_context
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, SYNCHRONOUS, Mailbox, Receive

pytestmark = pytest.mark.skipif(core is None, reason="the core is not in use")
CONTEXT = make_context(1)


class Desk:
    """Three ranks of one process, the last of which is elsewhere."""

    def __init__(self, members=3):
        self.gate = Gate()
        self.mailboxes = [Mailbox(), Mailbox(), None]
        self.asleep = bytearray(3)
        self.woken = []
        self.lanes = [
            core.Local(
                self.gate, self.mailboxes, self.asleep, self.woken.append, number, CONTEXT, members, True,
                Codec.decode_error,
            )
            for number in range(2)
        ]  # fmt: skip


@pytest.fixture
def desk():
    return Desk()


@pytest.mark.parametrize("obj", [None, True, -5, 2**40, 1.5, "text", b"bytes", (1, [2], {"a": None}), {1, 2}])
def test_everyday_objects_go_and_come_as_copies(desk, obj):
    first, second = desk.lanes
    assert first.send(obj, 1, 7)
    got = second.recv(0, 7)
    got = Codec(main_by_reference=True).decode(got.code, got.head, got.buffers) if type(got) is Message else got
    assert got == obj
    assert type(got) is type(obj)
    assert second.recv(0, 7) is NOT_YET


def test_what_is_sent_is_not_what_comes(desk):
    given = [1, [2]]
    assert desk.lanes[0].send(given, 1, 0)
    given[1].append(3)
    assert desk.lanes[1].recv(0, 0) == [1, [2]]


def test_anything_is_the_first_that_came(desk):
    first, second = desk.lanes
    assert second.send("own", 1, 3)
    assert first.send("other", 1, 4)
    assert second.recv(ANY_SOURCE, 4) == "other"
    assert second.recv(ANY_SOURCE, ANY_TAG) == "own"
    assert second.recv(0, ANY_TAG) is NOT_YET


def test_who_sleeps_is_woken_once(desk):
    desk.asleep[1] = 1
    for _ in range(3):
        assert desk.lanes[0].send(0, 1, 0)
    assert desk.woken == [1]
    assert not desk.asleep[1]


def test_a_posted_receive_gets_it(desk):
    receive = Receive(CONTEXT, 0, 5)
    desk.mailboxes[1].post(receive)
    assert desk.lanes[0].send("posted", 1, 5)
    assert receive.message is not None
    assert desk.lanes[1].recv(0, 5) is NOT_YET


@pytest.mark.parametrize(
    ("obj", "rank", "tag"),
    [(1, 2, 0), (1, 3, 0), (1, -1, 0), (1, 1, -1), (1, 1, "text"), (1, "1", 0), (1, True, 0), (bytes(10_000), 1, 0)],
)
def test_what_is_unusual_is_left_to_the_long_way(desk, obj, rank, tag):
    assert desk.lanes[0].send(obj, rank, tag) is False
    assert len(desk.mailboxes[1]) == 0
    assert desk.woken == []


def test_what_is_received_unusually(desk):
    for rank, tag in ((3, 0), (-2, 0), (0, "text"), (0, -2), (0.0, 0)):
        assert desk.lanes[1].recv(rank, tag) is NOTHING
    desk.mailboxes[1].deliver(Message(CONTEXT, 0, 0, 0, 2 | SYNCHRONOUS, b"\1", ()))
    assert desk.lanes[1].recv(0, 0) is NOTHING, "the long way tells its sender"
    assert desk.mailboxes[1].take(CONTEXT, 0, 0) is not None
    assert desk.lanes[1].recv(0, 0) is NOTHING, "which is still to be done"
    assert len(desk.mailboxes[1].take_unanswered()) == 1
    assert desk.lanes[1].recv(0, 0) is NOT_YET


def test_a_gate_that_is_shut(desk):
    assert desk.lanes[0].send(1, 1, 0)
    desk.gate.stopped = True
    assert not desk.lanes[0].send(1, 1, 0)
    assert desk.lanes[1].recv(0, 0) is NOTHING
    desk.gate.stopped = False
    with desk.gate:
        thread = threading.Thread(target=lambda: desk.woken.append(desk.lanes[0].send(1, 1, 0)))
        thread.start()
        thread.join()
    assert desk.woken == [False]
    assert desk.lanes[1].recv(0, 0) == 1


def test_members_of_another_order():
    desk = Desk(members=[1, 0])
    assert desk.lanes[0].send("to the first member", 0, 0)
    assert desk.lanes[1].recv(1, 0) == "to the first member"


def test_errors_are_told(desk):
    class Refuses:
        def __reduce__(self):
            raise OSError("no")

    with pytest.raises(TypeError):
        desk.lanes[0].send(1, 1)
    with pytest.raises(TypeError):
        desk.lanes[0].recv(1)
    with contextlib.suppress(OSError):
        assert desk.lanes[0].send([Refuses()], 1, 0) is False
    assert len(desk.mailboxes[1]) == 0

    def fail(_number):
        raise KeyError("scheduler")

    lane = core.Local(desk.gate, desk.mailboxes, desk.asleep, fail, 0, CONTEXT, 2, True, Codec.decode_error)
    desk.asleep[1] = 1
    with pytest.raises(KeyError):
        lane.send(1, 1, 0)
    for number in (2, 9):
        with pytest.raises(ValueError, match="no mailbox of number"):
            core.Local(desk.gate, desk.mailboxes, desk.asleep, fail, number, CONTEXT, 2, True, Codec.decode_error)
    with pytest.raises(TypeError):
        core.Local(desk.gate, desk.mailboxes, desk.asleep, fail, 0, CONTEXT, object(), True, Codec.decode_error)


def test_a_cycle_through_it_is_collected():
    class Wake:
        def __call__(self, _number):
            pass

    desk, wake = Desk(), Wake()
    wake.lane = core.Local(desk.gate, desk.mailboxes, desk.asleep, wake, 0, CONTEXT, 2, True, Codec.decode_error)
    seen = weakref.ref(wake)
    del wake
    gc.collect()
    assert seen() is None
