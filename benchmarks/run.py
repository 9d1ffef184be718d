"""Is a program on klyng_mp as fast as the same program in C with MPI?

    python benchmarks/run.py --process-counts 1 2 4 --iterations 100 --tasks pi primes --metrics rtet mpct

Every task is a folder below ``tasks/`` with one C kernel, a C program using MPI and a klyng_mp program
that call it and send the same messages, so that the frameworks are compared and not the languages.
Two metrics:

* RTET, the wall time of the runner: ``klyng-mp run -n N klyng.py`` and ``mpiexec -n N ./mpi``. Judged net
  of the same run at size 0, which starts, sends and ends but computes nothing: at most 1.05 x C.
* MPCT, the largest CPU time that a rank spends between entering and leaving the task: at most 1.05 x C.
  Start-up and imports come before, and have a column of their own.

The rows take turns within every iteration and every other iteration goes backwards, so that both meet
the same machine. Further rows are any ``klyng_<row>.py`` of a task: ``--rows klyng mpi numba plain``.
Results go to ``--output`` as JSON, Markdown, and one chart for each task and metric.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common import REPOSITORY, BenchmarkError, machine, run_command
from series import LIMIT, METRICS, Results, Series
from task import MPI, BuiltTask, Reading, build, check_answer, find_mpi, find_tasks, measure
from tqdm import tqdm  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

DEFAULT_OUTPUT = Path(__file__).resolve().parent / "results"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; names that do not exist are refused with those that do."""
    tasks = find_tasks()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--process-counts", type=positive, nargs="+", default=[1, 2, 4], metavar="N", help="default: 1 2 4")
    add("--iterations", type=positive, default=100, metavar="N", help="runs of everything (default: 100)")
    add("--tasks", nargs="+", choices=list(tasks), default=list(tasks), metavar="TASK", help=f"of {', '.join(tasks)}")
    add("--metrics", nargs="+", choices=list(METRICS), default=list(METRICS), metavar="METRIC", help="of rtet, mpct")
    add("--rows", nargs="+", default=["klyng", "mpi"], metavar="ROW", help="default: klyng mpi; also numba, plain")
    add("--no-mpi", action="store_true", help="leave the C program out")
    add("--scale", type=float, default=1.0, metavar="F", help="multiply every size by F; 0 does no work (default: 1)")
    add("--output", type=Path, default=DEFAULT_OUTPUT, metavar="DIR", help="default: benchmarks/results")
    add("--markdown", action="store_true", help="print the tables in Markdown, as DIR/run.md has them")
    options = parser.parse_args(arguments)
    for name, row in itertools.product(options.tasks, options.rows):
        source = tasks[name].source_of(row)
        if not source.exists():
            parser.error(f"the task {name} has no row {row}: there is no {source}")
    return options


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def choose_mpi(options: argparse.Namespace) -> MPI | None:
    """Return the MPI to compare with, or None, having said why and taken the row out."""
    found = None if options.no_mpi or "mpi" not in options.rows else find_mpi()
    if found is None:
        if "mpi" in options.rows and not options.no_mpi:
            print("No MPI: mpicc and mpiexec are neither beside this Python (pip install mpich) nor on PATH.")
            print("Going on without the C program, so without ratios.\n")
        options.rows = [row for row in options.rows if row != "mpi"]
    return found


def turns(series: Sequence[Series], iterations: int) -> Iterator[Series]:
    """Yield what to run next: `series` forwards, then backwards, and so on."""
    for index in range(iterations):
        yield from series if index % 2 == 0 else reversed(series)


def run_all(built: dict[str, BuiltTask], series: Sequence[Series], options: argparse.Namespace) -> None:
    """Run every series once at size 0 to warm it up, then all iterations; Ctrl-C keeps what is complete."""
    for one in tqdm(series, desc="warm-up", leave=False):
        measure(built[one.task.name], one.row, one.count, 0)
    results: dict[tuple[str, int, int], float] = {}
    with tqdm(total=len(series) * options.iterations, smoothing=0.05) as progress:
        for one in turns(series, options.iterations):
            progress.set_description(f"{one.task.name} {one.row} n={one.count}")
            full, empty = run_pair(built[one.task.name], one, with_empty="rtet" in options.metrics)
            check_answer(one.task, one.row, one.size, full.result)
            agreed = results.setdefault((one.task.name, one.count, one.size), full.result)
            if not math.isclose(agreed, full.result, rel_tol=1e-9):
                raise BenchmarkError(f"{one.task.name}, {one.row}: {full.result}, but the others have {agreed}")
            one.add(full, empty)
            progress.update()


def run_pair(built: BuiltTask, one: Series, *, with_empty: bool) -> tuple[Reading, Reading | None]:
    """Run `one` at its size and, for RTET, at size 0 right after."""
    full = measure(built, one.row, one.count, one.size)
    return full, measure(built, one.row, one.count, 0) if with_empty else None


def describe(mpi: MPI | None) -> dict[str, str]:
    """Return what the results depend on, for all their forms."""
    facts = machine() | ({"MPI": mpi.version} if mpi else {})
    with contextlib.suppress(BenchmarkError, OSError):  # a copy without its history has no commit to name
        facts["commit"] = run_command(["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"])[1].strip()
    facts["command"] = f"`{shlex.join(['python', 'benchmarks/run.py', *sys.argv[1:]])}`"
    return facts


def publish(results: Results, facts: dict[str, str], options: argparse.Namespace) -> None:
    """Print the tables and the verdict, and write JSON, Markdown and charts."""
    options.output.mkdir(parents=True, exist_ok=True)
    heading = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    markdown = f"{heading}\n\n{results.tables(markdown=True)}\n\n{conclusion(results)}\n"
    record = {"facts": facts, "series": [one.record() for one in results.series]}
    (options.output / "run.md").write_text(markdown)
    (options.output / "run.json").write_text(json.dumps(record, indent=1) + "\n")
    print(markdown if options.markdown else f"\n{heading}\n\n{results.tables()}\n\n{conclusion(results)}\n")
    written = ["run.json", "run.md"]
    try:
        from charts import draw

        written += [file.name for file in draw(results, options.output)]
    except ImportError as error:
        print(f"No charts ({error}): pip install matplotlib.", file=sys.stderr)
    print(f"Written to {options.output}: {', '.join(written)}.", file=sys.stderr)


def conclusion(results: Results) -> str:
    """Return how many figures are within their limit, and which are not."""
    verdicts = results.verdicts()
    if not verdicts:
        return "No figure is judged: the C program was not run beside ours."
    missed = [verdict for verdict in verdicts if not verdict.met]
    count = f"{len(verdicts) - len(missed)} of {len(verdicts)} figures are within {LIMIT} x C."
    return " ".join([count, *(f"MISSED: {verdict.sentence()}." for verdict in missed)])


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    mpi = choose_mpi(options)
    tasks = [find_tasks()[name] for name in options.tasks]
    series = [
        Series(task, row, count, task.size_of(row, options.scale))
        for task in tasks
        for count in options.process_counts
        for row in options.rows
    ]
    with tempfile.TemporaryDirectory(prefix="klyng-benchmark-") as folder:
        built = {task.name: build(task, mpi, Path(folder, task.name)) for task in tasks}
        try:
            run_all(built, series, options)
        except KeyboardInterrupt:
            print("\ninterrupted: what follows stands on the iterations that were complete\n")
    publish(Results(series, options.metrics), describe(mpi), options)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"benchmarks/run.py: {error}")
