"""communicator.express: the short way gives what the long way gives, and leaves to it what is not its own."""

from __future__ import annotations

import gc
import os
import select
import threading
from os import sched_yield

import pytest
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, Background, ranks, when_waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp import native
from klyng_mp.communicator.calls import make_tag
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CodecError, PeerLostError
from klyng_mp.wire import codec
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message, make_context

if native.core is None:
    pytest.skip("the native core is not in use", allow_module_level=True)

from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.transports.shm import Segment, ShmTransport, ring_size

CONTEXT = make_context(1)


class TestByShm(CommunicatorContract):
    transport = "shm"


class Pair:
    """Two ranks in this process, joined by shared memory."""

    def __init__(self):
        segment = Segment(2)
        self.endpoints, self.comms = [], []
        for rank in range(2):
            endpoint = Endpoint(rank, incarnation=1)
            place = os.dup(segment.fd), os.dup(segment.bells[rank]), 2, rank, 1
            transport = ShmTransport(
                endpoint, endpoint.poller, place=place, spin=False, call=segment.ring, progress=endpoint.progress
            )
            endpoint.use(transport, transport.port)
            endpoint.incarnations.update({0: 1, 1: 1})
            self.endpoints.append(endpoint)
            own = Codec(main_by_reference=True)
            self.comms.append(Communicator(endpoint, own, context=CONTEXT, rank=rank, members=range(2)))
        self.segment = segment
        self.comms[0].send("hello", 1)  # the long way opens the short one
        assert self.comms[1].recv(0, 0) == "hello"

    @property
    def ways(self):
        return [comm._short for comm in self.comms]

    def close(self):
        for endpoint in self.endpoints:
            endpoint.close()
        self.segment.close()


@pytest.fixture
def pair():
    made = Pair()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lasting():
    made = Pair()
    yield made
    made.close()


everyday = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=6000),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner)
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None)
@given(everyday)
def test_objects_arrive_as_they_were_sent_by_whichever_way(lasting, obj):
    one, other = lasting.comms
    one.send(obj, 1, 5)
    got = other.recv(0, 5)
    assert got == obj
    assert type(got) is type(obj)


@pytest.mark.parametrize("number", [0, 1, -1, 127, 128, -128, -129, 2**63 - 1, -(2**63), 2**63, 10**40, -(10**40)])
def test_integers_are_written_as_the_codec_writes_them(pair, number):
    one, other = pair.comms
    one.send(number, 1)
    assert other.endpoint.peek(CONTEXT, 0, 0, doing="peek").head == Codec(main_by_reference=True).encode(number)[1]
    assert other.recv(0, 0) == number


@pytest.mark.parametrize("text", ["", "ünï¢ode 🐍", "\ud800", "\0"])
def test_texts_of_all_kinds(pair, text):
    one, other = pair.comms
    one.send(text, 1)
    assert other.recv(0, 0) == text


def test_small_plain_containers_keep_what_is_shared_and_all_others_go_by_pickle(pair):
    one, other = pair.comms
    inner = [1, 2]
    one.send([inner, (inner, "x" * 10)], 1)
    assert other.endpoint.peek(CONTEXT, 0, 0, doing="peek").code == codec._PLAIN
    got = other.recv(0, 0)
    assert got == [inner, (inner, "x" * 10)]
    assert got[0] is got[1][0]
    looped = [1]
    looped.append(looped)
    for obj in (looped, [bytearray(b"x")], [{1, 2}], list(range(200)), [[[[[[[[[1]]]]]]]]], [Named(1)]):
        one.send(obj, 1)
        assert other.endpoint.peek(CONTEXT, 0, 0, doing="peek").code == codec._PICKLE
        assert repr(other.recv(0, 0)) == repr(obj)
    one.send(["\ud800", True, None, -(10**30)], 1)
    assert other.recv(0, 0) == ["\ud800", True, None, -(10**30)]


class Named(int):
    pass


def test_what_is_unusual_goes_the_long_way_and_nothing_was_done(pair):
    way = pair.ways[0]
    for args in [
        ("x", 1, "word"),
        ("x", 0, 0),
        ("x", 7, 0),
        ("x", -1, 0),
        ("x", 1, -1),
        ("x", True, 0),
        ({1}, 1, 2**63),
    ]:
        assert way.send(*args) is False
    assert way.send(bytes(5000), 1, 0) is False
    assert way.send(threading.Lock(), 1, 0) is False
    assert way.send([threading.Lock()], 1, 0) is False
    assert pair.ways[1].recv(0, 0) is NOT_YET
    assert pair.ways[1].recv(0, "word") is NOTHING
    assert pair.ways[1].recv(-1, -1) is NOTHING


def test_a_message_that_waits_for_another_receive_is_kept_for_it(pair):
    one, other = pair.comms
    one.send("first", 1, 1)
    one.send("second", 1, 2)
    assert other.recv(0, 2) == "second"
    assert other.recv(0, 1) == "first"
    posted = other.irecv(0, 3)
    one.send("posted", 1, 3)
    one.send("later", 1, 3)
    assert pair.ways[1].recv(0, 3) == "later" or posted.done
    assert posted.wait(1) == "posted"


def test_a_message_is_found_beside_a_receive_that_is_posted_for_another(pair):
    one, other = pair.comms
    posted = other.irecv(0, 3)
    one.send("at once", 1, 4)
    assert pair.ways[1].recv(0, 4) == "at once"  # and not NOT_YET, after which one sleeps
    one.send("posted", 1, 3)
    assert pair.ways[1].recv(0, 4) is NOT_YET
    assert posted.wait(1) == "posted"


def test_nothing_overtakes_what_came_while_a_receive_was_posted(pair):
    one, other = pair.comms
    posted = other.irecv(0, 3)
    for obj, tag in (("first", 4), ("posted", 3), ("second", 4)):
        one.send(obj, 1, tag)
    assert pair.ways[1].recv(0, 4) == "first"
    assert pair.ways[1].recv(0, 4) == "second"
    assert posted.wait(0) == "posted"


def test_who_begins_to_wait_while_another_reads_is_woken(pair):
    one, other = pair.comms
    waiting = when_waiting(other.endpoint)
    calls = []

    def let_another_in(phase, info):
        if phase == "start" and not calls:
            calls.append(Background(lambda: other.recv(0, 5)))
            assert waiting.wait(LIMIT)

    one.send(bytes(400_000), 1, 5)
    one.send("mine", 1, 6)
    recv = pair.ways[1].recv
    lists = [[] for _ in range(200)]  # so that the next one needs memory, and that a collection
    gc.callbacks.append(let_another_in)
    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(1)
        assert recv(0, 6) == "mine"
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(let_another_in)
    assert lists
    assert len(calls[0].result()) == 400_000


def test_an_earlier_irecv_comes_first(pair):
    one, other = pair.comms
    posted = other.irecv()
    one.send("one", 1, 3)
    one.send("two", 1, 3)
    assert other.recv(0, 3) == "two"
    assert posted.wait(1) == "one"


def test_nothing_overtakes_what_is_queued(pair):
    one, other = pair.comms
    big = one.isend(bytes(1_900_000), 1, 7)
    small = [one.isend(number, 1, 7) for number in range(5)]
    for number in range(5, 10):
        one.send(number, 1, 7)
    assert not big.done

    def drain():
        assert len(other.recv(0, 7)) == 1_900_000
        got.extend(other.recv(0, 7) for _ in range(10))

    got = []
    thread = threading.Thread(target=drain)
    thread.start()
    big.wait(10)
    for request in small:
        request.wait(10)
    one.endpoint.flush(Deadline(10))
    thread.join(10)
    assert got == list(range(10))


def test_a_rank_that_is_lost_is_refused_by_the_long_way(pair):
    one, _ = pair.comms
    one.endpoint.mark_lost(1, "was killed")
    assert pair.ways[0].send("x", 1, 0) is False
    with pytest.raises(PeerLostError, match="was killed"):
        one.send("x", 1)


def test_the_short_way_is_shut_during_an_abort_and_after_the_run(pair):
    one, _ = pair.comms
    one.endpoint.abort("failed", 1)
    assert pair.ways[0].send("x", 1, 0) is False
    with pytest.raises(PeerLostError):
        one.send("x", 1)
    one.endpoint.resume()
    assert pair.ways[0].send("x", 1, 0) is True
    one.endpoint.begin_run(make_context(2))
    assert pair.ways[0].send("x", 1, 0) is False
    with pytest.raises(ClosedError, match="a run that has ended"):
        one.send("x", 1)


def test_a_closed_communicator_has_no_short_way(pair):
    one, _ = pair.comms
    one.close()
    with pytest.raises(ClosedError):
        one.send("x", 1)


def test_while_a_thread_waits_messages_reach_it(pair):
    one, other = pair.comms
    got = []
    waiting = threading.Thread(target=lambda: got.append(other.recv(0, "for the thread")))
    waiting.start()
    while not other.endpoint.lock.waiting:
        pass
    one.send("for us", 1, 5)
    one.send("hello", 1, "for the thread")
    assert other.recv(0, 5) == "for us"
    waiting.join(10)
    assert got == ["hello"]


def test_users_messages_are_counted_by_both_ways(pair):
    one, other = pair.comms
    one.send("short", 1)
    one.send("long", 1, "word")
    assert one.endpoint.sent_counts()[1] == 3
    assert [other.recv(0, 0), other.recv(0, "word")] == ["short", "long"]
    assert other.endpoint.mailbox.taken(1) == 3
    statistics = one.endpoint.statistics()
    assert (statistics.messages_sent, statistics.connections) == (3, 1)


class Broken:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise ValueError("it does not go together")


def test_an_object_that_cannot_be_rebuilt_is_an_error_that_says_so(pair):
    one, other = pair.comms
    one.send([Broken()], 1)
    with pytest.raises(CodecError, match=r"cannot be rebuilt here: .*it does not go together") as caught:
        other.recv(0, 0)
    assert isinstance(caught.value.__cause__, ValueError)
    one.send("next", 1)
    assert other.recv(0, 0) == "next"


def test_a_fork_is_refused(pair):
    pid = os.fork()
    if pid == 0:
        try:
            pair.comms[0].send("x", 1)
        except BaseException as error:
            os._exit(type(error).__name__ == "ForkedError")
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    pair.comms[0].send("still here", 1)
    assert pair.comms[1].recv(0, 0) == "still here"


def test_who_wants_to_know_is_told_by_the_short_way(pair):
    sender, receiver = pair.comms
    for obj in (5, "text", [1, {2}], b"x" * 5000, bytearray(5000)):
        request = sender.issend(obj, 1, 5)
        assert not request.test()
        assert pair.ways[1].recv(0, 5) == obj or type(obj) is bytearray
        assert request.test()
    assert receiver.endpoint.mailbox.taken(1) == 6


def test_who_wants_to_know_is_told_of_what_others_posted(pair):
    sender = pair.comms[0]
    others = [Communicator(c.endpoint, c.codec, context=CONTEXT + 2, rank=c.rank, members=range(2)) for c in pair.comms]
    posted = others[1].irecv(0, 5)
    request = others[0].issend("for the posted one", 1, 5)
    sender.send("wanted", 1, 6)
    assert pair.ways[1].recv(0, 6) == "wanted"
    assert request.test()
    assert posted.wait(0) == "for the posted one"
    posted = others[1].irecv(0, 5)
    request = others[0].issend("again", 1, 5)
    assert pair.ways[1].recv(0, 6) is NOTHING  # what is told may bring it
    assert request.test()
    assert posted.wait(0) == "again"


# -- collectives: all others at once, and without messages ---------------------------------------------------

STEP = CONTEXT | 1


@pytest.fixture
def three():
    with ranks(3, "shm") as made:
        made.run(lambda comm: comm.alltoall([0] * 3))  # the long way opens the short one
        yield made


def test_an_object_is_spread_to_all_others_and_collected_by_rank(three):
    ways = [comm.short_collective for comm in three.comms]
    found = [None, NOT_YET, NOT_YET]
    assert ways[1].spread({"from": 1}, 99) == 2
    assert ways[0].collect(found, 99) == 1
    assert found == [None, {"from": 1}, NOT_YET]
    assert ways[2].spread("two", 99) == 2
    assert ways[0].collect(found, 98) == 1  # another call's
    assert ways[0].collect(found, 99) == 0
    assert found == [None, {"from": 1}, "two"]
    assert three.comms[2].short_collective.collect([NOT_YET, None, None], 99) == 1


def test_what_the_short_way_does_not_send_is_left_to_the_long_one(three):
    way = three.comms[0].short_collective
    assert way.spread(bytes(2_000_000), 5) == 0
    three.endpoints[0].mark_lost(1, "was killed")
    assert way.spread(1, 6) == 0  # the next one is gone


@pytest.mark.parametrize("words", [(), (1,), (1, -1), (1, "tag"), (1, 2.0)])
def test_spread_refuses_what_is_no_call_of_it(three, words):
    way = three.comms[0].short_collective
    if words == (1, -1):
        assert way.spread(*words) == 0
    else:
        with pytest.raises(TypeError):
            way.spread(*words)


@pytest.mark.parametrize("words", [(), ([],), ([], 1), ((NOT_YET,) * 3, 1), ([NOT_YET] * 2, 1)])
def test_collect_refuses_what_is_no_place_for_all_ranks(three, words):
    with pytest.raises(TypeError):
        three.comms[0].short_collective.collect(*words)


def test_the_last_to_come_to_a_barrier_lets_all_pass(three):
    meetings = [comm.meeting for comm in three.comms]
    tag = make_tag(7, "barrier")
    assert [meeting.arrive(tag) for meeting in meetings] == [False, False, True]
    assert [meeting.arrive(tag) for meeting in meetings] == [True] * 3
    later = make_tag(9, "barrier")
    assert meetings[0].arrive(later) is False
    assert meetings[0].absent() == [1, 2]
    meetings[1].enter(make_tag(10, "bcast", 0))  # is beyond it
    assert meetings[0].absent() == [2]
    assert meetings[0].arrive(later) is False
    meetings[0].leave()
    assert meetings[2].arrive(later) is True


def test_calls_of_the_same_number_that_differ_are_seen(three):
    one, two, three_ = (comm.meeting for comm in three.comms)
    tag = make_tag(3, "bcast", 1)
    for meeting in (one, two, three_):
        meeting.enter(tag)
    assert one.find_stranger(tag) is None
    other = make_tag(3, "bcast", 2)
    three_.enter(other)
    assert one.find_stranger(tag) == (2, other)
    assert three_.find_stranger(other) == (0, tag)
    three_.enter(make_tag(4, "barrier"))
    assert one.find_stranger(tag) is None


def test_a_run_forgets_the_calls_of_the_one_before(three):
    one, two = (comm.meeting for comm in three.comms[:2])
    two.enter(make_tag(3, "gather", 0))
    assert one.find_stranger(make_tag(3, "gather", 1)) == (1, make_tag(3, "gather", 0))
    three.endpoints[1].begin_run(make_context(1))
    assert one.find_stranger(make_tag(3, "gather", 1)) is None
    three.endpoints[0].begin_run(make_context(2))
    assert one.arrive(make_tag(4, "barrier")) is None


def test_numbers_too_large_for_a_word_are_left_to_messages(three):
    meeting = three.comms[0].meeting
    far = make_tag(2**32, "barrier")
    meeting.enter(far)
    assert meeting.arrive(far) is None
    assert meeting.find_stranger(far) is None
    with pytest.raises(ValueError, match="negative"):
        meeting.arrive(-1)
    with pytest.raises(TypeError):
        meeting.enter("tag")


def test_a_meeting_needs_members_and_a_place(three):
    endpoint = three.endpoints[0]
    core = native.core
    with pytest.raises(ValueError, match="no rank 3"):
        core.Meeting(endpoint.lock, endpoint.port, CONTEXT, 0, [0, 3])
    with pytest.raises(ValueError, match="places for meetings"):
        core.Meeting(endpoint.lock, endpoint.port, CONTEXT, core.MEETINGS, [0, 1])
    with pytest.raises(TypeError):
        core.Meeting(endpoint.lock, endpoint.port, CONTEXT, 0, 5)


def test_there_is_no_meeting_for_more_communicators_than_there_are_places(three):
    def many(comm):
        return [comm.dup().meeting is not None for _ in range(native.core.MEETINGS + 2)]

    assert three.run(many) == [[True] * (native.core.MEETINGS - 1) + [False] * 3] * 3


def test_what_a_word_says_is_told_from_that_no_call_was_made_in_every_run(three):
    context = make_context(1 << 16)
    meetings = [native.core.Meeting(one.lock, one.port, context, 5, range(3)) for one in three.endpoints]
    assert meetings[0].arrive(0) is False
    assert meetings[0].absent() == [1, 2]
    assert meetings[0].find_stranger(0) is None
    meetings[1].enter(1)
    assert meetings[0].find_stranger(0) == (1, 1)
    assert [meeting.arrive(0) for meeting in meetings[1:]] == [False, True]


def test_threads_that_wait_in_barriers_of_several_communicators_all_hear_of_the_last_one(three):
    port = three.endpoints[0].port
    some = [
        [native.core.Meeting(e.lock, e.port, CONTEXT, slot, range(3)) for e in three.endpoints] for slot in (7, 8, 9)
    ]
    assert not any(meetings[0].arrive(0) for meetings in some)
    for meetings in some:
        assert not port.has_news()
        assert [meeting.arrive(0) for meeting in meetings[1:]] == [False, True]
        assert port.has_news()
        assert meetings[0].arrive(0)
    assert not port.has_news()
    waiting = [meetings[0] for meetings in some]
    assert not any(meeting.arrive(1 << 16) for meeting in waiting)
    del some, meetings, waiting  # nobody is to look at them any more
    assert not port.has_news()


def test_who_was_killed_in_its_sleep_leaves_no_count_to_its_successor(three):
    """The dead one slept until three steps had come; its successor is woken by the first."""
    core, segment = native.core, Segment(2)
    try:
        ports = [core.Port(segment.fd, 2, ring_size(2), rank, 1, False, print) for rank in range(2)]
        for port in ports:
            port.set_bell(1, segment.bells[1])
        gate, poller = core.Gate(), select.epoll()
        with poller:
            poller.register(segment.bells[1], select.EPOLLIN)
            asleep = Background(lambda: ports[1].doze(gate, poller.fileno(), 3))
            while not gate.waiting:
                sched_yield()
            port = core.Port(segment.fd, 2, ring_size(2), 1, 2, False, print)
            goes_to_bed = port.prepare_sleep
            assert goes_to_bed()
            ports[0].send(1, Message(STEP, 0, 0, 2, 0, b"", []))
            assert asleep.result()
            assert not poller.poll(0)
    finally:
        segment.close()
