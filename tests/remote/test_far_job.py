"""job: however a run on several hosts ends, all are out of it, the error says why, and the next run is healthy."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import farwork
import pytest
from beacons import Beacon, beacon_on
from programs import Program, children_of, still_there, wait_until, write_script

import klyng_mp as mp
from klyng_mp.errors import (
    RankDiedError,
    RankFailedError,
    RunCancelledError,
)

HOST_SECONDS = 15.0  # in which a host that is gone has been seen to be
KINDS = {"2 hosts": [], "local and 2 hosts": [{"host": "local", "max_procs": 2}]}


@pytest.fixture(params=KINDS)
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


# -- somebody dies -----------------------------------------------------------------------------------

DRIVER = """
import json, sys, time
import klyng_mp as mp
import farwork

def main():
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        print("pids:", *(pid for pid, *_ in world.run(farwork.place)), flush=True)
        began = time.monotonic()
        try:
            world.run(farwork.bystander, sys.argv[2])
        except BaseException as error:
            print(f"error: {type(error).__name__} {time.monotonic() - began:.1f} {error}", flush=True)
        if sys.stdin.readline():
            print("healthy:", *world.run(farwork.total), flush=True)

if __name__ == "__main__":
    main()
"""


class Driver(Program):
    """A program with a World, whose ranks wait in their run."""

    def __init__(self, folder, hosts, **keywords):
        self._gate = folder / "gate"
        env = {"PYTHONPATH": f"{os.path.dirname(farwork.__file__)}:{os.path.dirname(os.path.dirname(mp.__file__))}"}
        env |= keywords.pop("env", {})
        script = write_script(folder, DRIVER)
        super().__init__(script, json.dumps(hosts), self._gate, cwd=folder, stdin=-1, env=env, **keywords)

    def wait_for_run(self):
        """Return the processes of its ranks, once all wait in the run."""
        self.pids = [int(word) for word in self.answer("pids")]
        wait_until(self._gate.exists)
        return self.pids

    def go_on(self):
        """Let it run once more, and end."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.answer("healthy")


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
        assert driver.answer("error")[0] == "KeyboardInterrupt"
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
            kind, seconds, *_words = driver.answer("error")
            assert kind == "HostLostError", driver.out
            assert beacon.key in driver.out
            assert float(seconds) < HOST_SECONDS
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
        assert driver.answer("error")[0] == "HostLostError"
        assert still_there(pids, 5.0) == []
        assert driver.go_on() == ["6"] * 4
        driver.finish()


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_a_host_that_is_slow_to_get_ready_is_waited_for_by_the_others(hosts, tmp_path):
    """The session of a host that is ready hears nothing for longer than it would of a driver that is dead."""
    with Beacon(tmp_path) as slow:
        os.kill(slow.pid, signal.SIGSTOP)
        timer = threading.Timer(12.0, os.kill, (slow.pid, signal.SIGCONT))
        timer.start()
        try:
            with mp.World(4, hosts=[hosts[0], slow.entry(2, fingerprint=slow.fingerprint)]) as world:
                assert world.run(farwork.total) == [6] * 4
        finally:
            timer.join()
        slow.check_tidy()


# -- hosts and cables ------------------------------------------------------------------------------


@pytest.fixture
def far(network):
    """A laptop, and two hosts with beacons."""
    laptop, *others = network.add_hosts("laptop", "lab1", "lab2")
    return laptop, others, [beacon_on(host) for host in others]


def drive(laptop, beacons, local=False):
    """Start a driver on the laptop, and a gate-keeper for its ranks."""
    entries = [{"host": "local", "max_procs": 2}] * local + [beacon.entry() for beacon in beacons]
    return Driver(laptop.home, entries, start=laptop.run)


def check_healthy(laptop, beacons):
    (laptop.home / "gate").unlink(missing_ok=True)
    script = "import sys, json, farwork, klyng_mp as mp\nwith mp.World(hosts=json.loads(sys.argv[1])) as world:\n"
    script += "    print(world.run(farwork.total))"
    path = f"{os.path.dirname(farwork.__file__)}:{os.path.dirname(os.path.dirname(mp.__file__))}"
    words = ["env", f"PYTHONPATH={path}", "python3", "-c", script]
    out = laptop.output([*words, json.dumps([beacon.entry() for beacon in beacons])])
    assert out.split() == f"{[2 * len(beacons) * (2 * len(beacons) - 1) // 2] * 2 * len(beacons)}".split()


def check_nothing_left(hosts, beacons):
    for beacon in beacons:
        beacon.check_tidy()
    for host in hosts:
        assert host.shared_names() == []
