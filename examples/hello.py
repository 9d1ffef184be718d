"""Every rank greets rank 0, and rank 0 prints the greetings in order.

    $ klyng-mp run -n 4 examples/hello.py
    hello from rank 0 of 4
    hello from rank 1 of 4, process 4711
    hello from rank 2 of 4, process 4712
    hello from rank 3 of 4, process 4713

Alone, as ``python examples/hello.py``, it is a world of one and prints the first line.
"""

from __future__ import annotations

import os

import klyng_mp as mp


def main() -> None:
    rank, size = mp.rank(), mp.size()
    if rank == 0:
        print(f"hello from rank 0 of {size}")
        for other in range(1, size):
            print(mp.recv(source=other, tag="greeting"))
    else:
        mp.send(f"hello from rank {rank} of {size}, process {os.getpid()}", dest=0, tag="greeting")
    mp.end()


mp.init(main)
