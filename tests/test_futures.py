"""futures: a WorldExecutor keeps concurrent.futures' promises, and goes on where a worker dies."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import threading
import time

import pytest

import klyng_mp as mp
from klyng_mp.futures import WorldExecutor

pytestmark = pytest.mark.may_leave(
    "fds", "files", why="pytest holds for a while what fixtures and raised errors refer to"
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def remember(event):
    global remembered  # noqa: PLW0603 - what initializers are for
    remembered = event


def wait_for_it():
    remembered.wait()
    return "waited"


@pytest.fixture
def world():
    with mp.World(1) as world:
        yield world


@pytest.fixture
def release(world):
    return world.Event()


@pytest.fixture
def waiting(world, release):
    """An executor of one worker, whose calls may wait for the event."""
    executor = WorldExecutor(world=world, initializer=remember, initargs=(release,))
    yield executor
    release.set()
    executor.shutdown()


@pytest.fixture
def executor():
    with WorldExecutor(2) as executor:
        yield executor


def test_submitted_calls_have_their_results(executor):
    futures = [executor.submit(pow, number, 2) for number in range(20)]
    assert isinstance(executor, concurrent.futures.Executor)
    assert [future.result(timeout=30) for future in futures] == [number**2 for number in range(20)]
    assert executor.submit(dict, a=1).result() == {"a": 1}
    done, waiting = concurrent.futures.wait([executor.submit(lambda x: -x, 3)], timeout=30)
    assert ([future.result() for future in done], waiting) == ([-3], set())


def test_workers_have_ranks(executor):
    assert set(executor.map(lambda _: mp.size(), range(10))) == {2}
    assert set(executor.map(lambda _: mp.rank(), range(200))) <= {0, 1}


def test_map_has_its_results_in_order(executor):
    assert list(executor.map(pow, range(50), [2] * 50)) == [number**2 for number in range(50)]
    assert list(executor.map(pow, range(50), [2] * 50, chunksize=7)) == [number**2 for number in range(50)]
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        executor.map(pow, [1], chunksize=0)


def test_map_raises_what_a_call_raised_when_it_comes_to_it(executor):
    results = executor.map(lambda x: 1 / x, [1, 2, 0, 4])
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_map_ends_in_time(waiting):
    results = waiting.map(lambda _: wait_for_it(), [1], timeout=0.2)
    with pytest.raises(TimeoutError):
        next(results)


def test_an_error_is_the_futures(executor):
    future = executor.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        future.result(timeout=30)
    with pytest.raises(mp.CodecError):
        executor.submit(len, threading.Lock()).result(timeout=30)
    assert executor.submit(abs, -1).result(timeout=30) == 1


def test_a_dead_worker_fails_its_own_call(executor):
    others = [executor.submit(abs, -number) for number in range(20)]
    dead = executor.submit(die)
    with pytest.raises(mp.WorkerDiedError, match="SIGKILL"):
        dead.result(timeout=30)
    assert [future.result(timeout=30) for future in others] == list(range(20))
    assert executor.submit(abs, -1).result(timeout=30) == 1


def test_calls_that_have_not_begun_can_be_cancelled(waiting, release):
    futures = [waiting.submit(wait_for_it) for _ in range(40)]
    assert futures[-1].cancel()
    assert futures[-1].cancelled()
    assert not futures[0].cancel()
    release.set()
    assert [future.result(timeout=30) for future in futures[:-1]] == ["waited"] * 39


def test_shutting_down_waits_for_what_was_submitted():
    executor = WorldExecutor(1)
    futures = [executor.submit(abs, -number) for number in range(50)]
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == list(range(50))
    for attempt in (lambda: executor.submit(abs, 1), lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            attempt()


def test_shutting_down_may_cancel_what_has_not_begun(waiting, release):
    futures = [waiting.submit(wait_for_it) for _ in range(30)]
    waiting.shutdown(wait=False, cancel_futures=True)
    assert futures[-1].cancelled()
    release.set()
    waiting.shutdown()
    assert futures[0].result(timeout=0) == "waited"


def test_terminating_ends_what_runs(waiting, time_limit):
    future = waiting.submit(wait_for_it)
    start = time.monotonic()
    waiting.terminate()
    with pytest.raises(RuntimeError, match="terminated"):
        future.result(timeout=30)
    waiting.shutdown()
    assert time.monotonic() - start < time_limit(5)


def test_a_given_world_stays(world):
    with WorldExecutor(world=world) as executor:
        assert executor.submit(mp.rank).result(timeout=30) == 0
    assert world.run(mp.rank) == [0]


@pytest.mark.parametrize("workers", [0, -1])
def test_bad_numbers_are_refused(workers):
    with mp.World(1) as world, pytest.raises(TypeError, match=r"write WorldExecutor\(world=w\)"):
        WorldExecutor(world)
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        WorldExecutor(workers)


def test_what_was_submitted_is_done_at_the_end_of_a_program(run_python, tmp_path):
    code = """
import pathlib
from klyng_mp.futures import WorldExecutor
executor = WorldExecutor(1)
for number in range(5):
    executor.submit(pathlib.Path(f"done{number}").touch)
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"done{number}" for number in range(5)]
