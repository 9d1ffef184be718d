"""job: however a run on several hosts ends, all are out of it, the error says why, and the next run is healthy."""

from __future__ import annotations

import os
import signal
import threading
import time

import farwork
import pytest
from beacons import Beacon, beacons_here
from drivers import Driver
from programs import children_of, parent_of, still_there, wait_until

import klyng_mp as mp
from klyng_mp.errors import (
    RankDiedError,
    RankFailedError,
    RunCancelledError,
)
from klyng_mp.remote.records import SILENCE_SECONDS

pytestmark = pytest.mark.slow

HOST_SECONDS = 15.0  # in which a host that is gone has been seen to be
KINDS = {"2 hosts": [], "local and 2 hosts": [{"host": "local", "max_procs": 2}]}


@pytest.fixture(params=["2 hosts", "local and 2 hosts"])
def world(request, hosts):
    with mp.World(hosts=[*KINDS[request.param], *hosts]) as made:
        yield made
        assert made.run(farwork.total) == [sum(range(made.size))] * made.size


# -- a run ends early ------------------------------------------------------------------------------


def test_an_error_of_a_rank_ends_the_run_everywhere(world):
    last = world.size - 1
    with pytest.raises(RankFailedError, match="this is wrong") as caught:
        world.run(farwork.fails, last)
    error = caught.value
    assert (error.rank, type(error.__cause__)) == (last, ValueError)
    assert "farwork.py" in error.traceback
    assert error.host in str(error)


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_rank_that_dies_ends_the_run_and_is_replaced(world, which):
    rank = 0 if which == "first" else world.size - 1
    with pytest.raises(RankDiedError) as caught:
        world.run(farwork.dies, rank)
    assert (caught.value.rank, caught.value.exitcode) == (rank, -signal.SIGKILL)


def test_a_run_is_cancelled_everywhere(world, tmp_path):
    run = world.start(farwork.hangs, str(tmp_path / "gate"))
    wait_until((tmp_path / "gate").exists)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result()


def test_a_run_has_its_timeout(world, time_limit):
    began = time.monotonic()
    run = world.start(farwork.hangs)
    with pytest.raises(mp.TimeoutError):
        run.result(0.3)
    assert time.monotonic() - began < time_limit(5)
    assert run.cancel()


def test_ctrl_c_ends_the_run_everywhere(world, tmp_path):
    def press():
        wait_until((tmp_path / "gate").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        world.run(farwork.hangs, str(tmp_path / "gate"))
    thread.join()


def test_all_ranks_can_be_started_anew(world):
    before = [pid for pid, *_ in world.run(farwork.place)]
    world.restart()
    after = [pid for pid, *_ in world.run(farwork.place)]
    assert not set(before) & set(after)
    assert still_there(before) == []


# -- what ranks have there -------------------------------------------------------------------------


def test_ranks_have_the_environment_that_was_asked_for_and_the_hosts_own(hosts, monkeypatch):
    monkeypatch.setenv("ONLY_HERE", "1")
    with mp.World(hosts=hosts, env={"WANTED": "yes"}) as world:
        found = world.run(farwork.surroundings, "WANTED", "ONLY_HERE", "TMPDIR")
    assert all(one["WANTED"] == "yes" and one["ONLY_HERE"] is None for one in found)
    assert {one["TMPDIR"] for one in found} != {os.environ["TMPDIR"]}


def test_a_seed_makes_the_same_numbers_wherever_the_ranks_are(hosts):
    with mp.World(4, seed=7) as world:
        here = world.run(farwork.draws)
    with mp.World(hosts=hosts, seed=7) as world:
        assert world.run(farwork.draws) == here


def test_what_ranks_print_comes_here_whole_and_in_its_order(hosts, capfd):
    with mp.World(hosts=hosts, label=True) as world:
        world.run(farwork.prints_much, 300)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 4 * 300
    for rank in range(4):
        own = [line.partition("] ")[2] for line in lines if line.startswith(f"[{rank}@")]
        assert own == [f"{rank}:{number}:{'x' * 100}" for number in range(300)]


def test_a_report_has_the_ranks_of_all_hosts(hosts, tmp_path):
    with mp.World(hosts=hosts) as world:
        run = world.start(farwork.bystander, str(tmp_path / "gate"))
        wait_until((tmp_path / "gate").exists)
        report = world.report(5)
        run.cancel()
    assert all(f"rank {rank}" in str(report) for rank in range(4))


# -- somebody dies ---------------------------------------------------------------------------------


def healthy(hosts):
    with mp.World(hosts=hosts) as world:
        assert world.run(farwork.total) == [sum(range(world.size))] * world.size


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_driver_is_killed_all_its_ranks_are_gone(hosts, tmp_path, kind):
    with Driver(tmp_path, [*KINDS[kind], *hosts]) as driver:
        pids = driver.wait_for_run()
        driver.process.kill()
        assert still_there(pids, 5.0) == []
    healthy(hosts)


def test_ctrl_c_in_a_program(hosts, tmp_path):
    with Driver(tmp_path, hosts) as driver:
        driver.wait_for_run()
        driver.signal(signal.SIGINT)
        assert driver.error()[0] == "KeyboardInterrupt"
        assert driver.go_on() == ["6"] * 4
        assert (driver.finish(), driver.err) == (0, "")


@pytest.mark.parametrize("victim", ["session", "zygote", "beacon"])
def test_when_a_process_above_the_ranks_is_killed_the_run_ends_and_a_later_one_is_healthy(
    tmp_path, client_home, hosts, victim
):
    (tmp_path / "work").mkdir()
    with Beacon(tmp_path / "own") as beacon:
        entries = [hosts[0], beacon.entry()]
        with Driver(tmp_path / "work", entries) as driver:
            pids = driver.wait_for_run()
            (session,) = beacon.sessions()
            (zygote,) = children_of(session)
            began = time.monotonic()
            os.kill({"session": session, "zygote": zygote, "beacon": beacon.pid}[victim], signal.SIGKILL)
            kind, seconds = driver.error()
            assert kind == "HostLostError", driver.out
            assert beacon.key in driver.out
            assert seconds < HOST_SECONDS
            assert still_there(pids, 5.0) == []
            assert time.monotonic() - began < HOST_SECONDS
            if victim != "beacon":
                beacon.check_tidy()
                assert driver.go_on() == ["6"] * 4
            else:
                wait_until(lambda: not list(beacon.tmp.iterdir()))
                driver.process.stdin.close()
                beacon.kill()
            driver.finish()
        if victim == "beacon":
            healthy([hosts[0]])


def test_when_the_local_supervisor_is_killed_the_run_ends(hosts, tmp_path):
    entries = [{"host": "local", "max_procs": 2}, hosts[0]]
    with Driver(tmp_path, entries) as driver:
        pids = driver.wait_for_run()
        os.kill(parent_of(pids[0]), signal.SIGKILL)
        assert driver.error()[0] == "HostLostError"
        assert still_there(pids, 5.0) == []
        assert driver.go_on() == ["6"] * 4
        driver.finish()


def test_a_host_that_is_slow_to_get_ready_is_waited_for_by_the_others(tmp_path, client_home):
    """The session of a host that is ready hears nothing for longer than it would of a driver that is dead."""
    with beacons_here(tmp_path) as (quick, slow):
        thread = threading.Thread(target=hold_up, args=(slow, SILENCE_SECONDS + 4))
        thread.start()
        try:
            with mp.World(hosts=[quick.entry(), slow.entry()]) as world:
                assert world.run(farwork.total) == [6] * 4
        finally:
            thread.join()
        for beacon in (quick, slow):
            beacon.check_tidy()
            assert beacon.log.count(" 2 ranks") == 1  # a lost job would have been begun anew


def hold_up(beacon, seconds):
    """Stop the session of the next job for a while, before it can have unpacked its program."""
    wait_until(lambda: "logged in" in beacon.log)
    (session,) = beacon.sessions()
    os.kill(session, signal.SIGSTOP)
    threading.Event().wait(seconds)
    os.kill(session, signal.SIGCONT)
