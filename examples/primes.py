"""Count the primes below a limit, with blocks of numbers handed out to whoever is free.

The ranks above 0 ask for work, get a block, and ask again with its count, so a slow rank gets fewer
blocks than a fast one. None says that there are no more. Rank 0 only deals; alone, it counts itself.

    $ klyng-mp run -n 4 examples/primes.py
    world of 4: 148933 primes below 2000000; rank 1 did 14 blocks, rank 2 did 13, rank 3 did 13

    $ klyng-mp run -n 4 examples/primes.py 50000000     # another limit
"""

from __future__ import annotations

import math
import sys

import klyng_mp as mp

BLOCK = 50_000


def count_primes(start: int, stop: int) -> int:
    """Count the primes in [start, stop) with a sieve of just that piece."""
    start = max(start, 2)
    sieve = bytearray([1]) * max(0, stop - start)
    for factor in range(2, math.isqrt(max(stop - 1, 0)) + 1):
        first = max(factor * factor, -(-start // factor) * factor) - start
        sieve[first::factor] = bytes(len(range(first, len(sieve), factor)))
    return sum(sieve)


def deal(comm: mp.Communicator, limit: int) -> None:
    """Hand out all blocks, then one None to each rank, and print what came back."""
    blocks = iter([(start, min(start + BLOCK, limit)) for start in range(0, limit, BLOCK)])
    total, done = 0, [0] * comm.size
    working = comm.size - 1
    while working:
        status = mp.Status()
        count = comm.recv(tag="free", status=status)
        if count is not None:
            total += count
            done[status.source] += 1
        block = next(blocks, None)
        comm.send(block, dest=status.source, tag="block")
        working -= block is None
    shares = ", ".join(f"rank {rank} did {done[rank]}{' blocks' * (rank == 1)}" for rank in range(1, comm.size))
    print(f"world of {comm.size}: {total} primes below {limit}; {shares}")


def work(comm: mp.Communicator) -> None:
    """Count block after block until there are no more."""
    comm.send(None, dest=0, tag="free")
    while (block := comm.recv(source=0, tag="block")) is not None:
        comm.send(count_primes(*block), dest=0, tag="free")


def main() -> None:
    comm = mp.comm()
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000
    if comm.size == 1:
        print(f"world of 1: {count_primes(0, limit)} primes below {limit}")
    elif comm.rank == 0:
        deal(comm, limit)
    else:
        work(comm)


mp.init(main)
