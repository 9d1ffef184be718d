"""joblib: its loops run in ranks, stay warm, nest, and tell of dead workers."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from beacons import beacons, client_home, hosts

import klyng_mp as mp

__all__ = ["beacons", "client_home", "hosts"]

joblib = pytest.importorskip("joblib")
backend = pytest.importorskip("klyng_mp.joblib")

pytestmark = pytest.mark.may_leave("fds", "processes", "threads", why="workers stay for the next loop")


@pytest.fixture(autouse=True)
def _end():
    yield
    while backend._executors:
        backend._executors.popitem()[1].shutdown()


def whoami(number):
    return number, os.getpid(), mp.size()


def die(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def inner(number):
    with joblib.parallel_config("klyng", n_jobs=2):
        return sum(joblib.Parallel()(joblib.delayed(abs)(-each) for each in range(number)))


def test_a_loop_has_its_results_in_order():
    with joblib.parallel_config("klyng", n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(whoami)(number) for number in range(50))
    assert [number for number, _, _ in results] == list(range(50))
    assert os.getpid() not in {pid for _, pid, _ in results}
    assert {size for _, _, size in results} == {2}


def test_workers_stay_warm():
    loops = [
        {pid for _, pid, _ in joblib.Parallel(2, backend="klyng")(joblib.delayed(whoami)(n) for n in range(50))}
        for _ in range(2)
    ]
    assert loops[0] & loops[1]


def test_lambdas_and_arrays():
    arrays = [np.full(200_000, number) for number in range(4)]
    with joblib.parallel_config("klyng", n_jobs=2):
        results = joblib.Parallel()(joblib.delayed(lambda array: array + 1)(array) for array in arrays)
    assert [int(array[-1]) for array in results] == [1, 2, 3, 4]


def test_an_error_ends_the_loop_and_the_next_one_works():
    with joblib.parallel_config("klyng", n_jobs=2):
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel()(joblib.delayed(lambda x: 1 / x)(x) for x in (1, 0, 2))
        assert joblib.Parallel()(joblib.delayed(abs)(-x) for x in range(5)) == list(range(5))


def test_a_dead_worker_is_an_error_and_the_next_loop_works():
    with joblib.parallel_config("klyng", n_jobs=2):
        with pytest.raises(mp.WorkerDiedError, match="SIGKILL"):
            joblib.Parallel()(joblib.delayed(die)(number) for number in range(5))
        assert joblib.Parallel()(joblib.delayed(abs)(-x) for x in range(5)) == list(range(5))


def test_results_as_they_come():
    with joblib.parallel_config("klyng", n_jobs=2):
        results = joblib.Parallel(return_as="generator_unordered")(joblib.delayed(abs)(-x) for x in range(9))
        assert sorted(results) == list(range(9))


def test_loops_may_be_nested():
    with joblib.parallel_config("klyng", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(inner)(number) for number in (3, 4)) == [3, 6]


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (3, 3), (None, 1), (-1, mp.usable_cpus())])
def test_how_many_workers(jobs, workers):
    assert backend.KlyngBackend().effective_n_jobs(jobs) == workers


def test_no_jobs_are_refused():
    with pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.Parallel(0, backend="klyng")(joblib.delayed(abs)(1) for _ in range(2))


@pytest.mark.slow
def test_a_worlds_ranks_work_on_whichever_hosts(hosts):
    with mp.World(hosts=hosts) as world:
        with joblib.parallel_config("klyng", world=world):
            results = joblib.Parallel()(joblib.delayed(lambda n: (n, mp.rank()))(number) for number in range(40))
            assert joblib.Parallel(n_jobs=99)(joblib.delayed(abs)(-x) for x in range(5)) == list(range(5))
            with pytest.raises(ZeroDivisionError):
                joblib.Parallel()(joblib.delayed(lambda x: 1 / x)(x) for x in (1, 0, 2))
        assert [number for number, _ in results] == list(range(40))
        assert {rank for _, rank in results} <= set(range(world.size))
        assert world.run(mp.rank) == list(range(world.size))  # which needs all places


@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (3, 3), (99, 4), (None, 4), (-1, 4), (-2, 3)])
def test_how_many_workers_of_a_world(jobs, workers):
    class World:
        size = 4

    assert backend.KlyngBackend(world=World()).effective_n_jobs(jobs) == workers
