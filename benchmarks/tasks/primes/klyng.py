"""Primes by trial division, in klyng's shape: the peer of ``mpi.c``, message for message.

    klyng-mp run -n 4 benchmarks/tasks/primes/klyng.py LIMIT KERNEL

Rank 0 tells every rank its block of [0, LIMIT), every rank counts its primes, and rank 0 collects the
counts from whoever has finished. KERNEL is ``kernel.c`` as a shared library, the very one that the C
program is linked with. LIMIT = 0 sends the same messages and computes nothing.

Every rank prints one line that starts with ``report`` and goes on in JSON: the CPU seconds before it
entered the task (its start-up and imports) and those between entering and leaving.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import TYPE_CHECKING

import klyng_mp as mp

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[[int, int], int]


def load(path: str) -> Kernel:
    """Return the C kernel in the shared library at `path`."""
    kernel = ctypes.CDLL(path).kernel
    kernel.argtypes = [ctypes.c_int64] * 2
    kernel.restype = ctypes.c_int64
    return kernel


def count_primes(kernel: Kernel, limit: int) -> int | None:
    """Return the number of primes below `limit` at rank 0, None at the others."""
    rank, size = mp.rank(), mp.size()
    if rank != 0:
        mp.send(kernel(*mp.recv(source=0)), dest=0)
        return None
    for other in range(1, size):
        # Multiplied first: no number falls between two blocks.
        mp.send((other * limit // size, (other + 1) * limit // size), dest=other)
    count = kernel(0, limit // size)
    for _ in range(1, size):
        count += mp.recv()
    return count


def run(kernel: Kernel, limit: int) -> None:
    """Do the task on the clock and print this rank's report."""
    entered = time.process_time()
    result = count_primes(kernel, limit)
    left = time.process_time()
    times = {"startup_cpu": entered, "task_cpu": left - entered}
    print("report", json.dumps({"rank": mp.rank(), "size": mp.size(), **times, "result": result}))


def main() -> None:
    run(load(sys.argv[2]), int(sys.argv[1]))
    mp.end()


if __name__ == "__main__":
    mp.init(main)
