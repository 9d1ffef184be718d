"""cluster.lane: what goes the short way, what does not, and what is told of either."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from types import SimpleNamespace

import pytest

from klyng_mp import native

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)

from klyng_mp.cluster.lane import Lane, unwrap
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.communicator.requests import Status
from klyng_mp.errors import CodecError
from klyng_mp.transports.mpi_messages import Frame, content_of, open_front, pack_message
from klyng_mp.wire.codec import PICKLE, Codec
from klyng_mp.wire.frames import Message, make_context, pack_frame

CONTEXT = make_context(1)
ANYBODY, ANYTHING = -7, -8  # as some MPI may have it


class Comm:
    """As mpi4py's, to one peer that is not there: what it has sent is put here."""

    def __init__(self):
        self.sent = []
        self.came = deque()
        self.at_look = lambda: None

    def Get_size(self):
        return 3

    def send(self, obj, dest, tag):
        self.sent.append((obj, dest, tag))

    def improbe(self, source, tag, status):
        self.at_look()
        for index, (sender, number, data) in enumerate(self.came):
            if source in (sender, ANYBODY) and tag in (number, ANYTHING):
                del self.came[index]
                status.Get_source, status.Get_tag, status.Get_count = (lambda: sender), (lambda: number), data.__len__
                return SimpleNamespace(recv=lambda: pickle.loads(data))
        return None


class Transport:
    most = 1000
    half = 500
    any_rank, any_tag = ANYBODY, ANYTHING

    def __init__(self):
        self.comms = [Comm(), Comm()]
        self.passed = [None, None]
        self.taken = []
        self.status = SimpleNamespace()

    def take(self, lane, source, frame):
        self.taken.append((lane, source, frame))

    def take_bare(self, lane, source, tag, data):
        self.taken.append((lane, source, tag, pickle.loads(data)))


@pytest.fixture
def made():
    endpoint, transport = Endpoint(0), Transport()
    lane = Lane(endpoint, transport, 0, context=CONTEXT, codec=Codec(main_by_reference=True), spin=False)
    yield lane, transport, endpoint
    endpoint.close()


@pytest.mark.parametrize(
    "obj", [1, -(2**70), 1.5, None, True, "text", b"bytes", (1, ["two", {"three": 3.0}]), "é" * 400, "x" * 1900]
)
def test_small_objects_of_everyday_types_go_past_everything(made, obj):
    lane, transport, _ = made
    assert lane.send(obj, 2, 7)
    assert transport.comms[0].sent == [(obj, 2, 7)]
    assert [transport.passed[0].sent(rank) for rank in range(3)] == [0, 0, 1]
    assert len(pickle.dumps(obj, 5)) < 4096


@pytest.mark.parametrize(
    ("obj", "dest", "tag"),
    [
        ("x" * 2100, 1, 0), (b"x" * 2100, 1, 0), ([0] * 200, 1, 0), (object(), 1, 0), ({1, 2}, 1, 0), (1j, 1, 0),
        ("é" * 600, 1, 0),  (1, 0, 0), (1, 3, 0), (1, -1, 0), (1, "1", 0), (1, True, 0), (1, 1, "tag"),
        (1, 1, -1), (1, 1, 1001), (1, 1, 1.0),
    ],
)  # fmt: skip
def test_all_else_is_left_to_the_long_way(made, obj, dest, tag):
    lane, transport, _ = made
    assert not lane.send(obj, dest, tag)
    assert transport.comms[0].sent == []
    assert [transport.passed[0].sent(rank) for rank in range(3)] == [0, 0, 0]


def test_what_has_come_is_received_by_source_and_tag(made):
    lane, transport, endpoint = made
    transport.comms[0].came += [(1, 5, pickle.dumps("first")), (2, 5, pickle.dumps("other")), (1, 5, pickle.dumps(2))]
    assert [lane.recv(1, 5), lane.recv(1, 5), lane.recv(1, 5), lane.recv(2, 5)] == ["first", 2, NOT_YET, "other"]
    assert [transport.passed[0].received(rank) for rank in range(3)] == [0, 2, 1]
    assert endpoint.mailbox.taken(1) == 3


@pytest.mark.parametrize(
    ("source", "tag"), [(0, 5), (3, 5), (-2, 5), (1, -2), (1, "tag"), (1, 1001), ("1", 5), (-(2**70), 5)]
)
def test_other_receives_are_left_to_the_long_way(made, source, tag):
    assert made[0].recv(source, tag) is NOTHING


def test_any_source_and_any_tag_get_what_came_first(made):
    lane, transport, endpoint = made
    came = transport.comms[0].came
    came += [(number, tag, pickle.dumps((number, tag))) for number, tag in ((2, 3), (1, 4), (2, 4), (1, 5), (2, 6))]
    wishes = (1, -1), (-1, 4), (-1, -1), (-1, -1)
    assert [lane.recv(*wish) for wish in wishes] == [(1, 4), (2, 4), (2, 3), (1, 5)]
    assert [transport.passed[0].received(rank) for rank in range(3)] == [0, 2, 2]
    assert lane.recv(1, -1) is NOT_YET
    message = Message(CONTEXT, 2, 6, 0, PICKLE, b"head", ())
    came[0] = (2, 6, pack_message(0, [], pack_frame(message)))
    assert lane.recv(-1, -1) is NOTHING
    assert [one[:2] for one in transport.taken] == [(0, 2)]
    assert lane.recv(-1, -1) is NOTHING  # and not NOT_YET, as nobody knows for whom to sleep
    assert endpoint.mailbox.taken(1) == 4


def test_a_status_tells_of_what_was_received_and_of_nothing_else(made):
    lane, transport, endpoint = made
    data = pickle.dumps("what came")
    transport.comms[0].came += [(2, 7, data), (2, 8, pack_message(0, [], []))]
    status = Status()
    assert lane.recv_telling(-1, -1, status) == "what came"
    assert (status.source, status.tag, status.count) == (2, 7, len(data))
    before = repr(status)
    assert lane.recv_telling(1, 7, status) is NOT_YET
    assert lane.recv_telling(2, 8, status) is NOTHING
    assert repr(status) == before
    assert not endpoint.lock._is_owned()


def test_a_collective_has_no_use_for_any():
    endpoint, transport = Endpoint(0), Transport()
    lane = Lane(endpoint, transport, 1, context=CONTEXT | 1, codec=Codec(main_by_reference=True), spin=False)
    transport.comms[1].came.append((1, 5, pickle.dumps("first")))
    assert lane.recv(1, -1) is NOTHING
    assert lane.recv(-1, 5) is NOTHING
    assert lane.recv(1, 5) == "first"
    endpoint.close()


def test_it_looks_at_nothing_while_the_long_way_has_something(made):
    lane, transport, endpoint = made
    transport.comms[0].came.append((1, 5, pickle.dumps("in MPI")))
    endpoint.deliver(1, Message(CONTEXT, 1, 5, 0, PICKLE, pickle.dumps("in the mailbox"), ()))
    assert lane.recv(1, 5) is NOTHING
    assert endpoint.mailbox.take(CONTEXT, 1, 5) is not None
    posted = endpoint.start_receive(CONTEXT, 2, 9)
    assert lane.recv(1, 5) is NOTHING
    assert endpoint.withdraw_receive(posted)
    transport.passed[0].shut = True
    assert lane.recv(1, 5) is NOTHING
    transport.passed[0].shut = False
    endpoint.room.stopped = True
    assert lane.recv(1, 5) is NOTHING
    assert not lane.send(1, 1, 5)
    endpoint.room.stopped = False
    assert lane.recv(1, 5) == "in MPI"


def test_a_frame_is_handed_to_the_transport(made):
    lane, transport, endpoint = made
    message = Message(CONTEXT, 1, 5, 0, PICKLE, b"head", ())
    data = pack_message(7, [100, 0], pack_frame(message))
    transport.comms[0].came.append((1, 5, data))
    assert lane.recv(1, 5) is NOTHING
    ((number, source, frame),) = transport.taken
    assert (number, source, type(frame)) == (0, 1, Frame)
    assert bytes(frame) == content_of(bytearray(data))
    front = open_front(frame)
    assert (front[0], front[1], bytes(front[2])) == (7, (100, 0), b"".join(pack_frame(message)))
    assert transport.passed[0].received(1) == 0
    assert endpoint.mailbox.taken(1) == 0


def test_beside_other_threads_the_lock_is_held_from_the_look_to_the_end(made):
    lane, transport, endpoint = made
    comm = transport.comms[0]
    frame = pack_message(0, [], pack_frame(Message(CONTEXT, 1, 5, 0, PICKLE, b"head", ())))
    came = [(1, 5, pickle.dumps("first")), (1, 5, frame), (1, 5, b"cno_such_module\nName\n.")]
    held = []
    comm.at_look = lambda: held.append(endpoint.lock._is_owned())
    transport.take = lambda *_: held.append(endpoint.lock._is_owned())
    over, inside = threading.Event(), threading.Event()

    def stay():
        over.wait(60)
        with endpoint.lock:
            inside.set()
            leave.wait(60)

    leave = threading.Event()
    other = threading.Thread(target=stay)
    other.start()
    try:
        comm.came += came
        assert lane.recv(1, 5) == "first"
        assert lane.recv(1, 5) is NOTHING
        with pytest.raises(CodecError):
            lane.recv(1, 5)
        assert lane.recv(1, 5) is NOT_YET
        assert set(held) == {True}
        assert not endpoint.lock._is_owned()
        over.set()
        assert inside.wait(60)
        comm.came += came[:1]
        held.clear()
        assert lane.recv(1, 5) is NOTHING
        assert held == []
    finally:
        over.set()
        leave.set()
        other.join()
    assert lane.recv(1, 5) == "first"
    assert held == [False]


def test_a_collectives_tag_that_is_too_large_goes_within_the_message():
    endpoint, transport = Endpoint(0), Transport()
    lane = Lane(endpoint, transport, 1, context=CONTEXT | 1, codec=Codec(main_by_reference=True), spin=False)
    comm = transport.comms[1]
    assert lane.send("small", 1, 499)
    assert lane.send("large", 1, 500)
    assert lane.send("larger", 1, 500_001)
    assert comm.sent == [("small", 1, 499), ((500, "large"), 1, 500), ((500_001, "larger"), 1, 501)]
    comm.came += [(1, 501, pickle.dumps((1, "given up"))), (1, 501, pickle.dumps((500_001, "larger")))]
    assert lane.recv(1, 500_001) is NOTHING
    assert transport.taken == [(1, 1, 1, "given up")]
    assert lane.recv(1, 500_001) == "larger"
    assert unwrap(pickle.dumps((7, ["object"]))) == (7, pickle.dumps(["object"], pickle.HIGHEST_PROTOCOL))
    endpoint.close()


def test_what_is_no_frame_is_not_taken_for_one():
    assert content_of(bytearray(pickle.dumps(Frame(b"x"), 5))) is None
    assert content_of(bytearray(b"")) is None


def test_what_cannot_be_rebuilt_is_used_up_and_told(made):
    lane, transport, endpoint = made
    transport.comms[0].came += [(1, 5, b"cno_such_module\nName\n."), (1, 5, pickle.dumps("next"))]
    with pytest.raises(CodecError, match="no_such_module"):
        lane.recv(1, 5)
    assert lane.recv(1, 5) == "next"
    assert endpoint.mailbox.taken(1) == 2
