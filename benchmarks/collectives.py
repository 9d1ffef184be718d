"""What do collectives among ranks of one host cost, beside mpi4py's and a bare barrier?

Every figure is the median of alternating rounds; a round of ours is one World, one of mpi4py's one mpiexec, and
the clock runs inside, between ranks that are warm:

    python benchmarks/collectives.py [--rounds N] [--json FILE] [--output DIR] [--no-charts] [--cpus A,B] [--quick]

* barrier, and bcast, allreduce, allgather and alltoall of a small object: at most 1.0 of mpi4py's methods of the same
  names with 2 ranks, and 0.5 with 8 ranks on two CPUs, where the barrier is also at most 4 bare ones (8 processes that
  sleep on a futex, in C);
* bcast and allreduce of NumPy arrays of 1 and 16 MiB as objects, with 2 ranks and with 4: at most 0.3 of mpi4py's bcast
  and allreduce of the same, and 1.0 of its Bcast and Allreduce into a ready buffer. Each array is written before and
  summed after, within the time.

What the ranks do is in ``collectives_peer.py``. Beside it is printed, without a limit or a peer, what each collective
of a small object takes with 64 ranks. Two charts, small objects and arrays, go to --output.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from collectives_peer import ARRAY_NAMES, RANKS, SIZES, SMALL_NAMES, array_row, buffer_row, measure, of_ranks
from common import (
    REPOSITORY,
    BenchmarkError,
    Figure,
    alternate,
    bare_limit,
    build_limits,
    collect,
    draw_charts,
    facts_of,
    figure_arguments,
    find_mpiexec,
    machine,
    median,
    mpi_report,
    parse_rank_arguments,
    publish,
    seconds,
    text_table,
)

sys.path.insert(1, str(REPOSITORY))  # this checkout's klyng_mp, as in programs that the peers start
import klyng_mp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    Rows = dict[str, float]

__all__ = ["main"]

FEW_LIMIT, MANY_LIMIT = 1.0, 0.5
BARE_LIMIT = 4.0
OBJECT_LIMIT = 0.3
BUFFER_LIMIT = 1.0

FEW, MANY = RANKS["small"]
(MOST,) = RANKS["every"]
TIMEOUT = 120.0  # seconds for one round of anything; each takes a few
BARRIERS = 2000  # bare ones
HERE = Path(__file__).resolve().parent

OURS, PEER, BARE = "klyng_mp", "mpi4py", "bare"


class Compared(NamedTuple):
    """One figure before it is measured: a row of ours, at most so many times another."""

    row: str
    limit: float
    peer: str  # its name among the medians
    peer_name: str


# Measuring


def act(program: str, *, quick: bool) -> Rows:
    """Be a rank of ours."""
    return measure(klyng_mp.comm(), program, mpi=False, quick=quick)


def ours(program: str, ranks: int, *, quick: bool) -> Rows:
    """Run `program` in a World of its own."""
    with klyng_mp.World(ranks) as world:
        return world.start(act, program, quick=quick).result(timeout=TIMEOUT)[0]


def peers(mpiexec: str, program: str, ranks: int, *, quick: bool) -> Rows:
    """Run `program` in an mpiexec of its own."""
    script = [sys.executable, str(HERE / "collectives_peer.py"), program, *["--quick"] * quick]
    return mpi_report([mpiexec, "-n", str(ranks), *script], timeout=TIMEOUT)


def bare(limits: Path, *, quick: bool) -> Rows:
    """Measure the barrier that the machine allows."""
    count = BARRIERS // (100 if quick else 1)
    return {of_ranks("barrier", MANY): bare_limit(limits, "barrier", MANY, count, timeout=TIMEOUT)}


def measure_all(mpiexec: str | None, limits: Path | None, options: argparse.Namespace) -> dict[str, list[float]]:
    """Let all sides take their turns; return the samples of every row, named "side: row, n ranks"."""
    quick = options.quick
    samples: dict[str, list[float]] = {}
    for program, ranks in ((program, ranks) for program, counts in RANKS.items() for ranks in counts):
        sides: dict[str, Callable[[], Rows]] = {OURS: lambda p=program, n=ranks: ours(p, n, quick=quick)}
        if mpiexec is not None and program != "every":
            sides[PEER] = lambda p=program, n=ranks: peers(mpiexec, p, n, quick=quick)
        if limits is not None and (program, ranks) == ("small", MANY):
            sides[BARE] = lambda: bare(limits, quick=quick)
        collect(samples, alternate(sides, options.rounds, warmup=0))
    return samples


# Judging


def small_compared(ranks: int) -> list[Compared]:
    """Return what is compared of small objects."""
    limit = FEW_LIMIT if ranks == FEW else MANY_LIMIT
    return [
        Compared(row, limit, f"{PEER}: {row}", f"{PEER} {name}")
        for name, row in ((name, of_ranks(name, ranks)) for name in SMALL_NAMES)
    ]


def array_compared(ranks: int) -> list[Compared]:
    """Return what is compared of arrays."""
    wanted = []
    for name, size in ((name, size) for name in ARRAY_NAMES for size in SIZES):
        row, ready = (of_ranks(one, ranks) for one in (array_row(name, size), buffer_row(array_row(name, size))))
        wanted.append(Compared(row, OBJECT_LIMIT, f"{PEER}: {row}", f"{PEER} {name}"))
        wanted.append(Compared(row, BUFFER_LIMIT, f"{PEER}: {ready}", f"{PEER} {name.capitalize()}"))
    return wanted


def figures_of(medians: Mapping[str, float]) -> list[Figure]:
    """Return every figure of which both sides were measured."""
    barrier = of_ranks("barrier", MANY)
    wanted = [
        *(one for ranks in RANKS["small"] for one in small_compared(ranks)),
        Compared(barrier, BARE_LIMIT, f"{BARE}: {barrier}", "bare futex barrier"),
        *(one for ranks in RANKS["arrays"] for one in array_compared(ranks)),
    ]
    return [
        Figure(one.row, medians[f"{OURS}: {one.row}"], one.limit, medians[one.peer], one.peer_name)
        for one in wanted
        if f"{OURS}: {one.row}" in medians and one.peer in medians
    ]


def most_table(medians: Mapping[str, float]) -> str:
    """Return what has no limit: each collective of ours among the most ranks."""
    ending = of_ranks("", MOST)
    rows = [
        [name.removeprefix(f"{OURS}: ").removesuffix(ending), seconds(took)]
        for name, took in medians.items()
        if name.endswith(ending)
    ]
    return text_table((f"{MOST} ranks, a small object", "its time"), rows)


# Saying


def main() -> None:
    options = parse_rank_arguments(figure_arguments(__doc__, rounds=7))
    facts = facts_of(options.cpus)
    os.sched_setaffinity(0, options.cpus)  # what this process starts inherits it, on every side
    print("\n".join(f"{name}: {value}" for name, value in (machine() | facts).items()), end="\n\n")
    with tempfile.TemporaryDirectory(prefix="klyng-benchmark-") as folder:
        samples = measure_all(find_mpiexec(), build_limits(folder), options)
    medians = {name: median(values) for name, values in samples.items()}
    print(most_table(medians), end="\n\n")
    publish(figures_of(medians), samples, options.json, facts)
    if not options.no_charts:
        draw_charts(lambda: draw(medians, options), options.output)


def draw(medians: Mapping[str, float], options: argparse.Namespace) -> list[Path]:
    from collectives_charts import draw as draw_bars

    return draw_bars(medians, figures_of(medians), options.rounds, options.output)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmarks/collectives.py: {error}")
