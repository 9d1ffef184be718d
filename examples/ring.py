"""Send a number round the ring of ranks; each adds its own, and rank 0 tells the time of a hop.

    $ klyng-mp run -n 4 examples/ring.py
    world of 4: 1000 laps, the number is 6000, as it should be; 14.2 us a hop

    $ klyng-mp run -n 4 examples/ring.py 20000          # more laps

In a world of one the ring is rank 0, which sends to itself.
"""

from __future__ import annotations

import sys
import time

import klyng_mp as mp


def main() -> None:
    comm = mp.comm()
    laps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    number = 0
    started = time.perf_counter()
    for _ in range(laps):
        if comm.rank == 0:
            comm.send(number, dest=right)
            number = comm.recv(source=left)
        else:
            comm.send(comm.recv(source=left) + comm.rank, dest=right)
    hop = (time.perf_counter() - started) / (laps * comm.size)
    if comm.rank == 0:
        verdict = "as it should be" if number == laps * sum(range(comm.size)) else "which is WRONG"
        print(f"world of {comm.size}: {laps} laps, the number is {number}, {verdict}; {hop * 1e6:.1f} us a hop")


mp.init(main)
