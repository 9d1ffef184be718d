"""Pi as the area under 4 / (1 + x²) between 0 and 1, cut into strips.

Every rank knows from its number which strips are its own, so nothing is dealt out: one gather brings
the partial areas to rank 0.

    $ klyng-mp run -n 4 examples/pi.py
    world of 4: 1000000 strips, pi = 3.141592653590, wrong by 9e-14

    $ klyng-mp run -n 4 examples/pi.py 10000000         # finer
"""

from __future__ import annotations

import math
import sys

import klyng_mp as mp


def main() -> None:
    comm = mp.comm()
    strips = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    width = 1 / strips
    mine = range(comm.rank, strips, comm.size)
    area = width * sum(4 / (1 + ((strip + 0.5) * width) ** 2) for strip in mine)
    areas = comm.gather(area, root=0)
    if comm.rank == 0:
        pi = sum(areas)
        print(f"world of {comm.size}: {strips} strips, pi = {pi:.12f}, wrong by {abs(pi - math.pi):.0e}")


mp.init(main)
