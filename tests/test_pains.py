"""What people left multiprocessing for: each test names the public issue in which they tell of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import klyng_mp as mp

METHODS = ["fork", "spawn", "forkserver"]
ROOT = Path(mp.__file__).parent.parent


class Unpicklable(Exception):
    """An exception that pickles, and does not unpickle: its constructor wants two arguments."""

    def __init__(self, one, other):
        super().__init__(one)
        self.other = other


def kill_own_process(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def raise_unpicklable(number):
    raise Unpicklable(number, "other")


def double(array):
    return array * 2


def blas_threads(_):
    import threadpoolctl

    return {library["num_threads"] for library in threadpoolctl.threadpool_info()}


def children_of_a_worker(count):
    with mp.Pool(count) as pool:
        return sorted(pool.map(abs, range(-count, 0)))


@pytest.fixture
def start_script(tmp_path):
    """Start a script in a process group of its own."""
    started = []

    def start(text, *words):
        (tmp_path / "script.py").write_text(textwrap.dedent(text))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "script.py", *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_worker_does_not_leave_get_waiting(method):  # python/cpython#96062
    with mp.get_context(method).Pool(2) as pool:
        with pytest.raises(mp.WorkerDiedError, match="SIGKILL"):
            pool.map_async(kill_own_process, range(6), chunksize=1).get(timeout=60)
        assert pool.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_an_exception_that_cannot_be_unpickled_is_an_error(method):  # python/cpython#79492, #103061
    with mp.get_context(method).Pool(2) as pool:
        with pytest.raises(Exception, match="Unpicklable"):
            pool.map_async(raise_unpicklable, range(4)).get(timeout=60)
        assert pool.apply(abs, (-1,)) == 1


NOTEBOOK_CELLS = """
import klyng_mp as mp

pool = mp.get_context({method!r}).Pool(2)

def later(number):
    return number * factor

class Point:
    def __init__(self, x):
        self.x = x

factor = 3
print(pool.map(later, range(4)), pool.apply(lambda: Point(7).x))
pool.close()
pool.join()
process = mp.get_context({method!r}).Process(target=lambda: print(later(5), flush=True))
process.start()
process.join()
"""


@pytest.mark.parametrize("method", METHODS)
def test_functions_of_a_session_are_found(method, run_python):  # python/cpython#132898
    done = run_python("-c", NOTEBOOK_CELLS.format(method=method))
    assert done.stdout == "[0, 3, 6, 9] 7\n15\n", done.stderr


LOCKED = """
import threading

lock, held, release = threading.Lock(), threading.Event(), threading.Event()

def use(number):
    with lock:
        return number

def hold():
    with lock:
        held.set()
        release.wait()
"""
FORK_WITH_THREADS = """
import threading
import klyng_mp as mp
from locked import held, hold, release, use

if __name__ == "__main__":
    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    held.wait()
    with mp.World(2) as world:
        with world.Pool(2) as pool:
            print(pool.map_async(use, range(4)).get(timeout=60))
        process = world.Process(target=use, args=(1,))
        process.start()
        process.join(60)
        print(process.exitcode)
    release.set()
    thread.join()
"""


def test_a_lock_that_a_thread_holds_is_not_inherited(tmp_path, run_python):  # python/cpython#84559
    (tmp_path / "locked.py").write_text(LOCKED)
    (tmp_path / "script.py").write_text(FORK_WITH_THREADS)
    done = run_python("script.py", timeout=90)
    assert done.stdout == "[0, 1, 2, 3]\n0\n", done.stderr


def test_large_buffers_do_not_go_through_pickle():  # python/cpython#89467
    arrays = [np.full(1 << 20, number, dtype=np.uint8) for number in range(8)]
    with mp.Pool(2) as pool:
        results = pool.map(double, arrays)
        assert [int(result[-1]) for result in results] == [0, 2, 4, 6, 8, 10, 12, 14]
    queue = mp.Queue()
    queue.put(arrays[3])
    again = queue.get()
    assert again.flags.writeable
    assert (again == 3).all()
    queue.close()


WORKERS_OF_A_PARENT = r"""
import os, sys
import klyng_mp as mp

def compute(_):
    os.write(1, f"{os.getpid()}\n".encode())  # at once, also where Python does not buffer
    while True:
        pass

if __name__ == "__main__":
    with mp.get_context(sys.argv[1]).Pool(2) as pool:
        pool.map(compute, range(2), chunksize=1)
"""


@pytest.mark.may_leave("files", why="a forkserver that loses its driver leaves its socket, as the standard one does")
@pytest.mark.parametrize("method", METHODS)
def test_workers_do_not_outlive_a_killed_parent(method, start_script, time_limit):  # python/cpython#111873
    parent = start_script(WORKERS_OF_A_PARENT, method)
    pidfds = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
    parent.kill()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], time_limit(5))[0], "it computes on"
        os.close(pidfd)


INTERRUPTED = r"""
import os, sys
import klyng_mp as mp

def compute(number):
    os.write(1, b"at work\n")
    while True:
        pass

if __name__ == "__main__":
    try:
        with mp.get_context(sys.argv[1]).Pool(2) as pool:
            pool.map(compute, range(2), chunksize=1)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_ends_a_pool(method, start_script, time_limit):  # uqfoundation/pathos#114, #266
    parent = start_script(INTERRUPTED, method)
    assert [parent.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
    start = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    output, errors = parent.communicate(timeout=time_limit(20))
    assert (output, errors, parent.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - start < time_limit(3)


@pytest.mark.parametrize("method", METHODS)
def test_workers_may_have_workers(method):  # noxdafox/pebble#76
    with mp.get_context(method).Pool(2) as pool:
        assert pool.map_async(children_of_a_worker, [2, 3]).get(timeout=60) == [[1, 2], [1, 2, 3]]


def test_blas_threads_times_workers_are_not_more_than_cpus():  # joblib/joblib#834
    with mp.Pool(mp.usable_cpus()) as pool:
        assert pool.map(blas_threads, range(4)) == [{1}] * 4  # NumPy is loaded, and with it a BLAS
    with mp.Pool(1, threads=2) as pool:
        assert pool.apply(blas_threads, (0,)) == {2}


def test_nothing_is_lost_where_threads_use_one_pool():
    with mp.Pool(2) as pool:
        found = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(pool.map(abs, range(-n, 0)))) for n in range(100, 108)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(len(each) for each in found) == list(range(100, 108))
