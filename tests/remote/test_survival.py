"""survival: a job goes on without a host that it has lost while no run went on, and takes it back when it answers."""

from __future__ import annotations

import os
import signal
import time

import farwork
import pytest
from beacons import beacon_on
from drivers import SurvivingDriver
from programs import kill, still_there, wait_until

import klyng_mp as mp
from klyng_mp.errors import HostLostError, LaunchError

pytestmark = pytest.mark.slow

LOST_SECONDS = 20.0  # of silence 10, looked for every 2; and time to end what was there
BACK_SECONDS = 30.0  # of two attempts; and for the old session to have been forgotten


@pytest.fixture
def world(hosts):
    """One rank here, and one on each of two hosts."""
    with mp.World(hosts=[{"host": "local", "max_procs": 1}, *({**host, "max_procs": 1} for host in hosts)]) as made:
        yield made


def start(world, target, *args):
    process = world.Process(target=target, args=args)
    process.start()
    return process


def start_when_there(world, target, *args):
    """Start a process once there is a place for it."""
    found = []

    def try_it():
        try:
            found.append(start(world, target, *args))
        except LaunchError:
            return False
        return True

    wait_until(try_it, BACK_SECONDS)
    return found[0]


def exit_codes(processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def lose(beacon):
    """Kill the session of its job; the beacon itself lives on, and what is to come back can."""
    (session,) = beacon.sessions()
    kill(session)


def test_the_processes_of_other_hosts_go_on_and_learn_of_it(world, beacons, capfd):
    waits = [start(world, farwork.waits_for, 2) for _ in range(2)]
    victim = start(world, time.sleep, 1000)
    lose(beacons[1])
    assert exit_codes([*waits, victim]) == [0, 0, -signal.SIGKILL]
    assert still_there([victim.pid], 5.0) == []
    out = capfd.readouterr().out
    assert out.count(f"PeerLostError: rank 2 was on {beacons[1].key}, which is lost: ") == 2, out


def test_nobody_is_started_there_until_it_is_back_and_then_they_talk(world, beacons, capfd):
    first, second, victim = start(world, farwork.gathers_late), start(world, farwork.gathers_late), start(world, int)
    assert exit_codes([victim]) == [0]
    lose(beacons[1])
    wait_until(lambda: world._job.unreachable)
    with pytest.raises(LaunchError, match=rf"or are not there: the host {beacons[1].key}, with rank 2, is lost: "):
        start(world, int)
    third = start_when_there(world, farwork.gathers_late)
    assert exit_codes([first, second, third]) == [0, 0, 0]
    out = capfd.readouterr().out
    assert "rank 0 of 3 has [0, 1, 2]" in out, out


def test_who_sends_to_a_place_there_that_nobody_came_to_is_told(world, beacons, capfd):
    first = start(world, farwork.waits_for, 2)
    wait_until(first.is_alive)
    lose(beacons[1])
    second = start(world, farwork.waits_for, 2)
    assert exit_codes([first, second]) == [0, 0]
    assert capfd.readouterr().out.count("PeerLostError: rank 2 was on") == 2


def test_the_next_run_has_new_ranks_everywhere_if_it_is_not_back(world, beacons):
    before = world.run(os.getpid)
    lose(beacons[1])
    wait_until(lambda: world._job.unreachable)
    assert not set(world.run(os.getpid)) & set(before)
    assert world.run(farwork.total) == [3] * 3


def test_the_next_run_has_the_other_ranks_if_it_is_back(world, beacons):
    before = world.run(os.getpid)
    assert world.run(farwork.total) == [3] * 3
    lose(beacons[1])
    wait_until(lambda: world._job.unreachable)
    statistics = world.statistics()  # of ranks that are not asked now
    assert len(statistics.ranks) == 3
    wait_until(lambda: not world._job.unreachable, BACK_SECONDS)
    after = world.run(os.getpid)
    assert (after[:2], after[2] != before[2]) == (before[:2], True)
    assert world.run(farwork.total) == [3] * 3
    assert world.statistics().ranks[2].rank == 2


def test_a_rank_that_fails_after_a_return_is_heard(world, beacons):
    for _ in range(3):
        world.run(farwork.total)
    lose(beacons[1])
    wait_until(lambda: world._job.unreachable)
    wait_until(lambda: not world._job.unreachable, BACK_SECONDS)
    with pytest.raises(mp.RankFailedError, match="ZeroDivisionError") as caught:
        world.run(lambda: 1 / (mp.rank() - 2))
    assert caught.value.rank == 2
    assert world.run(farwork.total) == [3] * 3


def test_a_run_that_goes_on_ends_with_the_host(world, beacons, tmp_path):
    run = world.start(farwork.bystander, str(tmp_path / "gate"))
    wait_until((tmp_path / "gate").exists)
    lose(beacons[1])
    with pytest.raises(HostLostError, match=beacons[1].key):
        run.result()
    assert world.run(farwork.total) == [3] * 3


def test_a_world_without_hosts_left_starts_anew(world, beacons):
    with mp.World(hosts=[beacon.entry() for beacon in beacons]) as other:
        processes = [start(other, time.sleep, 1000) for _ in range(4)]
        for beacon in beacons:
            for session in beacon.sessions():
                kill(session)
        assert exit_codes(processes) == [-signal.SIGKILL] * 4
        assert other.run(farwork.total) == [6] * 4
    assert world.run(farwork.total) == [3] * 3


def test_a_world_is_closed_while_a_host_is_lost(hosts, beacons):
    with mp.World(hosts=hosts) as world:
        process = start(world, time.sleep, 0.1)
        lose(beacons[1])
        wait_until(lambda: world._job.unreachable)
        assert exit_codes([process]) == [0]


def test_a_pulled_cable_that_is_put_back(network, time_limit):
    laptop, *labs = network.add_hosts("laptop", "lab1", "lab2")
    made = [beacon_on(lab) for lab in labs]
    hosts = [{"host": "local", "max_procs": 1}, *(beacon.entry(1) for beacon in made)]
    with SurvivingDriver(laptop.home, hosts, start=laptop.run) as driver:
        victim = int(driver.answer("started")[-1])
        labs[1].cut()
        code, seconds = driver.answer("lost", seconds=LOST_SECONDS)
        assert (int(code), float(seconds) < time_limit(LOST_SECONDS)) == (-signal.SIGKILL, True)
        assert still_there([victim], LOST_SECONDS) == []
        labs[1].mend()
        driver.answer("back", seconds=BACK_SECONDS)
        assert driver.answer("codes") == ["-15", "-15", "-15"]
        assert driver.answer("run") == ["3", "3", "3"]
        assert (driver.finish(), driver.err) == (0, "")
    for beacon in made:
        beacon.check_tidy()
        beacon.stop()
