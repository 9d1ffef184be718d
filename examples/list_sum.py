"""Add up a million random numbers: the program of klyng's getting-started page.

Rank 0 makes the list, deals a portion to every other rank, adds up the rest itself, and collects the
partial sums from whoever has finished. With one rank there is nobody to deal to and the rest is all.

    $ klyng-mp run -n 4 examples/list_sum.py
    world of 4: 1000000 numbers add up to -2217.354, as they do alone

    $ klyng-mp run -n 4 examples/list_sum.py 1000       # another length
"""

from __future__ import annotations

import math
import random
import sys

import klyng_mp as mp


def main() -> None:
    rank, size = mp.rank(), mp.size()
    if rank == 0:
        length = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
        numbers = [random.random() * 20 - 10 for _ in range(length)]
        portion = length // size
        for other in range(1, size):
            mp.send(numbers[(other - 1) * portion : other * portion], dest=other, tag="portion")
        total = sum(numbers[(size - 1) * portion :])
        for _ in range(1, size):
            total += mp.recv(tag="partial sum")
        verdict = "as they do alone" if math.isclose(total, sum(numbers), abs_tol=1e-6) else "which is WRONG"
        print(f"world of {size}: {length} numbers add up to {total:.3f}, {verdict}")
    else:
        mp.send(sum(mp.recv(source=0, tag="portion")), dest=0, tag="partial sum")
    mp.end()


mp.init(main)
