"""The sides of ``green.py``: what it measures of klyng_mp's green ranks, and of asyncio tasks that do the same.

    python benchmarks/green_peer.py klyng_mp|asyncio ring|bytes|hop|allreduce COUNT

prints one number: seconds, or bytes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import klyng_mp

__all__: list[str] = []

REDUCTIONS = 5  # in a row, after a first one


def peak_bytes() -> int:
    """Return the largest resident size that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# klyng_mp: the number goes down the ranks, so that all of them are alive before it comes to the last


def first() -> Any:
    return second()


def second() -> Any:
    return third()


def third() -> Any:
    comm = klyng_mp.comm()
    if comm.rank == 0:
        comm.send(0, comm.size - 1)
        return comm.recv(1 % comm.size)
    got = comm.recv((comm.rank + 1) % comm.size)
    comm.send(got + 1, comm.rank - 1)
    return None


def hop(count: int) -> float:
    comm = klyng_mp.comm()
    peer = 1 - comm.rank
    started = time.perf_counter()
    for _ in range(count // 2):
        if comm.rank == 0:
            comm.send(1, peer)
            comm.recv(peer)
        else:
            comm.recv(peer)
            comm.send(1, peer)
    return (time.perf_counter() - started) / count


def reduce_all() -> tuple[float, float]:
    comm = klyng_mp.comm()
    comm.allreduce(comm.rank)
    started = time.perf_counter()
    for _ in range(REDUCTIONS):
        total = comm.allreduce(comm.rank)
    if total != comm.size * (comm.size - 1) // 2:
        raise ValueError(f"a sum of {total} is wrong")
    return started, time.perf_counter()


def of_klyng_mp(what: str, count: int) -> float:
    if what == "hop":
        with klyng_mp.World(2, green=True) as world:
            return max(world.run(hop, count))
    if what == "allreduce":
        with klyng_mp.World(count, green=True) as world:
            times = world.run(reduce_all)
        return (max(end for _, end in times) - min(start for start, _ in times)) / REDUCTIONS
    import greenlet  # noqa: F401 - as asyncio is imported already, it belongs to the idle interpreter

    idle, started = peak_bytes(), time.perf_counter()
    with klyng_mp.World(count, green=True) as world:
        if world.run(first)[0] != count - 1:
            raise ValueError("the number went astray")
    return peak_bytes() - idle if what == "bytes" else time.perf_counter() - started


# asyncio: a queue for each task


class Tasks:
    """As many tasks, with a queue each."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.queues = [asyncio.Queue[Any]() for _ in range(size)]

    async def first(self, rank: int) -> Any:
        return await self.second(rank)

    async def second(self, rank: int) -> Any:
        return await self.third(rank)

    async def third(self, rank: int) -> Any:
        if rank == 0:
            self.queues[self.size - 1].put_nowait(0)
            return await self.queues[0].get()
        got = await self.queues[rank].get()
        self.queues[rank - 1].put_nowait(got + 1)
        return None

    async def hop(self, rank: int, count: int) -> None:
        for _ in range(count // 2):
            if rank == 0:
                self.queues[1].put_nowait(1)
                await self.queues[0].get()
            else:
                await self.queues[1].get()
                self.queues[0].put_nowait(1)

    async def reduce_all(self, rank: int) -> tuple[float, float]:
        kept: dict[int, list[Any]] = defaultdict(list)
        await self.allreduce(rank, rank, kept)
        started = time.perf_counter()
        for _ in range(REDUCTIONS):
            total = await self.allreduce(rank, rank, kept)
        if total != self.size * (self.size - 1) // 2:
            raise ValueError(f"a sum of {total} is wrong")
        return started, time.perf_counter()

    async def allreduce(self, rank: int, value: int, kept: dict[int, list[Any]]) -> int:
        """Up a binomial tree and down again; what comes early is kept by its sender."""

        async def receive(source: int) -> Any:
            while not kept[source]:
                sender, what = await self.queues[rank].get()
                kept[sender].append(what)
            return kept[source].pop(0)

        distance = 1
        while distance < self.size and not rank & distance:
            if rank + distance < self.size:
                value += await receive(rank + distance)
            distance *= 2
        if rank:
            self.queues[rank - distance].put_nowait((rank, value))
            value = await receive(rank - distance)
        while distance > 1:
            distance //= 2
            if rank + distance < self.size:
                self.queues[rank + distance].put_nowait((rank, value))
        return value


async def of_asyncio(what: str, count: int) -> float:
    idle, started = peak_bytes(), time.perf_counter()
    if what == "hop":
        tasks = Tasks(2)
        await asyncio.gather(*(tasks.hop(rank, count) for rank in range(2)))
        return (time.perf_counter() - started) / count
    tasks = Tasks(count)
    if what == "allreduce":
        times = await asyncio.gather(*(tasks.reduce_all(rank) for rank in range(count)))
        return (max(end for _, end in times) - min(start for start, _ in times)) / REDUCTIONS
    found = await asyncio.gather(*(tasks.first(rank) for rank in range(count)))
    if found[0] != count - 1:
        raise ValueError("the number went astray")
    return peak_bytes() - idle if what == "bytes" else time.perf_counter() - started


if __name__ == "__main__":
    side, kind, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(of_klyng_mp(kind, number) if side == "klyng_mp" else asyncio.run(of_asyncio(kind, number)))
