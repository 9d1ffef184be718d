"""Pipes of a World with hosts, as programs use them."""

from __future__ import annotations

import gc
import os
import pickle
from multiprocessing.connection import wait
from time import monotonic

import pytest
from contracts.ranks import Background, interrupted

from klyng_mp.connection import Connection
from klyng_mp.errors import ClosedError, CodecError, NotAcrossHostsError
from klyng_mp.objects import ends, shared
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.ends import make_pipe
from klyng_mp.objects.far_queues import Queue
from klyng_mp.objects.orders import What
from klyng_mp.objects.passing import gather_ends, promise_ends
from klyng_mp.objects.pipes import MOST_WAITING


@pytest.fixture
def pipe(job):
    """One end in the driver, the other one in a rank."""
    near, sent = make_pipe(job.numbers, duplex=True)
    far = job.at(1, sent)
    sent.close()
    yield near, far
    near.close()
    far.close()


def test_objects_and_bytes_go_both_ways(pipe):
    for one, other in (pipe, pipe[::-1]):
        one.send({"some": ["thing"]})
        one.send(lambda: 5)
        one.send_bytes(b"bytes")
        one.send(list(range(10_000)))
        assert other.recv() == {"some": ["thing"]}
        assert other.recv()() == 5
        assert other.recv_bytes() == b"bytes"
        assert other.recv() == list(range(10_000))


def test_it_is_a_connection_of_multiprocessing(pipe):
    near, far = pipe
    far.send("text")
    assert pickle.loads(near.recv_bytes()) == "text"
    far.send_bytes(b"0123456789", 2, 3)
    buffer = bytearray(5)
    assert near.recv_bytes_into(buffer, 1) == 3
    assert buffer == b"\x00234\x00"
    far.send_bytes(b"0123456789")
    with pytest.raises(OSError, match="bad message length"):
        near.recv_bytes(5)
    assert not near.readable
    assert near.writable


def test_a_pipe_of_one_way_refuses_the_other(job):
    reader, writer = make_pipe(job.numbers, duplex=False)
    writer = job.at(1, writer)
    with reader, writer:
        assert (reader.readable, reader.writable, writer.readable, writer.writable) == (True, False, False, True)
        writer.send(1)
        assert reader.recv() == 1
        with pytest.raises(OSError, match="read-only"):
            reader.send(1)
        with pytest.raises(OSError, match="write-only"):
            writer.recv()


def test_who_waits_gets_what_comes(job, pipe):
    for one, other in (pipe, pipe[::-1]):
        call = job.start(one.recv)
        other.send("there")
        assert call.result() == "there"


def test_who_is_interrupted_takes_no_message_along(job, pipe):
    near, far = pipe
    for one, other, desk in ((near, far, job.desks[0]), (far, near, job.desks[1])):
        with interrupted(desk):
            one.recv()
        other.send("for the next one")
        assert one.recv() == "for the next one"


def test_what_comes_to_who_was_interrupted_is_given_back(job, pipe):
    near, far = pipe
    near.send("first")
    near.send("second")
    question = job.desks[1].ask(far._handle, What.RECV, (1, 0, 0))  # as if the interrupt came right now
    with job.endpoints[1].lock:
        ends._RECV[1].undo(job.desks[1], far._handle, question)
    assert [far.recv(), far.recv()] == ["first", "second"]


def test_poll_tells_within_its_time(job, pipe):
    near, far = pipe
    assert not far.poll()
    began = monotonic()
    assert not far.poll(0.05)
    assert monotonic() - began >= 0.05
    call = job.start(far.poll, None)
    near.send(1)
    assert call.result()
    assert far.poll()
    assert far.recv() == 1


def test_who_sends_more_than_there_is_room_for_waits(job, pipe):
    near, far = pipe
    far.send_bytes(bytes(MOST_WAITING))
    call = job.start(far.send, "more")
    assert len(near.recv_bytes()) == MOST_WAITING
    call.result()
    assert near.recv() == "more"


def test_the_end_is_seen_when_all_have_closed_the_other_end(job, pipe):
    near, far = pipe
    second = job.at(2, far)
    waits = job.start(near.recv)
    far.send("last")
    far.close()
    assert waits.result() == "last"
    waits = job.start(near.recv)
    second.close()
    with pytest.raises(EOFError):
        waits.result()
    assert near.poll()
    with pytest.raises(BrokenPipeError):
        near.send(1)
    with pytest.raises(OSError, match="handle is closed"):
        far.send(1)


def test_the_end_is_seen_when_the_process_that_had_it_has_ended(job, pipe):
    near, far = pipe
    far.send("sent before")
    job.end(1)
    assert near.recv() == "sent before"
    with pytest.raises(EOFError):
        near.recv()


def test_one_that_is_forgotten_is_closed(job):
    near, sent = make_pipe(job.numbers, duplex=True)
    far = job.at(1, sent)
    far.fileno()
    del sent
    waits = job.start(near.recv)
    del far
    gc.collect()
    with pytest.raises(EOFError):
        waits.result()
    near.close()


def test_a_descriptor_shows_that_there_is_something(pipe):
    for one, other in (pipe, pipe[::-1]):
        assert wait([one], 0) == []
        other.send(1)
        other.send(2)
        for number in (1, 2):
            assert wait([one], 10) == [one]
            assert one.recv() == number
        assert wait([one], 0.02) == []
    near, far = pipe
    far.close()
    assert wait([near], 10) == [near]


def test_a_descriptor_goes_with_its_connection(job):
    before = set(os.listdir("/proc/self/fd"))
    near, sent = make_pipe(job.numbers, duplex=True)
    far = job.at(1, sent)
    opened = set(os.listdir("/proc/self/fd")) - before  # the two processes' own
    for connection in (near, far):
        assert connection.fileno() == connection.fileno()
        connection.close()
    sent.close()
    assert set(os.listdir("/proc/self/fd")) - before == opened
    assert len(opened) == 2


def test_nothing_is_left_of_a_pipe_that_nobody_has(job):
    near, sent = make_pipe(job.numbers, duplex=True)
    number = near._handle
    far = job.at(1, sent)
    for connection in (near, sent, far):
        assert job.desks[0].state(number) is not None
        connection.close()
    with pytest.raises(ClosedError, match="no such object"):  # and what was said before has been heard
        job.desks[1].ask(number, 0)
    assert job.desks[0].state(number) is None


def test_an_end_goes_through_a_pipe(job, pipe):
    near, far = pipe
    one, other = make_pipe(job.numbers, duplex=True)
    near.send(other)
    other.close()
    assert not one.poll()  # it is on its way
    shared.set_desk(job.desks[1])
    try:
        other = far.recv()
    finally:
        shared.set_desk(None)
    other.send("from there")
    assert one.recv() == "from there"
    other.close()
    with pytest.raises(EOFError):
        one.recv()
    one.close()


def test_an_end_that_was_pickled_by_value_is_on_its_way_once(job):
    queue, (one, other) = job.everywhere(Queue(job.numbers)), make_pipe(job.numbers, duplex=True)
    queue[0].put([other, lambda: None])  # plain pickle refuses it, after the end
    other.close()
    shared.set_desk(job.desks[1])
    try:
        other, _ = queue[1].get(timeout=60)
    finally:
        shared.set_desk(None)
    other.close()
    with pytest.raises(EOFError):
        one.recv()
    one.close()


def test_an_end_that_was_promised_is_open_until_its_process_has_come_or_ended(job):
    near, sent = make_pipe(job.numbers, duplex=True)
    with gather_ends() as gathered:
        data = pickle.dumps(sent)
    with promise_ends(gathered, [(1, 0)]):
        sent.close()
    assert not near.poll()
    job.end(1)
    with pytest.raises(EOFError):
        near.recv()
    with pytest.raises(ValueError, match="not sent"), promise_ends(gathered, [(2, 0)]):
        raise ValueError("not sent")
    assert near.poll()
    assert data
    near.close()


def test_what_cannot_leave_is_refused_where_it_is_sent(pipe):
    near, _ = pipe
    reader, writer = os.pipe()
    with Connection(reader, writable=False) as one, Connection(writer, readable=False):
        with pytest.raises(NotAcrossHostsError, match="of this machine") as refused:
            near.send([one])
        assert "obj[0] cannot travel" in refused.value.__notes__[0]
        with pytest.raises(CodecError):
            near.send(n for n in ())
    near.send("goes on")


def test_everybody_is_told_when_the_world_is_closed(job, pipe):
    near, _ = pipe
    descriptor = near.fileno()
    waits = job.start(near.recv)
    looks = Background(lambda: wait([near], 60))
    job.endpoints[0].close()
    assert looks.result() == [near]
    assert descriptor == near.fileno()
    for call in (waits.result, near.recv, lambda: near.send(1)):
        with pytest.raises(ClosedError):
            call()


def test_who_comes_after_the_end_is_told(job, pipe):
    near, _ = pipe
    job.endpoints[0].close()
    assert wait([near], 60) == [near]
    another = Desk(job.endpoints[2], job.desks[2].codec, directory=(0, 1))
    assert another.ask_later(near._handle, 0, (0, 0, 0), lambda: None).answer is None


def test_one_of_another_world_is_refused(pipe):
    data = pickle.dumps(pipe[0])
    with pytest.raises(NotAcrossHostsError, match="the Pipe of a World"):
        pickle.loads(data)
    assert "a World with hosts" in repr(pipe[0])
