"""What does a message between two ranks of one host cost, beside mpi4py, a pipe and the bare machine?

Every figure is the median of alternating rounds; a round of ours is one World, one of mpi4py's one mpiexec, and
the clock runs inside, between ranks that are warm:

    python benchmarks/messaging.py [--rounds N] [--json FILE] [--output DIR] [--no-charts] [--cpus A,B] [--quick]

* two ranks, objects to and fro: at most 0.75 of mpi4py's send and recv up to 64 KiB; for NumPy arrays of 1 and
  16 MiB 0.15 of that, and 1.0 of its Send and Recv into a ready buffer;
* an array of 16 MiB into a ready buffer (``recv_into``): at most 0.8 of mpi4py's Send and Recv; one that is given away
  (``empty``, ``move=True``): 0.6 of that, and the send itself, of memory that was not just written, 20 us;
* one hop of a ring of 8 on two CPUs: at most 2.5 bare hops (an eventfd a process, in C), 0.02 of mpi4py's;
* one message of a stream of small integers, and 16 ranks on two CPUs that each send to all others and receive from
  all, 20 times: at most 0.5 of mpi4py's isend and recv;
* the shared memory that a World(64) has touched when it has done nothing: at most 8 MiB.

What the ranks do is in ``messaging_peer.py``. Beside it are printed, without a limit: the same to and fro over a
``multiprocessing.Pipe``, and what the machine takes for copying, for a hop and for a cache line
(``bare/limits.c``). Two charts, latency and bandwidth from 1 B to 64 MiB, go to --output.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common import (
    KIB,
    MIB,
    REPOSITORY,
    BenchmarkError,
    Figure,
    alternate,
    bare_limit,
    binary,
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
from messaging_peer import RANKS, PipeComm, bounce_all, buffer_row, gift_row, into_row, measure, sizes

sys.path.insert(1, str(REPOSITORY))  # this checkout's klyng_mp, as in programs that the peers start
import klyng_mp

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection

    Rows = dict[str, float]

__all__ = ["main"]

OBJECT_LIMIT = 0.75
ARRAY_LIMIT = 0.15
BUFFER_LIMIT = 1.0
INTO_LIMIT = 0.8
GIFT_LIMIT = 0.6
GIVING_LIMIT = 20e-6  # seconds
RING_BARE_LIMIT = 2.5
RING_LIMIT = 0.02
STREAM_LIMIT = 0.5
EXCHANGE_LIMIT = 0.5
IDLE_LIMIT = 8 * MIB

IDLE_RANKS = 64
TIMEOUT = 120.0  # seconds for one round of anything; each takes a few
HERE = Path(__file__).resolve().parent

OURS, PEER, PIPE, BARE = "klyng_mp", "mpi4py", "Pipe", "bare"
SMALL_ROWS = ("small int", "small dict", binary(KIB), "64 KiB bytes")
LARGE_ROWS = (MIB, 16 * MIB)
BARE_ROWS = {
    "memcpy": "memcpy of 16 MiB",
    "hop of 2": "eventfd hop between 2 processes",
    "hop of 8": "eventfd hop round 8 processes",
    "line": "cache line to the other CPU and back",
}


# Measuring


def act(program: str, *, quick: bool) -> Rows:
    """Be a rank of ours."""
    return measure(klyng_mp.comm(), klyng_mp.waitall, program, quick=quick, empty=klyng_mp.empty)


def ours(program: str, *, quick: bool) -> Rows:
    """Run `program` in a World of its own."""
    with klyng_mp.World(RANKS[program]) as world:
        return world.start(act, program, quick=quick).result(timeout=TIMEOUT)[0]


def peers(mpiexec: str, program: str, *, quick: bool) -> Rows:
    """Run `program` in an mpiexec of its own."""
    script = [str(HERE / "messaging_peer.py"), program, *["--quick"] * quick]
    return mpi_report([mpiexec, "-n", str(RANKS[program]), sys.executable, *script], timeout=TIMEOUT)


def pipes(*, quick: bool) -> Rows:
    """Send to and fro between this process and a fork of it, over a pipe."""
    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe()
    process = context.Process(target=answer, args=(mine, other, quick), daemon=True)
    process.start()
    other.close()  # so that the end of the other process is the end of the pipe
    with mine:
        rows = bounce_all(PipeComm(mine, 0), quick=quick)
    process.join()
    return rows


def answer(mine: Connection, other: Connection, quick: bool) -> None:
    """Be the other process of `pipes`."""
    mine.close()
    bounce_all(PipeComm(other, 1), quick=quick)


def bare_limits(program: Path, cpus: Sequence[int], *, quick: bool) -> Rows:
    """Measure what the machine takes; a cache line has a round trip only where there are two CPUs."""
    few = 100 if quick else 1

    def limit(*words: object) -> float:
        return bare_limit(program, *words, timeout=TIMEOUT)

    rows = {
        "memcpy": limit("memcpy", 16 * MIB, max(1, 20 // few)),
        "hop of 2": limit("hop", 2, 10_000 // few),
        "hop of 8": limit("hop", 8, 2_000 // few),
    }
    if len(cpus) > 1:
        rows["line"] = limit("line", 100_000 // few, *cpus)
    return rows


def idle_memory() -> Rows:
    """Return how much shared memory a World has touched whose ranks have only started, and told who they are."""
    with klyng_mp.World(IDLE_RANKS) as world:
        allocated: dict[tuple[int, int], int] = {}
        for pid in world.run(os.getpid):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(link).startswith("/memfd:klyng_mp"):
                    status = link.stat()
                    allocated[status.st_dev, status.st_ino] = status.st_blocks * 512
        return {"idle": float(sum(allocated.values()))} if allocated else {}


def measure_all(mpiexec: str | None, limits: Path | None, options: argparse.Namespace) -> dict[str, list[float]]:
    """Let all sides take their turns; return the samples of every row, named "side: row"."""
    quick = options.quick
    samples: dict[str, list[float]] = {}
    for program in RANKS:
        sides: dict[str, Callable[[], Rows]] = {OURS: lambda program=program: ours(program, quick=quick)}
        if mpiexec is not None:
            sides[PEER] = lambda program=program: peers(mpiexec, program, quick=quick)
        if program == "pair":
            sides[PIPE] = lambda: pipes(quick=quick)
        if program == "ring" and limits is not None:
            sides[BARE] = lambda: bare_limits(limits, options.cpus, quick=quick)
        collect(samples, alternate(sides, options.rounds, warmup=0))
    collect(samples, {OURS: [idle_memory()]})
    return samples


# Judging


def figures_of(medians: Mapping[str, float]) -> list[Figure]:
    """Return every figure of which both sides were measured."""

    def compare(what: str, limit: float, row: str, side: str, peer_row: str, peer_name: str) -> list[Figure]:
        mine, its = medians.get(f"{OURS}: {row}"), medians.get(f"{side}: {peer_row}")
        return [] if mine is None or its is None else [Figure(what, mine, limit, its, peer_name)]

    figures = []
    for row in SMALL_ROWS:
        what = row if "bytes" in row or "small" in row else f"{row} bytes"
        figures += compare(f"2 ranks, {what}", OBJECT_LIMIT, row, PEER, row, "mpi4py send/recv")
    for size in LARGE_ROWS:
        row, what = binary(size), f"2 ranks, {binary(size)} array"
        figures += compare(what, ARRAY_LIMIT, row, PEER, row, "mpi4py send/recv")
        figures += compare(what, BUFFER_LIMIT, row, PEER, buffer_row(size), "mpi4py Send/Recv")
    largest = LARGE_ROWS[-1]
    for how, limit, row in (
        ("recv_into", INTO_LIMIT, into_row(largest)),
        ("given away", GIFT_LIMIT, gift_row(largest)),
    ):
        what = f"2 ranks, {binary(largest)} array, {how}"
        figures += compare(what, limit, row, PEER, buffer_row(largest), "mpi4py Send/Recv")
    if (giving := medians.get(f"{OURS}: giving")) is not None:
        figures.append(Figure(f"giving {binary(largest)} away, the send itself", giving, GIVING_LIMIT))
    ring = "ring of 8, a hop"
    figures += compare(ring, RING_BARE_LIMIT, "ring", BARE, "hop of 8", "bare eventfd hop")
    figures += compare(ring, RING_LIMIT, "ring", PEER, "ring", "mpi4py send/recv")
    figures += compare("stream of small ints, a message", STREAM_LIMIT, "stream", PEER, "stream", "mpi4py isend/recv")
    exchange = "16 ranks, each to all, 20 times"
    figures += compare(exchange, EXCHANGE_LIMIT, "exchange", PEER, "exchange", "mpi4py isend/recv")
    if (idle := medians.get(f"{OURS}: idle")) is not None:
        figures.append(Figure(f"idle World({IDLE_RANKS}), shared memory", idle, IDLE_LIMIT, unit="bytes"))
    return figures


def bare_table(medians: Mapping[str, float]) -> str:
    """Return what has no limit: the bare machine's times."""
    rows = [
        [what, seconds(medians[f"{BARE}: {row}"])] for row, what in BARE_ROWS.items() if f"{BARE}: {row}" in medians
    ]
    return text_table(("the bare machine", "its time"), rows)


def lines_of(medians: Mapping[str, float], *, quick: bool) -> dict[str, dict[int, float]]:
    """Return the lines of the charts: by name, the seconds of one way at each size."""
    lines: dict[str, dict[int, float]] = {}
    names = {OURS: binary, f"{PEER} objects": binary, f"{PEER} buffers": buffer_row, PIPE: binary}
    for name, row_of in names.items():
        keys = {size: f"{name.split()[0]}: {row_of(size)}" for size in sizes(quick=quick)}
        if found := {size: medians[key] for size, key in keys.items() if key in medians}:
            lines[name] = found
    return lines


def size_table(medians: Mapping[str, float], *, quick: bool) -> str:
    """Return the time of one way: the small objects by klyng_mp, mpi4py and Pipe, then every size."""
    lines = lines_of(medians, quick=quick)
    rows = []
    for row in (row for row in SMALL_ROWS if row != binary(KIB)):
        times = (medians.get(f"{name.split()[0]}: {row}") if "buffers" not in name else None for name in lines)
        rows.append([row, *("-" if took is None else seconds(took) for took in times)])
    rows += [[binary(size), *(seconds(line[size]) for line in lines.values())] for size in sizes(quick=quick)]
    return text_table(("one way", *lines), rows)


# Saying


def main() -> None:
    options = parse_rank_arguments(figure_arguments(__doc__, rounds=7))
    facts = facts_of(options.cpus)
    facts["placement"] += "; only the two processes that pass a cache line are"
    os.sched_setaffinity(0, options.cpus)  # what this process starts inherits it, on every side
    print("\n".join(f"{name}: {value}" for name, value in (machine() | facts).items()), end="\n\n")
    with tempfile.TemporaryDirectory(prefix="klyng-benchmark-") as folder:
        samples = measure_all(find_mpiexec(), build_limits(folder), options)
    medians = {name: median(values) for name, values in samples.items()}
    print(size_table(medians, quick=options.quick), end="\n\n")
    if any(name.startswith(BARE) for name in medians):
        print(bare_table(medians), end="\n\n")
    if f"{OURS}: idle" not in medians:
        print("no memory is shared here (klyng-mp doctor says why): what an idle World touches is left out\n")
    publish(figures_of(medians), samples, options.json, facts)
    if not options.no_charts:
        draw_charts(lambda: draw(medians, options), options.output)


def draw(medians: Mapping[str, float], options: argparse.Namespace) -> list[Path]:
    from messaging_charts import draw as draw_lines

    return draw_lines(lines_of(medians, quick=options.quick), options.rounds, options.output)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmarks/messaging.py: {error}")
