"""remote.started: processes that are started from a World are on its hosts, and are what they are here."""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import os
import signal
import time

import farwork
import pytest
from drivers import ProcessDriver
from programs import still_there, wait_until

import klyng_mp as mp
from klyng_mp import native
from klyng_mp.errors import LaunchError, NotAcrossHostsError, PeerLostError, WorldBusyError

pytestmark = pytest.mark.slow


@pytest.fixture
def world(hosts):
    """One rank here, and one on each of two hosts."""
    with mp.World(hosts=[{"host": "local", "max_procs": 1}, *({**host, "max_procs": 1} for host in hosts)]) as made:
        yield made


def start(world, target, *args, **keywords):
    process = world.Process(target=target, args=args, **keywords)
    process.start()
    return process


def start_all(world, target, *args):
    return [start(world, target, *args) for _ in range(world.size)]


def exit_codes(processes):
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_they_take_the_places_of_all_hosts_and_talk(world, capfd):
    assert exit_codes(start_all(world, farwork.gathers)) == [0, 0, 0]
    out = capfd.readouterr().out.splitlines()  # all of it, since they were joined
    assert sorted(out) == ["rank 0 of 3 has [0, 1, 2]", *(f"rank {rank} of 3 has None" for rank in (1, 2))]
    assert world.run(farwork.total) == [3] * 3
    assert exit_codes(start_all(world, farwork.gathers)) == [0, 0, 0]


def test_what_is_sent_to_a_place_waits_until_somebody_has_come(world, capfd):
    first = start(world, farwork.sends_on, 0)
    wait_until(lambda: "sent" in capfd.readouterr().out)
    assert exit_codes([first, *(start(world, farwork.sends_on, rank) for rank in (1, 2))]) == [0, 0, 0]
    assert "rank 2 has all of [0, 1]" in capfd.readouterr().out


@pytest.mark.parametrize("size", [0, 1 << 20, 2_500_000])
def test_what_a_process_has_sent_outlives_it_until_somebody_has_come(world, capfd, size):
    stays = start(world, time.sleep, 1000, daemon=True)  # in the place here
    gone = start(world, farwork.leaves, [0, 2], size)  # on one host
    assert exit_codes([gone]) == [0]
    stays_too = start(world, time.sleep, 1000, daemon=True)
    assert exit_codes([start(world, farwork.finds, 1, size)]) == [0]  # on the other
    assert "rank 2 has found it" in capfd.readouterr().out
    for process in (stays, stays_too):
        process.kill()
        process.join()
    assert world.run(farwork.total) == [3] * 3
    gone = start(world, farwork.leaves, [1], size)
    assert exit_codes([gone]) == [0]
    stays = start(world, time.sleep, 1000, daemon=True)
    assert exit_codes([start(world, farwork.finds, 0, size)]) == [0]
    assert "rank 1 has found it" in capfd.readouterr().out
    stays.kill()
    assert exit_codes([stays]) == [-signal.SIGKILL]


def test_the_first_that_comes_to_a_place_here_stays(hosts):
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(4):  # whether its predecessor is seen to end before it comes is a matter of chance
            two = [{"host": "local", "max_procs": 1}, {**hosts[0], "max_procs": 1}]
            world = stack.enter_context(mp.World(hosts=two))
            # Longer than what is told of its host's end would need.
            processes.append(start(world, time.sleep, 4.5))
        assert exit_codes(processes) == [0] * 4


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        (lambda process: process.terminate(), [-signal.SIGTERM] * 3),
        (lambda process: process.kill(), [-signal.SIGKILL] * 3),
    ],
    ids=["terminate", "kill"],
)
def test_they_are_ended(world, end, codes):
    processes = start_all(world, time.sleep, 1000)
    assert all(process.is_alive() for process in processes)
    pids = [process.pid for process in processes]
    for process in processes:
        end(process)
    assert exit_codes(processes) == codes
    assert still_there(pids, 0) == []
    assert not any(process.is_alive() for process in processes)


def test_exit_codes_and_errors_are_those_of_processes_here(world, capfd):
    assert exit_codes([start(world, os._exit, 7), start(world, farwork.fails_here), start(world, int)]) == [7, 1, 0]
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_a_process_sends_last_is_received_although_it_has_ended(world, capfd):
    first = start(world, farwork.hears_last_words)
    assert exit_codes([first, *(start(world, farwork.says_last_words) for _ in range(2))]) == [0] * 3
    assert "heard: 1 2" in capfd.readouterr().out


def test_a_sentinel_can_be_waited_on(world):
    process = start(world, int)
    assert multiprocessing.connection.wait([process.sentinel], timeout=20) == [process.sentinel]
    assert process.exitcode == 0


def test_a_lambda_and_what_it_refers_to_travel(world, capfd):
    secret = [1, 2, 3]
    assert exit_codes([start(world, lambda: print(mp.comm().allreduce(1), sum(secret))) for _ in range(3)]) == [0] * 3
    assert sorted(capfd.readouterr().out.splitlines()) == ["3 6"] * 3


def test_large_arguments_travel_whole(world):
    data = os.urandom(5_000_000)
    assert exit_codes([start(world, farwork.checks, data, sum(data)) for _ in range(3)]) == [0] * 3


def test_who_waits_for_one_that_is_killed_is_told(world, capfd):
    for _ in range(20):  # mostly it is killed before it has come to its place
        waits = [start(world, farwork.waits_for, 2, daemon=True) for _ in range(2)]
        victim = start(world, time.sleep, 1000)
        victim.kill()
        assert exit_codes([*waits, victim]) == [0, 0, -signal.SIGKILL]
        out = capfd.readouterr().out
        assert out.count(f"{PeerLostError.__name__}: rank 2 was killed by SIGKILL") == 2, out
        assert world.run(farwork.total) == [3] * 3


def test_they_are_children_as_others_are(world):
    process = start(world, farwork.checks_its_process, os.getpid(), bytes(multiprocessing.current_process().authkey))
    assert process in mp.active_children()
    assert exit_codes([process]) == [0]
    assert process not in mp.active_children()


def test_daemonic_ones_end_with_the_world(hosts):
    with mp.World(hosts=hosts) as world:
        processes = [start(world, time.sleep, 1000, daemon=True) for _ in range(world.size)]
    assert exit_codes(processes) == [-signal.SIGTERM] * 4


def test_places_are_held_until_they_end(world):
    processes = start_all(world, time.sleep, 1000)
    with pytest.raises(LaunchError, match=r"would have no rank.*all 3 places of its World were held"):
        start(world, int)
    with pytest.raises(WorldBusyError, match="hold places of this World"):
        world.run(farwork.total)
    processes[1].kill()
    processes[1].join()
    again = start(world, int)
    assert exit_codes([again]) == [0]
    for process in processes:
        process.kill()
    exit_codes(processes)
    assert world.run(farwork.total) == [3] * 3


def test_what_cannot_leave_this_machine_is_refused(world):
    spawn = mp.get_context("spawn")
    for what in (spawn.Pipe()[0], spawn.SimpleQueue(), *([] if native.core is None else [spawn.Lock()])):
        with pytest.raises(
            NotAcrossHostsError, match=r"queue, .* of this machine cannot be had across hosts: use what the W"
        ):
            start(world, print, what)
    assert world.run(farwork.total) == [3] * 3
    assert exit_codes([start(world, int)]) == [0]


def test_an_argument_that_cannot_travel_is_named(world):
    with pytest.raises(mp.CodecError, match="generator"):
        start(world, print, (x for x in "a"))
    assert exit_codes([start(world, int)]) == [0]


def test_a_killed_driver_takes_them_along(hosts, tmp_path):
    with ProcessDriver(tmp_path, hosts) as driver:
        pids = [int(word) for word in driver.answer("pids")]
        assert len(pids) == 4
        driver.process.kill()
        assert still_there(pids, 15.0) == []
