"""Pools through their front door, with real workers."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.pool
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import poolwork as work
import pytest

import klyng_mp as mp
import klyng_mp.pool
from klyng_mp.native import core
from klyng_mp.pool import Pool

needs_core = pytest.mark.skipif(core is None, reason="without the core, nothing is sent ahead")


@pytest.fixture(params=["fork", "spawn"])
def context(request):
    return mp.get_context(request.param)


@pytest.fixture
def fork():
    return mp.get_context("fork")


@pytest.fixture
def pool(fork):
    with fork.Pool(2) as pool:
        yield pool
    pool.join()
    for worker in pool._pool:
        worker.close()  # pytest keeps the pool for a while


def endless(seen):
    for number in itertools.count():
        seen.append(number)
        yield number


# -- multiprocessing's methods -----------------------------------------------------------------------


def test_all_methods(context):
    with context.Pool(2) as pool:
        assert pool.apply(work.add, (1,), {"b": 2}) == 3
        assert pool.apply_async(work.add, (1, 2)).get(30) == 3
        assert pool.map(work.square, range(10)) == [x * x for x in range(10)]
        assert pool.map(work.square, iter(range(10)), chunksize=3) == [x * x for x in range(10)]
        assert pool.map_async(work.square, [3], 1).get(30) == [9]
        assert pool.starmap(work.add, [(1, 2), (3, 4)]) == [3, 7]
        assert pool.starmap_async(work.add, [(1,), (3, 4)], chunksize=2).get(30) == [1, 7]
        assert list(pool.imap(work.square, range(7))) == [x * x for x in range(7)]
        assert list(pool.imap(work.square, iter(range(7)), 2)) == [x * x for x in range(7)]
        assert sorted(pool.imap_unordered(work.square, range(7))) == [x * x for x in range(7)]
        assert sorted(pool.imap_unordered(work.square, iter(range(7)), 3)) == [x * x for x in range(7)]
        assert pool.map(work.square, []) == list(pool.imap(work.square, [])) == []
    pool.join()


def test_it_is_one_of_multiprocessings(pool):
    assert isinstance(pool, multiprocessing.pool.Pool)
    result = pool.apply_async(work.square, (3,))
    assert isinstance(result, multiprocessing.pool.AsyncResult)
    assert isinstance(pool.imap(work.square, []), multiprocessing.pool.IMapIterator)
    assert klyng_mp.pool.RemoteTraceback is multiprocessing.pool.RemoteTraceback
    assert issubclass(klyng_mp.pool.ThreadPool, multiprocessing.pool.ThreadPool)
    result.wait(30)
    assert result.ready()
    assert result.successful()


def test_workers_are_named_as_multiprocessing_names_them(pool):
    assert all(worker.name.startswith("ForkPoolWorker-") and worker.daemon for worker in pool._pool)
    assert len(pool._pool) == pool._processes == 2
    assert repr(pool) == "<klyng_mp.pool.Pool state=RUN pool_size=2>"


def test_many_small_tasks_are_all_done_once(pool):
    assert pool.map(work.square, range(5000), chunksize=1) == [x * x for x in range(5000)]


def test_arguments_and_results_of_all_sizes(pool):
    objects = [b"x" * size for size in (0, 1, 4095, 4096, 70_000, 300_000, 3_000_000)]
    assert pool.map(work.same, objects, chunksize=1) == objects
    assert pool.map(work.same, objects, chunksize=3) == objects
    for found, array in zip(
        pool.imap(work.same, [np.arange(n) for n in (3, 600, 200_000)]), (3, 600, 200_000), strict=True
    ):
        assert np.array_equal(found, np.arange(array))


def test_an_array_that_a_task_has_changed_and_returns_comes_back(pool):
    arrays = [np.full(100_000, number) for number in range(20)]
    for _ in range(3):
        for number, found in enumerate(pool.map(work.add_one, arrays, chunksize=1)):
            assert found[0] == found[-1] == number + 1
            found[:] = 0
    assert all(array[0] == number for number, array in enumerate(arrays))


def test_an_array_that_a_worker_keeps_is_not_the_parents(context):
    with context.Pool(1) as pool:
        found = [pool.apply(work.keep, (np.full(100_000, number),)) for number in range(5)]
        pool.apply(work.add_one_to_all_that_is_kept)
        assert [int(array.sum()) // 100_000 for array in found] == list(range(5))
        for array in found:
            array[:] = 7
        assert pool.apply(work.sums_of_all_that_is_kept) == [100_000 * (number + 1) for number in range(5)]


def test_arguments_are_not_shared_between_tasks(pool):
    shared = [1]
    assert pool.map(lambda x: x.append(len(x)) or x, [shared] * 20, chunksize=1) == [[1, 1]] * 20


def test_a_function_with_a_state_is_new_for_each_task(pool):
    class Counter:
        def __init__(self):
            self.count = 0

        def __call__(self, _):
            self.count += 1
            return self.count

    assert pool.map(Counter(), range(10), chunksize=1) == [1] * 10


def test_what_an_iterable_yields_is_taken_when_it_is_yielded(pool):
    def changing():
        array = [0]
        for number in range(20):
            array[0] = number
            yield array

    assert list(pool.imap(work.same, changing())) == [[number] for number in range(20)]


def test_lambdas_and_closures(context):
    factor = 3
    with context.Pool(2) as pool:
        assert pool.map(lambda x: x * factor, range(4)) == [0, 3, 6, 9]
        assert pool.apply(lambda: lambda: factor)() == 3
    pool.join()


def test_an_error_comes_with_the_workers_traceback_and_its_task(pool):
    with pytest.raises(ValueError, match="7") as caught:
        pool.map(work.fail, [7], chunksize=1)
    assert type(caught.value.__cause__) is multiprocessing.pool.RemoteTraceback
    text = str(caught.value.__cause__)
    assert "raise ValueError(x)" in text
    assert "task 0 of fail, with 7" in text


def test_an_iterable_that_raises(pool):
    def numbers():
        yield from range(3)
        raise KeyError("no more")

    iterator = pool.imap(work.square, numbers())
    assert [next(iterator) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(KeyError) as caught:
        next(iterator)
    assert caught.value.__cause__ is None
    with pytest.raises(StopIteration):
        next(iterator)

    class Sized:
        def __len__(self):
            return 10

        def __iter__(self):
            return numbers()

    with pytest.raises(KeyError):
        pool.map(work.square, Sized(), chunksize=1)
    with pytest.raises(TypeError):
        next(pool.imap(work.square, 5))


def test_next_with_a_timeout(pool, tmp_path):
    iterator = pool.imap(work.wait_for_file, [str(tmp_path / "file")])
    with pytest.raises(multiprocessing.TimeoutError):
        iterator.next(0.01)
    (tmp_path / "file").touch()
    assert iterator.next(30) == "seen"
    result = pool.apply_async(work.wait_for_file, (str(tmp_path / "other"),))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0.01)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    (tmp_path / "other").touch()
    assert result.get(30) == "seen"


def test_a_task_may_wait_for_what_follows_an_earlier_result(fork, tmp_path):
    with fork.Pool(1) as pool:
        path = tmp_path / "file"
        results = pool.imap(work.wait_for_file, [os.devnull, str(path)])
        assert next(results) == "seen"
        path.touch()
        assert next(results) == "seen"
    pool.join()


def test_callbacks_come_by_themselves_in_the_pools_thread(pool):
    seen, done = [], threading.Event()

    def note(value):
        seen.append((value, threading.current_thread() is threading.main_thread()))
        done.set()

    result = pool.map_async(work.square, [1, 2], callback=note)
    assert done.wait(30)
    assert seen == [([1, 4], False)]
    assert result.get(30) == [1, 4]
    done.clear()
    result = pool.apply_async(work.fail, (5,), error_callback=note)
    assert done.wait(30)
    assert isinstance(seen[1][0], ValueError)
    result.wait(30)
    assert not result.successful()


def test_a_callback_that_raises_stops_nothing(pool, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    assert pool.apply_async(work.square, (3,), callback=lambda _: 1 / 0).get(30) == 9
    assert pool.apply_async(work.square, (4,)).get(30) == 16
    assert told == [ZeroDivisionError]


def test_close_lets_what_was_given_be_done(fork):
    pool = fork.Pool(2)
    results = [pool.apply_async(work.nap, (0.05,)) for _ in range(6)]
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    pool.close()
    for call in (pool.apply, pool.apply_async, pool.map, pool.map_async, pool.imap, pool.imap_unordered, pool.starmap):
        with pytest.raises(ValueError, match="Pool not running"):
            call(work.square, [1])
    pool.join()
    assert [result.get(0) for result in results] == [0.05] * 6
    assert [worker.exitcode for worker in pool._pool] == [0, 0]


def test_terminate_ends_at_once_and_leaves_nobody_waiting(fork):
    pool = fork.Pool(2)
    results = pool.map_async(work.nap, [600] * 1000, chunksize=1)
    waiting = threading.Thread(target=results.wait)
    waiting.start()
    pool.terminate()
    pool.terminate()
    pool.join()
    waiting.join(30)
    assert not waiting.is_alive()
    with pytest.raises(mp.ClosedError, match="terminated"):
        results.get(0)
    with pytest.raises(ValueError, match="not running"), pool:
        pass


def test_it_cannot_be_pickled(pool):
    with pytest.raises(NotImplementedError):
        pickle.dumps(pool)


def test_a_pool_that_is_forgotten_warns_and_ends(fork):
    pool = fork.Pool(1)
    worker = pool._pool[0]
    pools = [pool]
    del pool
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        pools.clear()
    worker.join(30)
    assert worker.exitcode == -signal.SIGTERM


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"processes": 0}, ValueError),
        ({"processes": -1}, ValueError),
        ({"maxtasksperchild": 0}, ValueError),
        ({"maxtasksperchild": "12"}, ValueError),
        ({"initializer": 1}, TypeError),
        ({"retries": -1}, ValueError),
        ({"threads": 0}, ValueError),
        ({"shared": [1]}, TypeError),
        ({"shared": {1: 2}}, TypeError),
        ({"shared": {"lock": threading.Lock()}}, mp.CodecError),
    ],
)
def test_bad_arguments(fork, arguments, error):
    with pytest.raises(error):
        fork.Pool(**{"processes": 1, **arguments})


def test_bad_sizes(pool):
    for call in (pool.map, pool.imap, pool.imap_unordered):
        with pytest.raises(ValueError, match="1"):
            call(work.square, [1], chunksize=0)
    with pytest.raises(ValueError, match="buffersize"):
        pool.imap(work.square, [1], buffersize=0)


def test_an_initializer_may_set_globals(context):
    with context.Pool(2, work.set_up, ("ready",)) as pool:
        assert set(pool.map(work.what_was_set_up, range(8), chunksize=1)) == {"ready"}
    pool.join()


def test_maxtasksperchild(fork):
    with fork.Pool(2, maxtasksperchild=3) as pool:
        found = pool.map(work.pid, range(30), chunksize=1)
        assert max(found.count(one) for one in found) <= 3
        assert len(set(found)) >= 10
    pool.join()


def test_the_default_context():
    with Pool(1) as pool:
        assert type(pool._pool[0]) is mp.get_context().Process
        assert pool.apply(work.square, (3,)) == 9
    pool.join()


def test_as_many_workers_as_cpus():
    with Pool() as pool:
        assert len(pool._pool) == mp.usable_cpus()
    pool.join()


# -- workers that die --------------------------------------------------------------------------------


def test_a_killed_worker_takes_one_task_with_it_however_many_it_has_ahead(context):
    # python/cpython#96062: with the standard library `get` waits for ever.
    with context.Pool(1) as pool:
        results = pool.imap(work.kill_itself_at, [(index, 20) for index in range(71)])
        found, died = [], []
        for _ in range(71):
            try:
                found.append(next(results))
            except mp.WorkerDiedError as error:
                died.append(error)
        assert found == [index for index in range(71) if index != 20]
        assert [(error.index, error.exitcode) for error in died] == [(20, -signal.SIGKILL)]
        assert "task 20 of kill_itself_at" in str(died[0])
        assert "(20, 20)" in str(died[0])
        assert died[0].pid != pool._pool[0].pid
    pool.join()


def test_each_way_of_dying(pool):
    with pytest.raises(mp.WorkerDiedError, match="exited with code 5"):
        pool.apply(work.leave, (5,))
    with pytest.raises(mp.WorkerDiedError, match="SIGSEGV"):
        pool.map(work.crash, [1])
    with pytest.raises(mp.WorkerDiedError, match="exited with code 4"):
        pool.apply(sys.exit, (4,))
    assert pool.map(work.square, range(100), chunksize=1) == [x * x for x in range(100)]


def test_an_idle_worker_that_is_killed_is_replaced(pool):
    for worker in list(pool._pool):
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert pool.map(work.square, range(10)) == [x * x for x in range(10)]


def test_retries(fork, tmp_path):
    with fork.Pool(2, retries=1) as pool:
        paths = [str(tmp_path / name) for name in "abc"]
        assert pool.map(work.die_the_first_time, paths, chunksize=1) == ["done"] * 3
        with pytest.raises(mp.WorkerDiedError):
            pool.apply(work.leave, (1,))
    pool.join()


@pytest.mark.parametrize(
    ("initializer", "text"), [(work.refuse_to_start, "does not want to"), (work.leave_at_once, "code 3")]
)
def test_workers_that_cannot_start_end_the_pool_after_three_tries(context, initializer, text):
    with context.Pool(2, initializer) as pool:
        result = pool.map_async(work.square, range(4))
        with pytest.raises(mp.LaunchError, match=text):
            result.get(60)
        with pytest.raises(mp.LaunchError, match=text):
            pool.apply(work.square, (1,))
        with pytest.raises(mp.LaunchError, match=text):
            next(pool.imap(work.square, [1]))
        if initializer is work.refuse_to_start:
            with pytest.raises(mp.LaunchError, match="in refuse_to_start"):
                pool.apply(work.square, (1,))
    pool.join()


# -- tasks are not bound -----------------------------------------------------------------------------


@pytest.mark.slow
def test_one_long_task_holds_no_others_back(pool):
    long, short = 0.5, [0.0005] * 800
    pool.map(work.nap, short[:100], chunksize=1)
    ratios = []
    for _ in range(4):
        begin = time.monotonic()
        pool.map(work.nap, short, chunksize=1)
        middle = time.monotonic()
        pool.map(work.nap, [long, *short], chunksize=1)
        end = time.monotonic()
        both = middle - begin  # what two workers need for the short ones
        ratios.append((end - middle) / max(long, long / 2 + both))
    assert min(ratios) < 1.1, "5 % are promised; others use this machine, too"


def test_an_idle_worker_gets_what_another_has_ahead(pool, tmp_path):
    path = str(tmp_path / "file")
    results = pool.map_async(work.wait_for_file, [path] + [os.devnull] * 50, chunksize=1)
    others = pool.imap_unordered(work.wait_for_file, [os.devnull] * 50)
    assert [others.next(30) for _ in range(50)] == ["seen"] * 50
    (tmp_path / "file").touch()
    assert results.get(30) == ["seen"] * 51


# -- what cannot travel ------------------------------------------------------------------------------


def test_an_exception_that_cannot_be_rebuilt_is_an_error(pool):
    # python/cpython#79492 and #103061: with the standard library `map` hangs.
    for call in (
        lambda: pool.map(work.fail_unrebuildably, range(3)),
        lambda: pool.apply(work.fail_unrebuildably, (1,)),
    ):
        with pytest.raises(mp.CodecError, match="TwoArguments") as caught:
            call()
        assert "raise TwoArguments(1, 2)" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_rebuilt_is_an_error(pool):
    with pytest.raises(mp.CodecError, match="no number"):
        pool.map(work.return_unrebuildable, range(3), chunksize=1)
    assert pool.apply(work.square, (3,)) == 9


def test_a_result_that_cannot_travel_is_an_error_that_names_the_path(pool):
    with pytest.raises(klyng_mp.pool.MaybeEncodingError, match="inside") as caught:
        pool.apply(work.return_lock, (1,))
    assert caught.value.path == "the result['inside'][0]"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == (str(caught.value), caught.value.path)


def test_an_argument_that_cannot_travel_fails_its_own_task_only(pool):
    results = [pool.apply_async(work.same, (one,)) for one in (1, threading.Lock(), 2)]
    assert (results[0].get(30), results[2].get(30)) == (1, 2)
    with pytest.raises(mp.CodecError, match="argument of task 0"):
        results[1].get(30)
    with pytest.raises(RuntimeError, match="stays here"):
        pool.map(work.same, [1, work.Unpicklable(), 3], chunksize=1)
    iterator = pool.imap(work.same, [1, threading.Lock(), 3])
    assert next(iterator) == 1
    with pytest.raises(mp.CodecError):
        next(iterator)
    assert next(iterator) == 3


def test_a_function_that_cannot_travel(pool):
    lock = threading.Lock()
    for call in (pool.apply, pool.map, lambda *args: next(pool.imap(*args))):
        with pytest.raises(mp.CodecError, match="lock"):
            call(lambda: lock, [1])


# -- imap --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 2, 100])
def test_imap_reads_no_more_ahead_than_it_may(pool, chunksize):
    seen = []
    results = pool.imap(work.square, endless(seen), chunksize, buffersize=6)
    for number in range(30):
        assert next(results) == number * number
        assert len(seen) <= number + 6 + 6, "six, and the chunk that is being taken apart"
    assert next(pool.imap(work.square, range(10**12), buffersize=1)) == 0


def test_imap_of_an_endless_iterable_without_a_bound(pool):
    results = pool.imap_unordered(work.square, endless([]))
    assert len([next(results) for _ in range(1000)]) == 1000


# -- workers are processes like others ---------------------------------------------------------------


def test_pools_in_pools(context):
    # noxdafox/pebble#76: daemonic processes of the standard library may not have children.
    with context.Pool(2) as pool:
        assert pool.map(work.pool_of_its_own, [1, 5]) == [[1, 4], [25, 36]]
    pool.join()


def test_what_is_shared(context):
    with context.Pool(2, shared={"numbers": [1, 2], "text": "abc"}) as pool:
        assert pool.map(work.read_shared, ["numbers", "text"]) == [([1, 2], True, True), ("abc", True, True)]
    pool.join()
    with pytest.raises(LookupError, match="Pool"):
        mp.shared()


def test_arrays_are_shared_read_only(context):
    with context.Pool(2, shared={"array": np.ones(100_000)}) as pool:
        assert pool.map(work.shared_sum, range(4), chunksize=1) == [(100_000.0, False)] * 4
    pool.join()
    with context.Pool(1) as pool:
        assert pool.map(work.is_shared_here, [1]) == [False]
    pool.join()


def test_threads_of_blas(fork, monkeypatch):
    # joblib/joblib#834: threads times workers.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with fork.Pool(1, threads=3) as pool:
        assert pool.apply(work.blas_variable, ("OMP_NUM_THREADS",)) == "3"
    pool.join()
    with fork.Pool(mp.usable_cpus()) as pool:
        assert pool.apply(work.blas_variable, ("OMP_NUM_THREADS",)) == "1"
    pool.join()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with fork.Pool(1) as pool:
        assert pool.apply(work.blas_variable, ("OMP_NUM_THREADS",)) == "7"
    pool.join()


def test_a_bar(fork, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm.tqdm, "monitor_interval", 0)  # no thread of its own
    with fork.Pool(2, progress=True) as pool:
        assert pool.map(work.square, range(30), chunksize=4) == [x * x for x in range(30)]
        assert len(list(pool.imap(work.square, range(20)))) == 20
    pool.join()
    shown = capsys.readouterr().err
    assert "30/30" in shown
    assert "20/20" in shown


def test_a_bar_without_tqdm(fork, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        fork.Pool(1, progress=True)


def test_many_threads_use_a_pool(pool):
    found = {}

    def use(number):
        numbers = range(100 * number, 100 * number + 100)
        found[number] = (
            pool.map(work.same, numbers, chunksize=1) == list(numbers)
            and list(pool.imap(work.same, numbers)) == list(numbers)
            and [pool.apply(work.same, (one,)) for one in numbers[:20]] == list(numbers[:20])
        )

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == dict.fromkeys(range(8), True)


def test_workers_are_forked_while_threads_run(fork):
    # python/cpython#84559
    ending = threading.Event()
    threads = [threading.Thread(target=ending.wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    with fork.Pool(2, maxtasksperchild=1) as pool:
        assert pool.map(work.square, range(20), chunksize=1) == [x * x for x in range(20)]
    pool.join()
    ending.set()
    for thread in threads:
        thread.join()


def test_a_forked_child_does_not_use_its_parents_pool(pool):
    pending = pool.apply_async(work.nap, (0.2,))
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        errors = []
        for call in (lambda: pool.apply(work.square, (2,)), lambda: pending.get(5)):
            try:
                call()
            except ValueError as error:
                errors.append(str(error)[:16])
        pool.close()
        pool.terminate()
        os.write(writer, ",".join(errors).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as answers:
        assert answers.read() == "Pool not running,Pool not running"
    os.waitpid(child, 0)
    assert pending.get(30) == 0.2
    assert pool.apply(work.square, (3,)) == 9


def test_functions_of_main_that_are_younger_than_the_workers(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import klyng_mp as mp\n"
        "STATE = []\n"
        "def old(x): return x + len(STATE)\n"
        "def prepare(): STATE.append(1)\n"
        "if __name__ == '__main__':\n"
        "    with mp.get_context('fork').Pool(2, prepare) as pool:\n"
        "        def young(x): return helper(x) * 2\n"
        "        def helper(x): return x + 1\n"
        "        class Point:\n"
        "            def __init__(self, x): self.x = x\n"
        "        print(pool.map(old, [1]), pool.map(young, [1, 2]), pool.apply(lambda p: p.x, (Point(5),)))\n"
        "        def old(x): return -x\n"
        "        print(pool.map(old, [1]), pool.apply(Point, (3,)).x, type(pool.apply(Point, (3,))) is Point)\n"
    )
    done = run_python(program)
    assert (done.stdout, done.stderr) == ("[2] [4, 6] 5\n[-1] 3 True\n", "")


# -- the parent's end --------------------------------------------------------------------------------

WAITING = """
import sys, threading
import klyng_mp as mp
import poolwork
if __name__ == "__main__":
    task = getattr(poolwork, sys.argv[2])
    try:
        with mp.get_context(sys.argv[1]).Pool(2) as pool:
            print(*pool.map(poolwork.pid, range(20), chunksize=1), flush=True)
            pool.map(task, [600] * 100, chunksize=1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def waiting(tmp_path):
    """Start a program that waits for its Pool; return it, and the pids of the workers."""
    started = []

    def start(method, task):
        program = tmp_path / "waiting.py"
        program.write_text(WAITING)
        path = os.pathsep.join([os.path.dirname(os.path.dirname(mp.__file__)), os.path.dirname(work.__file__)])
        process = subprocess.Popen(
            [sys.executable, program, method, task],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process, {int(word) for word in process.stdout.readline().split()}

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_end(pids, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(is_running(pid) for pid in pids):
            return True
        os.sched_yield()
    return False


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("task", ["nap", "compute"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_one_interrupt_is_one_line(waiting, method, task, time_limit):
    # uqfoundation/pathos#114 and #266
    process, _ = waiting(method, task)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=time_limit(20))
    assert (out, err, process.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - begin < time_limit(5)


@pytest.mark.parametrize("task", ["nap", "compute"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_with_a_killed_parent(waiting, method, task, time_limit):
    # python/cpython#111873
    process, workers = waiting(method, task)
    process.kill()
    process.wait()
    assert wait_for_end(workers, time_limit(10))


def test_a_pool_that_is_alive_at_exit(run_python, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import klyng_mp as mp\n"
        "if __name__ == '__main__':\n"
        "    pool = mp.get_context('fork').Pool(2)\n"
        "    print(pool.map(abs, [-1, 2]))\n"
        "    pool.map_async(abs, range(100000), chunksize=1)\n"
    )
    done = run_python(program)
    assert (done.stdout, done.stderr, done.returncode) == ("[1, 2]\n", "", 0)


@pytest.mark.slow
def test_without_the_core(run_python, tmp_path):
    done = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/inner", __file__,
        "-k", "not without_the_core",
        cwd=os.path.dirname(os.path.dirname(__file__)), env={"KLYNG_MP_NATIVE": "0"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
