"""Pi as an integral, in klyng's shape: the peer of ``mpi.c``, message for message.

    klyng-mp run -n 4 benchmarks/tasks/pi/klyng.py STEPS KERNEL

Rank 0 deals out the interval [0, 1], every rank sums 4 / (1 + x²) over its share, and rank 0 collects
the partial sums from whoever has finished. KERNEL is ``kernel.c`` as a shared library, the very one
that the C program is linked with. STEPS = 0 sends the same messages and computes nothing.

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

    Kernel = Callable[[float, float, float], float]


def load(path: str) -> Kernel:
    """Return the C kernel in the shared library at `path`."""
    kernel = ctypes.CDLL(path).kernel
    kernel.argtypes = [ctypes.c_double] * 3
    kernel.restype = ctypes.c_double
    return kernel


def integrate(kernel: Kernel, steps: int) -> float | None:
    """Return pi at rank 0, None at the others."""
    rank, size = mp.rank(), mp.size()
    if rank != 0:
        mp.send(kernel(*mp.recv(source=0)), dest=0)
        return None
    end = 1.0 if steps else 0.0
    dx = 1.0 / steps if steps else 1.0
    for other in range(1, size):
        mp.send((end * other / size, end * (other + 1) / size, dx), dest=other)
    total = kernel(0.0, end / size, dx)
    for _ in range(1, size):
        total += mp.recv()
    return total * dx


def run(kernel: Kernel, steps: int) -> None:
    """Do the task on the clock and print this rank's report."""
    entered = time.process_time()
    result = integrate(kernel, steps)
    left = time.process_time()
    times = {"startup_cpu": entered, "task_cpu": left - entered}
    print("report", json.dumps({"rank": mp.rank(), "size": mp.size(), **times, "result": result}))


def main() -> None:
    run(load(sys.argv[2]), int(sys.argv[1]))
    mp.end()


if __name__ == "__main__":
    mp.init(main)
