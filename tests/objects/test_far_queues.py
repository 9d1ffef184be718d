"""Queues of a World with hosts, as programs use them."""

from __future__ import annotations

from queue import Empty, Full

import pytest
from contracts.ranks import Background

from klyng_mp.errors import CodecError
from klyng_mp.objects.far_queues import JoinableQueue, Queue, SimpleQueue


def home_of(job, queue):
    (home,) = [
        desk.process[0]
        for desk in job.desks
        if (known := desk.queuing._queues.get(queue._number)) is not None and known.store is not None
    ]
    return home


def test_objects_go_from_any_process_to_any(job):
    queues = job.everywhere(Queue(job.numbers))
    for putter in queues:
        for getter in queues:
            putter.put({"some": ["thing"]})
            assert getter.get(timeout=10) == {"some": ["thing"]}


def test_it_lives_with_its_first_reader(job):
    queue = Queue(job.numbers)
    queues = job.everywhere(queue)
    queue.put(1)
    queues[1].put(2)
    assert {queues[1].get(timeout=10), queues[1].get(timeout=10)} == {1, 2}
    assert home_of(job, queue) == 1
    queues[2].put(3)
    assert queues[0].get(timeout=10) == 3
    assert home_of(job, queue) == 1


def test_one_putters_objects_keep_their_order_while_the_queue_moves(job):
    queues = job.everywhere(Queue(job.numbers))
    for number in range(100):
        queues[2].put(number)
        if number == 50:
            first = Background(queues[1].get)
    assert [first.result(), *(queues[1].get(timeout=10) for _ in range(99))] == list(range(100))


def test_what_is_put_is_as_it_was_then(job):
    numpy = pytest.importorskip("numpy")
    queues = job.everywhere(Queue(job.numbers))
    array = numpy.arange(100_000)
    queues[1].put(array)
    array[:] = 0
    got = queues[2].get(timeout=10)
    assert got.sum() == 4999950000
    got[0] = 1
    queues[2].put(got)
    assert queues[2].get(timeout=10)[0] == 1


def test_what_cannot_travel_is_told_where_it_is_put(job):
    queues = job.everywhere(Queue(job.numbers))
    with pytest.raises(CodecError):
        queues[1].put(n for n in ())
    queues[1].put(lambda: 5)
    assert queues[2].get(timeout=10)() == 5


def test_who_finds_nothing_in_time_is_told(job):
    for queue in job.everywhere(Queue(job.numbers)):
        for call in (
            queue.get_nowait,
            lambda: queue.get(False),
            lambda: queue.get(timeout=0.01),
            lambda: queue.get(True, 0),
        ):
            with pytest.raises(Empty):
                call()


@pytest.mark.parametrize("reader", [0, 1])
def test_who_finds_no_room_in_time_is_told(job, reader):
    queues = job.everywhere(Queue(job.numbers, 2))
    with pytest.raises(Empty):
        queues[reader].get(False)
    queues[2].put(1)
    queues[0].put(2)
    assert (queues[1].full(), queues[1].qsize(), queues[2].empty()) == (True, 2, False)
    for queue in queues:
        for call in (lambda: queue.put_nowait(0), lambda: queue.put(0, timeout=0.01), lambda: queue.put(0, False)):
            with pytest.raises(Full):
                call()
    waiting = job.start(queues[2].put, 3)
    assert [queues[reader].get(timeout=10) for _ in range(3)] == [1, 2, 3]
    assert waiting.result() is None
    assert queues[2].empty() is True


def test_an_object_is_not_lost_with_who_was_interrupted(job):
    queues = job.everywhere(Queue(job.numbers))
    desk = job.desks[1]
    wait = desk.endpoint.wait_within

    def interrupted(ready, deadline, doing, on=None):
        queues[2].put("kept")
        wait(ready, deadline, doing, on)
        raise KeyboardInterrupt

    desk.endpoint.wait_within = interrupted
    with pytest.raises(KeyboardInterrupt):
        queues[1].get()
    desk.endpoint.wait_within = wait
    assert queues[0].get(timeout=10) == "kept"


def test_a_killed_home_loses_only_what_it_had_taken(job):
    queues = job.everywhere(Queue(job.numbers))
    with pytest.raises(Empty):
        queues[1].get(False)
    for number in range(20):
        queues[2].put(number)
        queues[0].put(100 + number)
    taken = [queues[1].get(timeout=10) for _ in range(10)]
    while any(len(desk.queuing._queues[queues[0]._number].kept) > 20 for desk in job.desks):
        pass
    job.end(1)
    queues[2].put("after")
    left = [queues[2].get(timeout=10) for _ in range(31)]
    assert sorted(map(str, taken + left)) == sorted(map(str, [*range(20), *range(100, 120), "after"]))
    assert [one for one in left if isinstance(one, int) and one < 100] == sorted(set(range(20)) - set(taken))
    assert queues[0].empty()


def test_a_home_that_ends_hands_back_what_is_left(job):
    queues = job.everywhere(Queue(job.numbers))
    with pytest.raises(Empty):
        queues[1].get(False)
    for number in range(5):
        queues[2].put(number)
    assert queues[1].get(timeout=10) == 0
    job.desks[1].retire()
    job.end(1, orderly=True)
    assert [queues[0].get(timeout=10) for _ in range(4)] == [1, 2, 3, 4]


def test_a_closed_one_is_closed_here_only(job):
    queues = job.everywhere(Queue(job.numbers))
    queues[1].close()
    queues[1].join_thread()
    queues[1].cancel_join_thread()
    for call in (queues[1].get, lambda: queues[1].put(1)):
        with pytest.raises(ValueError, match="is closed"):
            call()
    queues[2].put(1)
    assert queues[0].get(timeout=10) == 1


def test_it_can_be_joined_and_stays_with_the_driver(job):
    queue = JoinableQueue(job.numbers)
    queues = job.everywhere(queue)
    queues[1].join()
    queues[1].put(1)
    waiting = job.start(queues[1].join)
    assert queues[2].get(timeout=10) == 1
    assert home_of(job, queue) == 0
    assert not waiting.over
    queues[2].task_done()
    waiting.result()
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        queues[2].task_done()


def test_a_simple_one(job):
    queues = job.everywhere(SimpleQueue(job.numbers))
    waiting = job.start(queues[1].get)
    queues[2].put([1])
    assert waiting.result() == [1]
    assert queues[0].empty()
