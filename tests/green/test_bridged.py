"""Green ranks in several processes: the same program, and what goes between the processes."""

from __future__ import annotations

import os
import signal
import time

import greenwork
import numpy as np
import pytest
from programs import wait_until

import klyng_mp as mp
from klyng_mp.machine import hostname


@pytest.fixture
def world():
    with mp.World(10, green=4) as world:
        yield world


def test_ranks_are_shared_out(world):
    found = world.run(lambda: (mp.rank(), mp.size(), os.getpid()))
    assert [one[:2] for one in found] == [(rank, 10) for rank in range(10)]
    pids = [one[2] for one in found]
    assert pids == [pids[0]] * 4 + [pids[4]] * 4 + [pids[8]] * 2
    assert len({*pids, os.getpid()}) == 4


@pytest.mark.parametrize("work", [greenwork.ring, greenwork.everybody, greenwork.halves, greenwork.tags])
def test_messages_and_collectives(world, work):
    with mp.World(10, green=True) as alone:
        assert world.run(work) == alone.run(work)


def test_large_arrays_between_processes(world):
    def shift():
        comm = mp.comm()
        mine = np.full(50_000, comm.rank)
        got = comm.sendrecv(mine, (comm.rank + 5) % 10, source=(comm.rank - 5) % 10)
        got += 1
        return int(got[0]), int(mine[0]), got.flags.writeable

    assert world.run(shift) == [((rank - 5) % 10 + 1, rank, True) for rank in range(10)]


def test_synchronous_sends_between_processes(world):
    def talk():
        comm = mp.comm()
        if comm.rank == 0:
            comm.ssend("sync", 9, "s")
            return "sent"
        if comm.rank == 9:
            mp.sleep(0.05)
            return comm.recv(0, "s")
        return None

    assert world.run(talk) == ["sent", *[None] * 8, "sync"]


def test_a_rank_that_fails_is_named_and_ends_the_run(world):
    def fail(name):
        try:
            if mp.rank() == 7:
                raise KeyError(name)
            mp.recv(source=7)
        except mp.PeerLostError:
            mp.sleep(60)

    began = time.monotonic()
    with pytest.raises(mp.RankFailedError, match=r"rank 7 .*KeyError: 'seven'") as caught:
        world.run(fail, "seven")
    assert (caught.value.rank, caught.value.host) == (7, hostname())
    assert caught.value.__cause__.args == ("seven",)
    assert time.monotonic() - began < 15
    assert world.run(mp.rank) == list(range(10))


def test_a_process_that_dies_is_told(world):
    def die():
        if mp.rank() == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        mp.comm().barrier()

    with pytest.raises(mp.RankDiedError, match="SIGKILL"):
        world.run(die)
    assert world.run(mp.rank) == list(range(10))


def test_a_deadlock_is_told_with_what_the_ranks_wait_for(world):
    with pytest.raises(mp.DeadlockError, match=r"green ranks 4 to 7: rank 4 in recv\(source=5, tag=ANY_TAG\)"):
        world.run(greenwork.wait_around)


def test_what_nobody_received_is_warned_of(world):
    def leave():
        if mp.rank() == 3:
            mp.send("lost", 9, tag="t")

    with pytest.warns(mp.UnreceivedMessagesWarning, match=r"rank 9 ended with 1 .*source 3, tag 't'"):
        world.run(leave)


def test_what_cannot_travel_is_refused_before_anything_runs(world):
    with pytest.raises(mp.CodecError):
        world.run(print, (one for one in ()))
    assert world.run(mp.rank) == list(range(10))


def test_a_run_can_be_given_up(world):
    run = world.start(lambda: mp.sleep(60))
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=0.1)
    wait_until(lambda: "rank 4 in sleep()" in world.report())
    assert run.cancel()
    with pytest.raises(mp.RunCancelledError):
        run.result()


def test_lines_are_labelled(capfd):
    with mp.World(3, green=2, label=True) as world:
        world.run(lambda: print("here"))
    lines = capfd.readouterr().out.splitlines()
    assert sorted(line.partition("@")[0] + line.partition("]")[2] for line in lines) == [
        f"[{rank} here" for rank in range(3)
    ]


@pytest.mark.parametrize("green", [0, -3])
def test_bad_shares_are_refused(green):
    with pytest.raises(ValueError, match="green"):
        mp.World(4, green=green)


@pytest.mark.slow
def test_on_other_machines(hosts):
    with mp.World(12, green=4, hosts=hosts) as world:
        assert world.run(greenwork.ring) == [(rank - 1) % 12 for rank in range(12)]
        assert len(set(world.run(os.getpid))) == 3
