"""Ranks from inside a program: make a World, run functions on it, use their results.

    $ python examples/world.py
    squares: [0, 1, 4, 9]
    the others have seen [10, 20, 30]
    rank 2 failed: ZeroDivisionError('division by zero'); the World goes on
    warm again: 4 ranks

No launcher and no ``if __name__ == "__main__"``: the ranks start clean and are told what to run. Lambdas
and functions of this file travel by value. Under ``klyng-mp run`` only rank 0 makes a World.
"""

from __future__ import annotations

import klyng_mp as mp


def collect(factor: int) -> list[int] | None:
    """Bring a number of every other rank to rank 0, as its result."""
    comm = mp.comm()
    if comm.rank:
        comm.send(comm.rank * factor, dest=0, tag="seen")
        return None
    return [comm.recv(source=other, tag="seen") for other in range(1, comm.size)]


def main() -> None:
    with mp.World(4) as world:
        print("squares:", world.run(lambda: mp.rank() ** 2))
        print("the others have seen", world.run(collect, factor=10)[0])
        try:
            world.run(lambda: 1 / (mp.rank() - 2))
        except mp.RankFailedError as error:
            print(f"rank {error.rank} failed: {error.__cause__!r}; the World goes on")
        print("warm again:", len(world.run(mp.rank)), "ranks")


if mp.rank() == 0:
    main()
