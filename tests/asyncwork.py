"""What coroutines do in ranks in the tests."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import klyng_mp as mp


async def returns_later(value):
    await asyncio.sleep(0)
    return value


async def exchange_and_tick():
    """Exchange a hundred messages by awaiting; return them, and how often another task ran meanwhile."""
    comm, ticks, over = mp.comm(), 0, False

    async def tick():
        nonlocal ticks
        while not over:
            await asyncio.sleep(0)
            ticks += 1

    if comm.rank > 1:
        return [], 0
    ticking = asyncio.create_task(tick())
    got = []
    for number in range(100):
        receive = comm.irecv(1 - comm.rank)
        await (comm.isend if number % 2 else comm.issend)(number, 1 - comm.rank)
        got.append(await receive)
    over = True
    await ticking
    return got, ticks


async def await_late(count):
    """Wait for one message after the other; each is sent when its receiver sleeps, as far as the kernel knows."""
    comm = mp.comm()
    other = 1 - comm.rank
    for number in range(count):
        if number % 2 == comm.rank:
            pid = await comm.irecv(other, "pid")
            await asyncio.to_thread(wait_until_asleep, pid)
            comm.send(number, other, "late")
        else:
            receive = comm.irecv(other, "late")
            comm.send(os.getpid(), other, "pid")
            assert await receive == number
    return count


def wait_until_asleep(pid):
    while Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "S":
        os.sched_yield()


async def fail_while_others_await():
    comm = mp.comm()
    if comm.rank == 1:
        await asyncio.gather(comm.irecv(0), comm.irecv(2))
        raise ValueError("mine")
    await comm.isend("x", 1)
    await comm.irecv(1)
