"""world_objects: what a World with hosts makes works between the driver and ranks on any of them, whoever dies."""

from __future__ import annotations

import threading
from multiprocessing.connection import wait
from queue import Empty

import objectwork
import pytest
from beacons import beacons, client_home, hosts
from contracts.ranks import interrupted

import klyng_mp as mp
import klyng_mp.queues
from klyng_mp import shared_memory
from klyng_mp.errors import BrokenLockError, NotAcrossHostsError, RankDiedError, RankFailedError

__all__ = ["beacons", "client_home", "hosts"]


@pytest.fixture
def world(hosts):
    with mp.World(hosts=[{"host": "local", "max_procs": 2}, *hosts]) as made:
        yield made


def test_a_world_of_this_machine_makes_what_every_context_makes():
    with mp.World(1) as world:
        assert isinstance(world.Queue(), klyng_mp.queues.Queue)


def test_every_kind_is_used_by_all_ranks_and_the_driver(world):
    condition, event = world.Condition(), world.Event()
    requests, answers = world.Queue(), world.JoinableQueue()
    things = (
        world.Lock(), world.BoundedSemaphore(2), condition, event, world.Barrier(world.size + 1),
        world.Value("i", 0), world.Array("i", world.size), requests, answers,
    )  # fmt: skip
    run = world.start(objectwork.use_all, things)
    things[4].wait(60)
    assert sorted(requests.get(timeout=60)[1] for _ in range(world.size)) == list(range(world.size))
    with condition:
        for _ in range(world.size):
            answers.put(None)
        assert condition.wait(60)
    event.set()
    seen = run.result(60)
    assert seen == [(10 * world.size, [rank * 10 for rank in range(world.size)])] * world.size


def test_what_one_putter_puts_comes_in_its_order_while_the_queue_moves(world):
    queue, count = world.Queue(), 50
    world.run(objectwork.put_each, queue, count)
    got = world.run(objectwork.take, queue, count * world.size)[-1]
    for rank in range(world.size):
        assert [number for source, number in got if source == rank] == list(range(count))
    queue.put("to its home")
    assert queue.get(timeout=60) == "to its home"


@pytest.mark.slow
@pytest.mark.parametrize("native", [pytest.param(None, id="shared memory"), "0"])
def test_who_computes_answers_its_neighbours(hosts, native):
    env = {} if native is None else {"KLYNG_MP_NATIVE": native}
    with mp.World(hosts=hosts, env=env) as world:
        queue = world.Queue()
        queue.put("begin")
        *_, (item, got), ended = world.run(objectwork.compute_while_others_get, queue, 1.0)
        assert item == "there"
        assert ended - got > 0.5


def test_a_rank_that_dies_with_a_lock_breaks_it_for_all(world):
    lock, gate = world.Lock(), world.Event()
    failure = []

    def wait():
        gate.wait()
        try:
            lock.acquire()
        except BrokenLockError as error:
            failure.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    with pytest.raises(RankDiedError):
        world.run(objectwork.hold_and_die, lock, gate)
    thread.join(60)
    assert failure[0].rank == world.size - 1
    assert "objects.py" in str(failure[0])
    with pytest.raises(BrokenLockError):
        lock.acquire(False)


@pytest.mark.slow
def test_a_queue_whose_home_dies_keeps_what_was_not_taken(world):
    queue, taken, die = world.Queue(), world.Queue(), world.Event()
    for number in range(20):
        queue.put(number)
    run = world.start(objectwork.be_home_and_die, queue, 7, taken, die)
    assert taken.get(timeout=60) == list(range(7))
    queue.put(20)
    die.set()
    with pytest.raises(RankDiedError):
        run.result(60)
    assert [queue.get(timeout=60) for _ in range(14)] == list(range(7, 21))
    with pytest.raises(Empty):
        queue.get(timeout=0.05)


@pytest.mark.slow
def test_processes_that_are_started_use_them_too(world):
    lock, queue = world.Lock(), world.Queue()
    processes = [world.Process(target=objectwork.child, args=(lock, queue, number)) for number in range(world.size)]
    for process in processes:
        process.start()
    got = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(number for number, _ in got) == list(range(world.size))
    assert [process.exitcode for process in processes] == [0] * world.size


def test_pipes_lead_to_processes_anywhere_and_end_with_them(world):
    pipes = [world.Pipe() for _ in range(world.size)]
    processes = [world.Process(target=objectwork.echo, args=(far,)) for _, far in pipes]
    for process, (near, far) in zip(processes, pipes, strict=True):
        process.start()
        far.close()
        near.send(["some", "thing"])
    ranks = []
    for near, _ in pipes:
        received, rank = near.recv()
        assert received == ["some", "thing"]
        ranks.append(rank)
    assert sorted(ranks) == list(range(world.size))
    assert wait([process.sentinel for process in processes] + [near for near, _ in pipes], 0) == []
    pipes[0][0].send(None)
    processes[-1].kill()
    for index in (0, -1):
        assert wait([pipes[index][0]], 60)
        with pytest.raises(EOFError):
            pipes[index][0].recv()
    for near, _ in pipes[1:-1]:
        near.send(None)
    for process in processes:
        process.join()


@pytest.mark.slow
def test_a_pipe_ends_when_all_ranks_of_a_run_have_closed_it(world):
    near, far = world.Pipe(duplex=False)
    run = world.start(objectwork.say_who, far)
    far.close()
    assert sorted(near.recv() for _ in range(world.size)) == list(range(world.size))
    with pytest.raises(EOFError):
        near.recv()
    run.result(60)


def test_a_manager_serves_processes_anywhere(world):
    with world.Manager() as manager:
        things = manager.list([0]), manager.dict(), manager.Queue(), manager.Lock(), manager.list([manager.list()])
        assert world.run(objectwork.fill, things) == [True] * world.size
        processes = [world.Process(target=objectwork.fill, args=(things,)) for _ in range(world.size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * world.size
        numbers, by_rank, queue, _, nested = things
        assert list(numbers) == list(range(2 * world.size + 1))
        assert by_rank.copy() == {rank: [rank] for rank in range(world.size)}
        assert sorted(queue.get() for _ in range(2 * world.size)) == sorted(2 * [*range(world.size)])
        assert sorted(nested[0]) == sorted(2 * [*range(world.size)])
    with pytest.raises(RankFailedError, match="refused"):
        world.run(objectwork.fill, things)
    assert world.run(mp.rank) == list(range(world.size))  # and the World keeps no error, with what that keeps


@pytest.mark.slow
def test_shared_memory_says_that_it_cannot_leave(world):
    block = shared_memory.SharedMemory(create=True, size=1)
    try:
        for send in (
            lambda: world.run(objectwork.take_block, block),
            lambda: world.Process(target=objectwork.take_block, args=(block,)).start(),
            lambda: world.Queue().put(block),
            lambda: world.Pipe()[0].send(block),
        ):
            with pytest.raises(NotAcrossHostsError, match="send what is in it"):
                send()
        with world.Pool(1) as pool, pytest.raises(NotAcrossHostsError, match="send what is in it"):
            pool.apply(objectwork.take_block, (block,))
    finally:
        block.close()
        block.unlink()


@pytest.mark.slow
def test_a_forked_child_is_refused(world):
    assert world.run(objectwork.forks, world.Lock()) == [7] * world.size


@pytest.mark.slow
def test_objects_outlive_the_ranks_that_have_used_them(world):
    queue, value = world.Queue(), world.Value("d", 1.5)
    world.run(objectwork.put_each, queue, 1)
    assert world.run(objectwork.take, queue, 1)[-1] is not None
    world.restart()
    assert value.value == 1.5
    left = [queue.get(timeout=60) for _ in range(queue.qsize())]
    assert all(number == 0 for _, number in left)


@pytest.mark.slow
def test_a_driver_that_is_interrupted_in_a_wait_goes_on(world):
    queue = world.Queue()
    with interrupted(world._objects.desk):
        queue.get()
    queue.put(1)
    assert queue.get(timeout=60) == 1
