"""world_context: a World is a multiprocessing context, and what is started from it has places."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import weakref

import pytest

import klyng_mp as mp
import klyng_mp.pool
from klyng_mp.cli.ps import collect, render_table
from klyng_mp.cli.ps import select as belonging_to

METHODS = ["zygote", "fork", "spawn", "forkserver"]
FACTORIES = [
    "Array", "Barrier", "BoundedSemaphore", "Condition", "Event", "JoinableQueue", "Lock", "Manager", "Pipe", "Pool",
    "Process", "Queue", "RLock", "RawArray", "RawValue", "Semaphore", "SimpleQueue", "Value", "active_children",
    "cpu_count", "current_process", "get_context", "get_logger", "get_start_method", "log_to_stderr", "parent_process",
    "reducer", "freeze_support",
]  # fmt: skip


def report_rank(queue):
    try:
        queue.put((mp.current_process().name, mp.rank(), mp.size()))
    except mp.NoRankError as error:
        queue.put((mp.current_process().name, str(error), None))


def hold(gate, queue):
    report_rank(queue)
    gate.wait()


def pass_on(queue):
    """Send around a ring of all places, and reduce over them."""
    comm = mp.comm()
    comm.send({"from": comm.rank}, dest=(comm.rank + 1) % comm.size, tag="ring")
    got = comm.recv(source=(comm.rank - 1) % comm.size, tag="ring")
    queue.put((comm.rank, got["from"], comm.allreduce(comm.rank)))


def receive(queue, source):
    try:
        queue.put(mp.recv(source=source))
    except mp.PeerLostError as error:
        queue.put(f"{type(error).__name__} {error.rank}")


def start(world, target, *args, **kwargs):
    process = world.Process(target=target, args=args, **kwargs)
    process.start()
    return process


def join(*processes):
    for process in processes:
        process.join(30)
    return [process.exitcode for process in processes]


@pytest.fixture
def world():
    world = mp.World(2)
    yield world
    world.terminate()  # who waits for what a test has not come to must not keep it


# -- a context -------------------------------------------------------------------------------------------


def test_a_world_has_the_whole_interface_of_a_context(world):
    assert isinstance(world, multiprocessing.context.BaseContext)
    assert [name for name in FACTORIES if not hasattr(world, name)] == []
    assert world.get_start_method() == "zygote"
    assert world.get_context() is world
    assert world.get_context("zygote") is world
    assert world.get_context("spawn") is mp.get_context("spawn")
    assert world.cpu_count() == os.cpu_count()
    assert world.current_process() is mp.current_process()
    with pytest.raises(ValueError, match="cannot set start method"):
        world.set_start_method("fork")
    with pytest.raises(ValueError, match="spork"):
        world.get_context("spork")


def test_a_world_does_not_travel(world):
    with pytest.raises(mp.CodecError, match="belongs to the process that made it"):
        start(world, len, world)
    assert mp.active_children() == []


def test_each_world_has_its_own_class_of_processes(world):
    with mp.World(1) as other:
        assert world.Process is world.Process
        assert issubclass(world.Process, mp.process.BaseProcess)
        assert world.Process is not other.Process
        assert world.Process.__name__ == "Process"


def test_a_world_goes_when_nobody_needs_it_or_its_processes():
    world = mp.World(1)
    gone = weakref.ref(world)
    process = start(world, len, ())
    del world
    assert join(process) == [0]
    del process
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("method", METHODS)
def test_processes_start_as_the_ranks_of_their_world(method):
    with mp.World(2, method=method) as world:
        queue = world.SimpleQueue()
        both = [start(world, pass_on, queue) for _ in range(2)]
        assert join(*both) == [0, 0]
        assert sorted(queue.get() for _ in both) == [(0, 1, 1), (1, 0, 1)]
        assert world.run(mp.rank) == [0, 1]


# -- places ----------------------------------------------------------------------------------------------


def test_a_process_takes_the_lowest_free_place(world):
    queue, gate = world.SimpleQueue(), world.Event()
    doomed = world.Event()  # not the others': without the core an Event waits for its dead waiters
    first = start(world, hold, doomed, queue, name="first")
    assert queue.get() == ("first", 0, 2)
    second = start(world, hold, gate, queue, name="second")
    assert queue.get() == ("second", 1, 2)
    third = start(world, hold, gate, queue, name="third")
    name, error, _ = queue.get()
    assert (name, error) == (
        "third",
        "process third has no rank: all 2 places of its World were held when it was started",
    )
    first.kill()
    assert join(first) == [-signal.SIGKILL]
    fourth = start(world, hold, gate, queue, name="fourth")
    assert queue.get() == ("fourth", 0, 2)
    gate.set()
    assert join(second, third, fourth) == [0, 0, 0]


def test_no_run_while_places_are_held(world):
    queue, gate = world.SimpleQueue(), world.Event()
    holder = start(world, hold, gate, queue, name="keeper")
    with pytest.raises(mp.WorldBusyError, match=r"process keeper \(rank 0\) holds place of this World") as caught:
        world.run(mp.rank)
    assert caught.value.holders == {0: "keeper"}
    with pytest.raises(mp.WorldBusyError, match="keeper"):
        world.restart()
    gate.set()
    assert join(holder) == [0]
    assert world.run(mp.rank) == [0, 1]


def test_a_process_that_starts_while_a_run_goes_on_has_no_rank(world):
    queue = world.SimpleQueue()
    run = world.start(signal.pause)
    process = start(world, report_rank, queue)
    assert "a run was going on when it was started" in queue.get()[1]
    assert join(process) == [0]
    assert run.cancel()
    assert world.run(mp.rank) == [0, 1]


def test_runs_and_processes_take_turns(world):
    queue = world.SimpleQueue()
    for _ in range(3):
        both = [start(world, pass_on, queue) for _ in range(2)]
        assert join(*both) == [0, 0]
        assert sorted(queue.get() for _ in both) == [(0, 1, 1), (1, 0, 1)]
        assert world.run(lambda: mp.comm().allreduce(mp.rank())) == [1, 1]


def test_a_run_after_one_process_that_was_killed_at_once(world):
    process = world.Process(target=signal.pause)
    process.start()
    process.kill()
    assert join(process) == [-signal.SIGKILL]
    assert world.run(mp.rank) == [0, 1]


def test_a_rank_that_dies_while_a_process_holds_the_other_place(world, capfd):
    queue, gate = world.SimpleQueue(), world.Event()
    (_, other) = world.run(os.getpid)
    holder = start(world, hold, gate, queue)
    assert queue.get()[1] == 0
    end = os.pidfd_open(other)
    os.kill(other, signal.SIGKILL)
    assert multiprocessing.connection.wait([end], 30)
    os.close(end)
    gate.set()
    assert join(holder) == [0]
    assert world.run(os.getpid)[1] != other
    assert "rank 1 was killed by SIGKILL" in capfd.readouterr().err
    assert world.run(mp.rank) == [0, 1]


def test_killed_before_they_have_begun(world):
    for _ in range(20):
        both = [start(world, signal.pause) for _ in range(2)]
        for process in both:
            process.kill()
        assert join(*both) == [-signal.SIGKILL] * 2
    assert world.run(mp.rank) == [0, 1]


def test_statistics_count_runs_and_not_what_processes_do(world):
    assert world.run(mp.rank) == [0, 1]
    assert join(start(world, len, ())) == [0]
    statistics = world.statistics()
    assert statistics.runs == 1
    assert [one.rank for one in statistics.ranks] == [0, 1]
    assert "idle" in repr(world)
    process = start(world, signal.pause)
    assert "with processes" in repr(world)
    assert world.statistics().runs == 1
    process.kill()
    join(process)


def test_ranks_are_renewed_beside_a_process_without_a_place(tmp_path, monkeypatch, capsys):
    path = tmp_path / "module_on_disk_too.py"
    path.write_text("def value():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = importlib.import_module("module_on_disk_too")
    with mp.World(2) as world, world.Manager() as manager:
        assert world.run(module.value) == [1, 1]
        path.write_text("def value():\n    return 1000\n")
        assert world.run(module.value) == [1000, 1000]
        assert world.run(module.value) == [1000, 1000]
        assert list(manager.list([3])) == [3]
    assert capsys.readouterr().err.count("module_on_disk_too.py changed on disk") == 1


def test_the_server_of_a_manager_takes_no_place(world):
    with world.Manager() as manager:
        shared = manager.dict(answer=42)
        assert world.run(mp.rank) == [0, 1]
        assert shared["answer"] == 42


def test_what_is_sent_to_a_place_waits_for_its_process(world):
    queue = world.SimpleQueue()
    early = [b"x" * size for size in (3, 5_000, 300_000)]
    sender = start(world, lambda: [mp.send(data, dest=1) for data in early] and mp.send("last", dest=1))
    receiver = start(world, queue_all, queue, 4)
    assert [queue.get() for _ in range(4)] == [*early, "last"]
    assert join(sender, receiver) == [0, 0]


def test_what_a_process_has_sent_before_it_ended_waits_too():
    with mp.World(3) as world:
        queue = world.SimpleQueue()
        sent = [1, {"a": b"x" * 100_000}, "last"]
        keeper = start(world, signal.pause, daemon=True)
        assert join(start(world, lambda: [mp.comm().isend(one, dest=2) for one in sent])) == [0]
        successor = start(world, signal.pause, daemon=True)  # or its place would be known as one whose holder is gone
        receiver = start(world, queue_all, queue, 3, 1)
        assert [queue.get() for _ in range(3)] == sent
        assert join(receiver) == [0]
    assert [keeper.exitcode, successor.exitcode] == [-signal.SIGTERM] * 2


def test_who_sends_and_ends_before_the_next_is_started_is_heard(world):
    """Whether it has ended by then depends on the machine, and those who start one after the other do not see it."""
    queue = world.SimpleQueue()
    assert join(start(world, lambda: mp.send("early", dest=1))) == [0]
    keeper = start(world, signal.pause)
    assert join(start(world, queue_all, queue, 1)) == [0]
    assert queue.get() == "early"
    keeper.kill()
    join(keeper)
    assert join(start(world, lambda: mp.send("stale", dest=1))) == [0]
    assert world.run(mp.rank) == [0, 1]
    keeper = start(world, signal.pause)
    receiver = start(world, receive, queue, 0)
    keeper.kill()
    assert join(keeper, receiver) == [-signal.SIGKILL, 0]
    assert queue.get() == "PeerLostError 0"  # a run has come between


def queue_all(queue, count, source=0):
    for _ in range(count):
        queue.put(mp.recv(source=source))


def test_who_waits_for_a_process_that_has_ended_is_told(world):
    queue = world.SimpleQueue()
    receiver = start(world, receive, queue, 1)
    other = start(world, os._exit, 3)
    assert queue.get() == "PeerLostError 1"
    assert join(receiver, other) == [0, 3]
    other = start(world, len, ())
    assert join(other) == [0]
    # In the place of the one before there has been nobody else since then.
    assert join(start(world, lambda: mp.send(1, dest=1, timeout=10))) == [0]


def test_mail_for_a_former_occupant_is_dropped(world):
    queue, gate = world.SimpleQueue(), world.Event()
    ready = world.Event()

    def send_twice():
        mp.send("for the first", dest=1)
        ready.set()
        gate.wait()
        mp.send("for the second", dest=1)

    sender = start(world, send_twice)
    first = start(world, signal.pause)
    ready.wait()
    first.kill()
    join(first)
    second = start(world, lambda: queue.put(mp.recv(source=0)))
    gate.set()
    assert queue.get() == "for the second"
    assert join(sender, second) == [0, 0]


def test_a_child_of_a_process_has_no_use_of_its_rank(world):
    queue = world.SimpleQueue()

    def grandparent():
        context = mp.get_context("fork")
        child = context.Process(target=report_use, args=(queue,))
        child.start()
        child.join()

    assert join(start(world, grandparent)) == [0]
    assert queue.get() == "ForkedError"


def report_use(queue):
    try:
        mp.send(1, dest=0)
    except mp.ForkedError as error:
        queue.put(type(error).__name__)


# -- what is seen of it ----------------------------------------------------------------------------------


def test_reports_name_who_holds_places(world):
    queue, gate = world.SimpleQueue(), world.Event()
    holder = start(world, hold, gate, queue, name="Worker-2")
    waiter = start(world, receive, queue, 0, name="Waiter")
    assert queue.get() == ("Worker-2", 0, 2)
    report = world.report()
    assert f"rank 0: process Worker-2 (process {holder.pid})" in report
    assert f"rank 1: process Waiter (process {waiter.pid}) waits in recv(source=0" in report
    lines = render_table(belonging_to(collect(), os.getpid())).splitlines()
    assert lines[1].split()[:4] == ["RANK", "PID", "PROCESS", "STATE"]
    assert lines[2].split()[:3] == ["0", str(holder.pid), "Worker-2"]
    gate.set()
    assert queue.get() == "PeerLostError 0"
    assert join(holder, waiter) == [0, 0]


@pytest.mark.slow
def test_idle_processes_are_not_told_to_be_deadlocked(world):
    """All wait for each other for longer than the watch needs to prove a deadlock of ranks."""
    queue = world.SimpleQueue()
    both = [start(world, receive, queue, 1 - rank) for rank in range(2)]
    assert not multiprocessing.connection.wait([process.sentinel for process in both], 3)
    assert [process.is_alive() for process in both] == [True, True]
    for process in both:
        process.kill()
    join(*both)


def test_output_comes_before_the_end_is_told(world, capfd):
    process = start(world, print, "said")
    assert join(process) == [0]
    sys.stdout.flush()
    assert capfd.readouterr().out == "said\n"


def test_output_comes_where_the_driver_has_put_its_own_stdout(capsys):
    with mp.World(1) as world:
        gate = world.Event()

        def talk():
            for number in range(2_000):
                print("line", number)
            gate.set()

        process = start(world, talk)
        assert gate.wait(30)  # although this thread does not look at what comes
        assert join(process) == [0]
        assert capsys.readouterr().out.splitlines() == [f"line {number}" for number in range(2_000)]


# -- ends ------------------------------------------------------------------------------------------------


def test_the_end_of_a_block_joins_what_is_not_daemonic():
    with mp.World(2) as world:
        queue = world.SimpleQueue()
        daemon = start(world, signal.pause, daemon=True)
        other = start(world, lambda: queue.put(mp.rank()))
        assert queue.get() == 1
    assert (daemon.exitcode, other.exitcode) == (-signal.SIGTERM, 0)


def test_terminate_ends_processes():
    world = mp.World(1)
    both = [start(world, signal.pause) for _ in range(2)]
    world.terminate()
    assert join(*both) == [-signal.SIGKILL] * 2
    with pytest.raises(mp.ClosedError):
        start(world, len, ())


def test_processes_outlive_close_and_are_waited_for_by_join():
    world = mp.World(2)
    gate = world.Event()
    process = start(world, gate.wait)
    world.close()
    with pytest.raises(mp.DeadlineError):
        world.join(0.1)
    gate.set()
    world.join()
    assert join(process) == [0]


@pytest.mark.slow
def test_many_starts_in_a_row_leave_nothing(world):
    join(start(world, len, ()))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        assert join(start(world, len, ())) == [0]
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert world.run(mp.rank) == [0, 1]


def test_processes_are_started_by_several_threads():
    with mp.World(4) as world:
        queue = world.SimpleQueue()
        started = []
        threads = [threading.Thread(target=lambda: started.append(start(world, pass_on, queue))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert join(*started) == [0] * 4
        assert sorted(queue.get()[0] for _ in started) == [0, 1, 2, 3]


def test_a_lost_world_is_made_anew():
    """The supervisor is killed: so are its processes, and the World goes on."""
    with mp.World(2, method="fork") as world:
        queue, gate = world.SimpleQueue(), world.Event()
        process = start(world, hold, gate, queue)
        assert queue.get()[1] == 0
        reports = belonging_to(collect(), process.pid)
        os.kill(reports[0]["supervisor"], signal.SIGKILL)
        assert join(process) == [-signal.SIGKILL]
        assert join(start(world, len, ())) == [0]
        assert world.run(mp.rank) == [0, 1]


# -- pools -----------------------------------------------------------------------------------------------

needs_pool = pytest.mark.skipif(not hasattr(mp.pool.Pool, "_crew"), reason="there is no Pool of ours yet")


def square(x):
    return mp.rank(), x * x


def reduce_over_all(x):
    return mp.comm().allreduce(x)


@needs_pool
def test_the_workers_of_a_pool_have_ranks_and_can_talk(world):
    with world.Pool(2) as pool:
        assert {rank for rank, _ in pool.map(square, range(20), chunksize=1)} <= {0, 1}
        assert pool.map(reduce_over_all, range(2), chunksize=1) == [1, 1]
        assert pool.map(lambda x: x + 1, [1]) == [2]
        with pytest.raises(mp.WorldBusyError, match="PoolWorker"):
            world.run(mp.rank)
    assert world.run(mp.rank) == [0, 1]


@pytest.mark.slow
@needs_pool
def test_an_idle_pool_is_never_told_to_be_deadlocked(world):
    with world.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        assert not multiprocessing.connection.wait([worker.sentinel for worker in mp.active_children()], 3)
        assert pool.map(abs, [-3, -4]) == [3, 4]
        report = world.report()
    assert "rank 0: process PoolWorker-" in report
    assert "rank 1: process PoolWorker-" in report


@needs_pool
def test_the_worker_that_follows_a_dead_one_has_its_rank(world):
    with world.Pool(2) as pool:
        with pytest.raises(mp.WorkerDiedError):
            pool.apply(kill_itself)
        assert pool.map(reduce_over_all, range(2), chunksize=1) == [1, 1]


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


@needs_pool
def test_a_pool_larger_than_its_world_has_workers_without_a_rank():
    def ask(_):
        try:
            return mp.rank()
        except mp.NoRankError:
            return -1

    with mp.World(1) as world, world.Pool(2) as pool:
        assert set(pool.map(ask, range(200), chunksize=1)) <= {-1, 0}


@needs_pool
def test_a_pool_starts_although_a_thread_holds_the_lock_of_logging(run_python):
    """python/cpython#84559"""
    code = """
import logging, os, threading
import klyng_mp as mp

handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
held = threading.Event()

def hold():
    with handler.lock:
        held.set()
        threading.Event().wait()

def work(x):
    logging.getLogger().warning("from %d", x)
    return x

threading.Thread(target=hold, daemon=True).start()
held.wait()
with mp.World(2) as w:
    with w.Pool(2) as pool:
        print(pool.map(work, range(4)), flush=True)
os._exit(0)  # the end of logging waits for the lock, too
"""
    assert run_python("-c", code).stdout == "[0, 1, 2, 3]\n"
