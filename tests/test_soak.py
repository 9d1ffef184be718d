"""Soak: Worlds of all sizes that meet with every accident, for a long time, and leave nothing behind.

By hand: ``python -m pytest -m soak tests/test_soak.py``; for KLYNG_MP_SOAK_SECONDS, by default ten minutes.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import time

import pytest
import rankwork

import klyng_mp as mp

SECONDS = float(os.environ.get("KLYNG_MP_SOAK_SECONDS", "600"))


def exchange(seed):
    """Send random messages around the ring and check every one."""
    comm = mp.comm()
    numbers = random.Random(seed)
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    for _ in range(numbers.randrange(1, 20)):
        size, tag = int(10 ** numbers.uniform(0, 6)), numbers.choice([0, 7, "seven"])
        got = comm.sendrecv(bytes([comm.rank]) * size, right, tag, source=left, recvtag=tag)
        assert got == bytes([left]) * size
    return comm.rank


def fail_at_random(seed, kind):
    """Let one rank fail in the way that ``kind`` says while the others exchange messages."""
    comm = mp.comm()
    if comm.rank == random.Random(seed).randrange(comm.size):
        if kind == "raise":
            raise ValueError("meant")
        os.kill(os.getpid(), signal.SIGKILL)
    while True:
        exchange(seed)


def resident_kib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_worlds_with_accidents_leave_nothing_behind():
    numbers = random.Random(int.from_bytes(os.urandom(4), "little"))
    end = time.monotonic() + SECONDS
    worlds = runs = accidents = 0
    small = None
    while time.monotonic() < end:
        size = numbers.randrange(1, 9)
        with mp.World(size, method=numbers.choice([None, None, None, "fork"])) as world:
            for _ in range(numbers.randrange(1, 10)):
                seed, kind = numbers.random(), numbers.choice(["none", "none", "raise", "kill", "cancel"])
                runs += 1
                accidents += kind != "none"
                if kind == "none":
                    assert world.run(exchange, seed) == list(range(size))
                elif kind == "cancel":
                    assert world.start(rankwork.never_return).cancel()
                else:
                    expected = mp.RankFailedError if kind == "raise" else mp.RankDiedError
                    with pytest.raises(expected):
                        world.run(fail_at_random, seed, kind)
        worlds += 1
        if worlds == 50:
            gc.collect()
            small = resident_kib()
    gc.collect()
    large = resident_kib()
    print(f"{worlds} Worlds, {runs} runs, {accidents} accidents; {small} KiB after 50 Worlds, {large} KiB at the end")
    assert small is None or large - small < 4096
