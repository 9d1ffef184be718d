"""What do pools and queues of klyng_mp cost, beside multiprocessing, multiprocess, loky and concurrent.futures?

Every figure is the median of alternating rounds; in a round each side has a process of its own for each row, and the
clock runs inside, around what the row says, with workers that are there already unless their start is what is timed:

    python benchmarks/pools.py [--rounds N] [--rows REGEX] [--json FILE] [--png FILE] [--cpus A,B] [--quick]

Pool(2), beside ``multiprocessing.Pool`` where nothing else is said:

* a map of 20 000 tasks with ``chunksize=1``: at most 0.2 of its time, and 0.05 of loky's and of multiprocess';
  with default chunks 1.0;
* one task that sleeps for a second and 1 000 for a millisecond: at most 1.05 of two threads that sleep as much;
* ``apply``, there and back: at most 0.1; a map over NumPy arrays of 1 MiB, there and back: 0.1;
* ``Pool(4)``, its start, first map and stop, by fork: at most 1.0 of its by fork, and 0.2 of its by spawn;
  the last two in a process that has done it before: a first time, which pays for fresh memory, or imports, on both
  sides, has a row without a limit;
* a small object through a ``Queue`` to another process: at most 0.5; an array of 1 MiB: 0.2. Each as a stream, one
  process puts and the other gets, and to and fro over two queues.

What else was measured is in the first table, without a limit. Peers that are not installed are left out. What the
sides do is in ``pools_peer.py``. ``--self-test`` puts multiprocessing into klyng_mp's place: then all ratios to it
should be about 1, which shows what the machine's noise is.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common import (
    BenchmarkError,
    Figure,
    alternate,
    cpus_of,
    draw_charts,
    facts_of,
    figure_arguments,
    machine,
    median,
    mpi_report,
    publish,
    seconds,
    text_table,
)
from pools_peer import IDEAL, ROWS, SIDES, has_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

__all__ = ["main"]

OURS, STANDARD = "klyng_mp", "multiprocessing"
TIMEOUT = 120.0  # seconds for one row of one side; each takes a few
HERE = Path(__file__).resolve().parent

MAP, DEFAULT, UNEVEN, APPLY, ARRAYS, _, FORK, _, SPAWN, STREAM, ROUND, ARRAY_STREAM, ARRAY_ROUND = ROWS
# What is judged: our row, whose, its row, and at most how much of its time.
LIMITS = (
    (MAP, STANDARD, MAP, 1 / 5),
    (MAP, "loky", MAP, 1 / 20),
    (MAP, "multiprocess", MAP, 1 / 20),
    (DEFAULT, STANDARD, DEFAULT, 1.0),
    (UNEVEN, IDEAL, UNEVEN, 1.05),
    (APPLY, STANDARD, APPLY, 1 / 10),
    (ARRAYS, STANDARD, ARRAYS, 1 / 10),
    (FORK, STANDARD, FORK, 1.0),
    (FORK, STANDARD, SPAWN, 1 / 5),
    (STREAM, STANDARD, STREAM, 1 / 2),
    (ROUND, STANDARD, ROUND, 1 / 2),
    (ARRAY_STREAM, STANDARD, ARRAY_STREAM, 1 / 5),
    (ARRAY_ROUND, STANDARD, ARRAY_ROUND, 1 / 5),
)


# Measuring


def find_sides() -> list[str]:
    """Return the sides that are installed; say which are not."""
    found = [side for side in SIDES if find_spec(side) is not None]
    if missing := sorted(set(SIDES) - set(found)):
        print(f"not installed, so left out: {', '.join(missing)} (pip install {' '.join(missing)})\n")
    return found


def measure(side: str, row: str, *, quick: bool) -> float:
    """Let a side do a row in a process of its own."""
    return mpi_report([sys.executable, str(HERE / "pools_peer.py"), side, row, *["--quick"] * quick], timeout=TIMEOUT)


def measure_all(sides: list[str], options: argparse.Namespace) -> dict[str, list[float]]:
    """Let all sides take their turns at each row; return the samples, named "side: row"."""
    samples: dict[str, list[float]] = {}
    for row in ROWS:
        if re.search(options.rows, row):
            measures: dict[str, Callable[[], float]] = {}
            for side in sides:
                if has_row(side, row):
                    does = STANDARD if options.self_test and side == OURS else side
                    measures[f"{side}: {row}"] = lambda does=does, row=row: measure(does, row, quick=options.quick)
            samples |= alternate(measures, options.rounds, warmup=0)
    return samples


# Judging and saying


def figures_of(medians: Mapping[str, float]) -> list[Figure]:
    """Return every figure of which both sides were measured."""
    figures = []
    for row, side, peer_row, limit in LIMITS:
        ours, its = medians.get(f"{OURS}: {row}"), medians.get(f"{side}: {peer_row}")
        if ours is not None and its is not None:
            figures.append(Figure(row, ours, limit, its, side if row == peer_row else f"{side} (spawn)"))
    return figures


def table_of(medians: Mapping[str, float], sides: list[str]) -> str:
    """Return the time of each row and side."""
    rows = [
        [row, *(seconds(medians[key]) if (key := f"{side}: {row}") in medians else "-" for side in sides)]
        for row in ROWS
        if any(f"{side}: {row}" in medians for side in sides)
    ]
    return text_table(("what", *sides), rows)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = figure_arguments(__doc__, rounds=7)
    add = parser.add_argument
    add("--rows", default="", metavar="REGEX", help="only the rows in whose names this is found")
    add("--png", type=Path, metavar="FILE", help="draw a chart into FILE")
    add("--cpus", type=cpus_of, metavar="A,B", help="the CPUs that all processes share (default: the first two usable)")
    add("--quick", action="store_true", help="few tasks: whether it works, not how fast")
    add("--self-test", action="store_true", help="put multiprocessing into klyng_mp's place")
    options = parser.parse_args(words)
    options.cpus = options.cpus or sorted(os.sched_getaffinity(0))[:2]
    return options


def main() -> None:
    options = parse()
    facts = facts_of(options.cpus)
    os.sched_setaffinity(0, options.cpus)  # what this process starts inherits it, on every side
    print("\n".join(f"{name}: {value}" for name, value in (machine() | facts).items()), end="\n\n")
    sides = find_sides()
    samples = measure_all(sides, options)
    medians = {name: median(values) for name, values in samples.items()}
    print(table_of(medians, sides), end="\n\n")
    publish(figures_of(medians), samples, options.json, facts)
    if options.png is not None:
        draw_charts(lambda: draw(medians, sides, options), options.png.parent)


def draw(medians: Mapping[str, float], sides: list[str], options: argparse.Namespace) -> list[Path]:
    from pools_charts import draw as draw_bars

    return draw_bars(medians, sides, options.rounds, options.png)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmarks/pools.py: {error}")
