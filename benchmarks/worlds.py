"""What does a World of four ranks cost, beside a Pool of four workers?

Each figure is the median of alternating rounds in one driver that has made a World before:

    python benchmarks/worlds.py [--rounds N] [--runs N] [--json FILE]

* ``with World(4) as w: w.run(nothing)`` beside ``with Pool(4) as pool: pool.map(nothing, range(4), 1)``,
  from entering to having left: at most 1.0 of a Pool by fork, 0.1 of one by spawn.
* ``w.run(f)`` on a warm World(4): at most 500 us for a function that ranks can import, 1.5 ms for one
  of ``__main__``, which has to travel by value.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from typing import TYPE_CHECKING

# A worker that is spawned runs this file's imports again, so there are none above that multiprocessing
# does not have itself: they would make the peer slower than it is. The rest is imported in main().

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp import World

__all__ = ["main"]

RANKS = 4
FORK_LIMIT = 1.0
SPAWN_LIMIT = 0.1
IMPORTABLE_LIMIT = 500e-6
MAIN_LIMIT = 1.5e-3


def nothing_of_main() -> None:
    """Do nothing, in the driver's own ``__main__``."""


def use_world() -> float:
    from callables import nothing

    import klyng_mp

    started = time.perf_counter()
    with klyng_mp.World(RANKS) as world:
        world.run(nothing)
    return time.perf_counter() - started


def use_pool(method: str) -> Callable[[], float]:
    def measure() -> float:
        from callables import nothing

        context = multiprocessing.get_context(method)
        started = time.perf_counter()
        with context.Pool(RANKS) as pool:
            pool.map(nothing, range(RANKS), chunksize=1)
        return time.perf_counter() - started

    return measure


def use_warm(world: World, function: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        world.run(function)
        return time.perf_counter() - started

    return measure


def main() -> None:
    import callables
    from common import REPOSITORY, Figure, alternate, figure_arguments, median, publish

    sys.path.insert(1, str(REPOSITORY))  # this checkout's klyng_mp, as in programs that the others start
    import klyng_mp

    parser = figure_arguments(__doc__, rounds=30)
    parser.add_argument("--runs", type=int, default=500, metavar="N", help="runs on a warm World (default: 500)")
    options = parser.parse_args()

    samples = alternate(
        {"World": use_world, "Pool, fork": use_pool("fork"), "Pool, spawn": use_pool("spawn")},
        options.rounds,
        rest=0.1,  # klyng_mp makes spare processes behind our back, which the peers must not pay for
    )
    with klyng_mp.World(RANKS) as world:
        warm = {
            "run, importable": use_warm(world, callables.nothing),
            "run, of __main__": use_warm(world, nothing_of_main),
        }
        samples |= alternate(warm, options.runs, warmup=10)

    medians = {name: median(times) for name, times in samples.items()}
    cycle = f"World({RANKS}): enter, run, leave"
    figures = [
        Figure(cycle, medians["World"], FORK_LIMIT, medians["Pool, fork"], "Pool, fork"),
        Figure(cycle, medians["World"], SPAWN_LIMIT, medians["Pool, spawn"], "Pool, spawn"),
        Figure("warm run of an importable function", medians["run, importable"], IMPORTABLE_LIMIT),
        Figure("warm run of a function of __main__", medians["run, of __main__"], MAIN_LIMIT),
    ]
    publish(figures, samples, options.json)


if __name__ == "__main__":
    main()
