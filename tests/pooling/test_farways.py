"""A Pool of a World with hosts: its workers are on all of them, and it is like any other Pool."""

from __future__ import annotations

import os
import pickle
import signal

import poolwork as work
import pytest
from beacons import Beacon, beacons, beacons_here, client_home, hosts
from programs import wait_until

import klyng_mp as mp
from klyng_mp.futures import WorldExecutor
from klyng_mp.pooling.farways import FarSeat

pytestmark = pytest.mark.slow

__all__ = ["beacons", "client_home", "hosts"]


@pytest.fixture
def world(hosts):
    """One place here, and one on each of two hosts."""
    with mp.World(hosts=[{"host": "local", "max_procs": 1}, *({**host, "max_procs": 1} for host in hosts)]) as made:
        yield made


@pytest.fixture
def pool(world):
    with world.Pool() as made:
        yield made
    made.join()
    for worker in made._pool:
        worker.close()  # pytest keeps the pool for a while


def test_a_seat_travels_anywhere():
    seat = pickle.loads(pickle.dumps(FarSeat(1, 2, 3, is_guest=True)))
    assert (seat.place, seat.incarnation, seat.channel, seat.is_guest, seat.shares_memory) == (1, 2, 3, True, False)


def test_it_has_a_worker_in_each_place(world, pool):
    assert len(pool._pool) == world.size == 3
    assert pool.map(work.square, range(1000), chunksize=1) == [x * x for x in range(1000)]
    ranks = pool.map(work.rank_after, [0.01] * 60, chunksize=1)
    assert {ranks.count(rank) > 5 for rank in range(3)} == {True}


def test_each_method_works(pool):
    assert pool.apply(work.add, (1,), {"b": 2}) == 3
    assert list(pool.imap(work.square, range(50))) == [x * x for x in range(50)]
    assert sorted(pool.imap_unordered(work.square, range(50), chunksize=7)) == [x * x for x in range(50)]
    assert pool.starmap(work.add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.apply_async(lambda: "by value").get(60) == "by value"
    with pytest.raises(ZeroDivisionError):
        pool.apply(work.divide, (1, 0))


def test_large_arguments_and_results(pool):
    sizes = [1 << 22, 3, 1 << 16, 1 << 20]
    assert pool.map(len, [bytes(size) for size in sizes], chunksize=1) == sizes
    assert [len(data) for data in pool.map(bytes, sizes, chunksize=1)] == sizes


def test_more_workers_than_places_are_too_many(world):
    with pytest.raises(ValueError, match="places for 3 workers, not for 4"):
        world.Pool(4)
    with world.Pool(2) as pool:
        assert len(pool._pool) == 2
        assert pool.map(work.square, range(5)) == [0, 1, 4, 9, 16]
    pool.join()
    assert world.run(len, "ab") == [2] * 3


def test_who_is_killed_is_replaced(world, pool):
    error = None
    for index in range(world.size):
        with pytest.raises(mp.WorkerDiedError) as caught:
            pool.apply(work.kill_itself_at, ((index, index),))
        error = caught.value
    assert (error.exitcode, error.index) == (-signal.SIGKILL, 0)
    ranks = pool.map(work.rank_after, [0.01] * 60, chunksize=1)
    assert set(ranks) == set(range(3))


def test_a_killed_worker_loses_one_task_and_no_answer(world):
    with world.Pool(1) as pool:
        results = pool.imap(work.kill_itself_at, [(index, 60) for index in range(200)])
        found, died = [], []
        for _ in range(200):
            try:
                found.append(next(results))
            except mp.WorkerDiedError as error:
                died.append(error.index)
        assert died == [60]
        assert found == [index for index in range(200) if index != 60]
    pool.join()


def test_tasks_are_done_again(world, tmp_path):
    with world.Pool(3, retries=1) as pool:
        assert pool.map(work.die_the_first_time, [str(tmp_path / name) for name in "abc"], chunksize=1) == ["done"] * 3
    pool.join()


def test_what_is_shared_travels(world):
    with world.Pool(shared={"offset": 100, "data": bytes(3_000_000)}) as pool:
        assert pool.map(lambda x: x + mp.shared()["offset"], range(6), chunksize=1) == [x + 100 for x in range(6)]
        assert pool.map(lambda _: len(mp.shared()["data"]), range(3)) == [3_000_000] * 3
    pool.join()


def test_a_host_that_is_killed_costs_its_tasks_a_retry(tmp_path, client_home):
    with beacons_here(tmp_path) as (stays, dies):
        entries = [{**beacon.entry(), "max_procs": 1} for beacon in (stays, dies)]
        with mp.World(hosts=entries) as world, world.Pool(retries=2) as pool:
            results = pool.imap(work.square_after, [(number, 0.002) for number in range(2000)])
            found = [next(results) for _ in range(300)]
            dies.kill()
            assert found + list(results) == [number * number for number in range(2000)]
            assert set(pool.map(work.rank_after, [0.001] * 20, chunksize=1)) == {0}
        pool.join()


def test_a_host_that_returns_works_again(tmp_path, client_home):
    with beacons_here(tmp_path) as (stays, dies):
        entries = [{**beacon.entry(), "max_procs": 1} for beacon in (stays, dies)]
        with mp.World(hosts=entries) as world, world.Pool(retries=2) as pool:

            def places():
                return set(pool.map(work.rank_after, [0.001] * 50, chunksize=1))

            assert places() == {0, 1}
            dies.kill()
            wait_until(lambda: places() == {0})
            with Beacon(dies.home.parent, port=dies.port):
                wait_until(lambda: places() == {0, 1}, 30)
                assert world.size == 2
                pool.close()
                pool.join()
                world.close()


def test_without_retries_the_error_names_rank_and_host(tmp_path, client_home):
    with beacons_here(tmp_path) as (stays, dies):
        entries = [{**beacon.entry(), "max_procs": 1} for beacon in (stays, dies)]
        with mp.World(hosts=entries) as world, world.Pool() as pool:
            pipes = [str(tmp_path / name) for name in ("one", "two")]
            for pipe in pipes:
                os.mkfifo(pipe)
            result = pool.map_async(work.read_file, pipes, chunksize=1)
            with open(pipes[1], "w"):
                with open(pipes[0], "w"):  # both have begun
                    dies.kill()
                with pytest.raises(mp.WorkerDiedError, match="rank 1 on ") as caught:
                    result.get(60)
            assert "lost" in caught.value.reason
        pool.join()


def test_the_executor_works_over_hosts(world):
    with WorldExecutor(world=world) as executor:
        assert list(executor.map(work.square, range(100))) == [x * x for x in range(100)]
        assert executor.submit(os.getpid).result(60) > 0
