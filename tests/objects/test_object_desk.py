"""A process's desk: what is no order is dropped, what does not exist is told, and what nobody needs is forgotten."""

from __future__ import annotations

import gc
import os
import pickle

import pytest

from klyng_mp.errors import ClosedError, ForkedError, NotAcrossHostsError, RemoteProtocolError
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.far_queues import Queue
from klyng_mp.objects.locks import Lock
from klyng_mp.objects.orders import Asker, Order, Verb, What, own_content, pack, read
from klyng_mp.objects.shared import Numbers
from klyng_mp.objects.signals import Event
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import OBJECTS, Message

ORDER = Order(Verb.PUT, What.GET, Asker(1, 2, 3, 4), 5, -6, 7, (8, b"head", [b"buffer"]))


def test_an_order_is_read_as_it_was_written():
    message = pack(1, 99, ORDER)
    assert (message.context, message.tag) == (OBJECTS, 99)
    assert read(message) == ORDER


@pytest.mark.parametrize("size", range(0, 42, 7))
def test_what_is_too_short_is_no_order(size):
    message = pack(1, 99, ORDER)
    with pytest.raises(RemoteProtocolError):
        read(Message(OBJECTS, 1, 99, 0, 0, message.head[:size], ()))
    with pytest.raises(RemoteProtocolError):
        read(Message(OBJECTS, 1, "text", 0, 0, message.head, ()))


def test_content_of_its_own_does_not_change_with_the_senders():
    data = bytearray(b"abc")
    kept = own_content((1, b"", [memoryview(data)]))
    data[:] = b"xyz"
    assert kept == (1, b"", [b"abc"])


def test_a_stranger_to_the_form_does_no_harm(job):
    event = job.at(1, Event(job.numbers))
    for head in (b"", b"\xff" * 60, bytes(60), b"\x01" * 60):
        for tag in ("text", 0, 5, event._number):
            job.endpoints[1].pass_on(0, Message(OBJECTS, 1, tag, 1, 0, head, ()))
    event.set()
    assert event.is_set()


def test_what_does_not_exist_is_told(job):
    event = Event(job.numbers)
    elsewhere = job.at(1, event)
    job.desks[0].drop(event._number)
    for one in (event, elsewhere):
        with pytest.raises(ClosedError, match="no such object"):
            one.set()
    queue = Queue(job.numbers)
    elsewhere = job.at(1, queue)
    job.desks[0].drop(queue._number)
    with pytest.raises(ClosedError, match="no such object"):
        elsewhere.get()


def test_what_no_other_process_knows_is_forgotten_with_its_last_user(job):
    desk = job.desks[0]
    lock, queue, sent = Lock(job.numbers), Queue(job.numbers), Lock(job.numbers)
    pickle.dumps(sent)
    numbers = [one._number for one in (lock, queue, sent)]
    del lock, queue, sent
    gc.collect()
    assert [number in desk._states or number in desk.queuing._queues for number in numbers] == [False, False, True]


def test_it_is_of_no_use_outside_of_its_world(job):
    data = pickle.dumps(Lock(job.numbers))
    with pytest.raises(NotAcrossHostsError, match="the Lock of a World with hosts"):
        pickle.loads(data)


def test_a_driver_knows_the_objects_of_each_of_its_worlds(job):
    desks = [Desk(endpoint, Codec(main_by_reference=True)) for endpoint in job.endpoints[:2]]
    events = [Event(Numbers(desk)) for desk in desks]
    again = [pickle.loads(pickle.dumps(event)) for event in events]
    again[1].set()
    assert [event.is_set() for event in events] == [False, True]


def test_objects_outlive_their_job(job):
    lock, queue, event = Lock(job.numbers), Queue(job.numbers), Event(job.numbers)
    away = job.at(1, lock), job.at(1, queue)
    event.set()
    queue.put("kept")
    away[1].empty()
    job.desks[0].attach(job.endpoints[2])
    assert event.is_set()
    assert queue.get(timeout=10) == "kept"


@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_is_refused(job):
    lock = Lock(job.numbers)
    pid = os.fork()
    if not pid:
        try:
            lock.acquire()
        except ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_who_waits_for_an_object_is_no_proof_of_a_deadlock(job):
    event = job.at(1, Event(job.numbers))
    waiting = job.start(event.wait)
    assert job.desks[1].waits == 1
    event.set()
    waiting.result()
    assert job.desks[1].waits == 0
