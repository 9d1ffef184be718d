"""queues: multiprocessing's semantics, with and without the core, and nobody who is killed stops the others."""

from __future__ import annotations

import concurrent.futures
import functools
import mmap
import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import os
import pickle
import signal
import socket
import struct
import threading
import time
from queue import Empty, Full

import numpy as np
import pytest
import queuework

import klyng_mp as mp
from klyng_mp import carrierqueues, native, queues

METHODS = ["fork", "spawn", "forkserver"]
KILLS = 25
needs_core = pytest.mark.skipif(native.core is None, reason="without the core, queues are the standard library's")


class CarrierContext:
    """A context whose queues are those that there are without the core."""

    Process = mp.Process

    def __init__(self):
        context = mp.get_context()
        for kind in ("Queue", "JoinableQueue", "SimpleQueue"):
            made = getattr(carrierqueues, kind)
            setattr(self, kind, functools.partial(made, ctx=context))


CONTEXTS = {"ours": mp, "without the core": CarrierContext(), "standard": multiprocessing}


@pytest.fixture(params=CONTEXTS)
def context(request):
    return CONTEXTS[request.param]


@pytest.fixture(params=METHODS)
def started(request):
    return mp.get_context(request.param)


def finish(queue):
    queue.close()
    queue.join_thread()


# -- what the standard library's do --------------------------------------------------------------------


def test_first_in_first_out(context):
    queue = context.Queue()
    things = [1, "two", None, [3.0], {"four": b"4"}]
    for thing in things:
        queue.put(thing)
    assert [queue.get(timeout=5) for _ in things] == things
    assert queue.empty()
    finish(queue)


def test_nothing_comes_in_time(context):
    queue = context.Queue()
    with pytest.raises(Empty):
        queue.get(block=False)
    with pytest.raises(Empty):
        queue.get_nowait()
    start = time.monotonic()
    with pytest.raises(Empty):
        queue.get(timeout=0.1)
    assert 0.09 < time.monotonic() - start < 5
    finish(queue)


def test_a_bounded_queue_is_full(context):
    queue = context.Queue(2)
    queue.put(1)
    queue.put(2)
    assert queue.full()
    assert queue.qsize() == 2
    for attempt in (lambda: queue.put(3, block=False), lambda: queue.put_nowait(3), lambda: queue.put(3, timeout=0.1)):
        with pytest.raises(Full):
            attempt()
    assert queue.get() == 1
    queue.put(3)
    assert [queue.get(), queue.get()] == [2, 3]
    assert not queue.full()
    finish(queue)


def test_who_waits_for_room_gets_it(context):
    queue = context.Queue(1)
    queue.put("first")
    thread = threading.Thread(target=queue.put, args=("second",))
    thread.start()
    assert [queue.get(), queue.get(timeout=5)] == ["first", "second"]
    thread.join()
    finish(queue)


@pytest.mark.parametrize("bound", [0, 3000])
def test_put_does_not_wait_for_a_reader(context, bound):
    queue = context.Queue(bound)
    things = [bytes([number % 256]) * 1000 for number in range(3000)]
    for thing in things:
        queue.put(thing)
    if bound:
        with pytest.raises(Full):
            queue.put(b"", block=False)
    assert [queue.get(timeout=5) for _ in things] == things
    finish(queue)


def test_after_close(context):
    queue = context.Queue()
    queue.put(1)
    finish(queue)
    for attempt in (lambda: queue.put(1), queue.get):
        with pytest.raises(ValueError, match="is closed"):
            attempt()


def test_only_who_has_closed_can_join(context):
    queue = context.Queue()
    with pytest.raises(AssertionError, match="not closed"):
        queue.join_thread()
    finish(queue)


def test_joining_a_queue(context):
    queue = context.JoinableQueue()
    done = []

    def work():
        for _ in range(3):
            done.append(queue.get())
            queue.task_done()

    for number in range(3):
        queue.put(number)
    thread = threading.Thread(target=work)
    thread.start()
    queue.join()
    assert done == [0, 1, 2]
    thread.join()
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()
    finish(queue)


def test_a_simple_queue(context):
    queue = context.SimpleQueue()
    assert queue.empty()
    queue.put([1, 2])
    assert not queue.empty()
    assert queue.get() == [1, 2]
    queue.close()


def test_a_queue_is_not_to_be_pickled(context):
    for queue in (context.Queue(), context.JoinableQueue(), context.SimpleQueue()):
        with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
            pickle.dumps(queue)
        queue.close()


def test_they_are_the_standard_kinds():
    assert issubclass(queues.Queue, multiprocessing.queues.Queue)
    assert issubclass(queues.JoinableQueue, (queues.Queue, multiprocessing.queues.JoinableQueue))
    assert issubclass(queues.SimpleQueue, multiprocessing.queues.SimpleQueue)
    assert (queues.Empty, queues.Full) == (Empty, Full)


def test_what_is_buffered_is_written_at_the_end_of_a_process(context):
    queue = context.Queue()
    things = [bytes([number]) * 5000 for number in range(200)]
    process = context.Process(target=queuework.put_all, args=(queue, things))
    process.start()
    assert [queue.get(timeout=30) for _ in things] == things
    process.join()
    assert process.exitcode == 0
    finish(queue)


# -- what is better --------------------------------------------------------------------------------------


@pytest.fixture(params=["ours", "without the core"])
def better(request):
    return CONTEXTS[request.param]


def test_what_cannot_travel_is_refused_where_it_is_put(better):  # python/cpython#84376
    for queue in (better.Queue(), better.JoinableQueue(), better.SimpleQueue()):
        with pytest.raises(mp.CodecError, match=r"\['lock'\] cannot travel"):
            queue.put({"lock": threading.Lock()})
        queue.put(lambda: "next")
        assert queue.get()() == "next"
        queue.close()


def test_an_object_is_put_as_it_is_then(better):
    queue = better.Queue()
    thing = [1] * 100_000
    for _ in range(20):
        queue.put(thing)
    thing.clear()
    assert [len(queue.get()) for _ in range(20)] == [100_000] * 20
    finish(queue)


class Broken:
    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_be_rebuilt_is_lost_and_the_queue_goes_on(better):
    queue = better.Queue(2)
    queue.put(Broken())
    with pytest.raises(ValueError, match="invalid literal"):
        queue.get()
    queue.put(1)
    queue.put(2)
    assert [queue.get(), queue.get()] == [1, 2]
    finish(queue)


@needs_core
def test_a_subclass_may_take_care_of_what_cannot_travel():
    class Tolerant(queues.Queue):
        def _on_queue_feeder_error(self, error, obj):
            refused.append((type(error), obj))

    refused = []
    queue = Tolerant(ctx=mp.get_context())
    lock = threading.Lock()
    queue.put(lock)
    queue.put("next")
    assert queue.get(timeout=5) == "next"
    assert [(issubclass(kind, TypeError), obj) for kind, obj in refused] == [(True, lock)]
    finish(queue)


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_each_start_method(started, kind):
    requests, answers = getattr(started, kind)(), getattr(started, kind)()
    process = started.Process(target=queuework.echo, args=(requests, answers))
    process.start()
    array = np.arange(200_000)
    for thing in (1, "two", [3, (4, None)], b"x" * 1_000_000, array):
        requests.put(thing)
        again = answers.get()
        assert np.array_equal(again, thing) if thing is array else again == thing
    requests.put(lambda: 5)
    assert answers.get()() == 5
    requests.put(None)
    process.join()
    assert process.exitcode == 0
    requests.close()
    answers.close()


@needs_core
@pytest.mark.parametrize("method", METHODS[1:])
def test_a_queue_of_forks_does_not_go_elsewhere(method):
    queue = mp.get_context("fork").Queue()
    process = mp.get_context(method).Process(target=queuework.echo, args=(queue, queue))
    with pytest.raises(RuntimeError, match="created in a fork context"):
        process.start()
    queue.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_executor(method):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=mp.get_context(method)) as executor:
        assert list(executor.map(queuework.square, range(50))) == [number**2 for number in range(50)]


@pytest.mark.parametrize("method", METHODS)
def test_the_standard_librarys_own_pool(method):
    with multiprocessing.pool.Pool(2, context=mp.get_context(method)) as pool:
        assert pool.map(queuework.square, range(20)) == [number**2 for number in range(20)]
    pool.join()


def test_a_queue_among_other_things_to_wait_for(better):
    queue = better.Queue()
    here, there = mp.Pipe()
    things = [queue._reader, here]
    assert multiprocessing.connection.wait(things, 0) == []
    queue.put(1)
    assert multiprocessing.connection.wait(things, 5) == [queue._reader]
    queue.put(2)
    assert queue._reader.recv() == 1
    assert multiprocessing.connection.wait(things, 5) == [queue._reader]
    assert queue.get() == 2
    assert multiprocessing.connection.wait(things, 0) == []
    for end in (here, there):
        end.close()
    finish(queue)


# -- large arrays -------------------------------------------------------------------------------------------


@needs_core
def test_arrays_are_memory_of_their_own():
    queue = mp.Queue()
    arrays = [np.full(50_000, number) for number in range(40)]
    for array in arrays:
        queue.put(array)
        array[:] = -1
    taken = [queue.get() for _ in arrays]
    assert [int(array[-1]) for array in taken] == list(range(40))
    taken[3][:] = 7
    assert [int(array[0]) for array in taken[2:5]] == [2, 7, 4]
    finish(queue)


@needs_core
def test_arrays_leave_no_descriptors():
    queue = mp.Queue()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(500):
        queue.put(np.ones(20_000))
        queue.get()
    assert len(os.listdir("/proc/self/fd")) - before <= 2 * 16
    finish(queue)


@needs_core  # else whoever puts it waits until somebody gets it
def test_an_array_outlives_its_sender():
    queue = mp.Queue()
    process = mp.Process(target=queuework.put_all, args=(queue, [np.arange(100_000)]))
    process.start()
    process.join()
    assert int(queue.get(timeout=5).sum()) == sum(range(100_000))
    finish(queue)


# -- many, and death --------------------------------------------------------------------------------------


def test_many_putters_and_many_getters(better):
    queue, results = better.Queue(), better.Queue()
    putters = [better.Process(target=queuework.put_numbers, args=(queue, start, 500)) for start in range(4)]
    getters = [better.Process(target=queuework.take_until_none, args=(queue, results)) for _ in range(4)]
    for process in putters + getters:
        process.start()
    for process in putters:
        process.join()
    for _ in getters:
        queue.put(None)
    taken = [results.get(timeout=60) for _ in getters]
    for process in getters:
        process.join()
    expected = [
        (start, number, 100_000 if number % 50 == 7 else number % 300) for start in range(4) for number in range(500)
    ]
    assert sorted(thing for things in taken for thing in things) == expected
    for things in taken:
        for start in range(4):
            own = [number for first, number, _ in things if first == start]
            assert own == sorted(own), "no object overtakes another one of the same putter"
    finish(queue)
    finish(results)


@needs_core
def test_a_killed_getter_does_not_stop_the_others():
    queue = mp.Queue()
    here, there = mp.Pipe()
    for number in range(KILLS):
        process = mp.Process(target=queuework.wait_in_get, args=(queue, there))
        process.start()
        here.recv()
        process.kill()
        process.join()
        queue.put(number)
        assert queue.get(timeout=5) == number
    here.close()
    there.close()
    finish(queue)


@pytest.mark.slow
@needs_core
@pytest.mark.parametrize("thing", ["small", b"x" * 200_000], ids=["small", "large"])
def test_nobody_is_stopped_by_who_is_killed_wherever_it_is(thing):
    queue = mp.Queue()
    for number in range(KILLS):
        processes = [mp.Process(target=queuework.put_for_ever, args=(queue, thing)) for _ in range(2)]
        for process in processes:
            process.start()
        queue.put("token")
        while queue.get(timeout=10) != "token":  # they are at work, and so killed in the middle of something
            pass
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        for process in processes:
            process.join()
        queue.put(number)
        while (taken := queue.get(timeout=10)) != number:
            assert taken == thing
    assert queue.qsize() == 0
    finish(queue)


LOCKS = {"putting": 64, "getting": 128}  # where they are: _core/queue.c


@needs_core
@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_of_a_dead_process_is_taken_over(lock, time_limit):
    queue = mp.get_context("spawn").Queue()
    dead = mp.Process(target=int)
    dead.start()
    dead.join()
    with mmap.mmap(queue._ring._queue.fd, 4096) as memory:
        struct.pack_into("Q", memory, LOCKS[lock], dead.pid << 2)  # its start time is not known
    start = time.monotonic()
    queue.put(1)
    assert queue.get() == 1
    assert 0.1 < time.monotonic() - start < time_limit(2)
    finish(queue)


@needs_core
def test_a_lock_of_a_living_process_is_not(time_limit):
    queue = mp.get_context("spawn").Queue()
    with mmap.mmap(queue._ring._queue.fd, 4096) as memory:
        struct.pack_into("Q", memory, LOCKS["putting"], os.getppid() << 2)
        thread = threading.Thread(target=queue.put, args=(1,))
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        struct.pack_into("Q", memory, LOCKS["putting"], 0)
        thread.join(time_limit(5))
        assert not thread.is_alive()
    assert queue.get() == 1
    finish(queue)


@needs_core
def test_a_large_object_whose_record_was_not_written_is_nobodys():
    queue = mp.Queue()
    large = np.ones(100_000)
    queue.put(large)
    orphan = os.memfd_create("orphan")
    for number in (2, 3):  # as if two putters had been killed after they sent these, and before they said so
        with socket.socket(fileno=os.dup(queue._ring._sender)) as sender:
            socket.send_fds(sender, [number.to_bytes(8, "little")], [orphan])
    os.close(orphan)
    assert queue.get().sum() == 100_000
    finish(queue)


@needs_core
def test_a_large_object_whose_getter_was_killed_is_skipped():
    queue = mp.Queue()
    for number in range(3):
        queue.put(np.full(100_000, number))
    queue.put("last")
    with socket.socket(fileno=os.dup(queue._ring._receiver)) as receiver:  # as a getter that is killed then
        _, fds, _, _ = socket.recv_fds(receiver, 8, 1)
    os.close(*fds)
    assert [int(queue.get()[0]), int(queue.get()[0]), queue.get()] == [1, 2, "last"]
    finish(queue)


@needs_core
def test_what_a_killed_process_has_put_is_there():
    queue = mp.Queue()
    process = mp.Process(target=queuework.put_and_die, args=(queue, [1, 2]))
    process.start()
    process.join()
    assert (process.exitcode, queue.get(timeout=5)) == (-signal.SIGKILL, [1, 2])
    finish(queue)


def test_ctrl_c_ends_a_wait(better):
    queue = better.Queue()
    main = threading.get_ident()
    timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        queue.get(timeout=20)
    timer.join()
    queue.put(1)
    assert queue.get(timeout=5) == 1
    finish(queue)
