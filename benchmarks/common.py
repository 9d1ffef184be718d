"""What the benchmarks share: taking turns, medians, tables, figures with a limit, a fresh environment.

A figure is a ratio to a peer that was measured in the same minutes: every round runs ours and the peer's
one after the other, the next round the other way round, and medians are compared. So a machine that
gets slower or warmer during a measurement changes both sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "KIB",
    "MIB",
    "REPOSITORY",
    "BenchmarkError",
    "Figure",
    "alternate",
    "bare_limit",
    "binary",
    "build_limits",
    "collect",
    "cpus_of",
    "draw_charts",
    "environment",
    "facts_of",
    "figure_arguments",
    "find_mpiexec",
    "find_program",
    "klyng_command",
    "machine",
    "markdown_table",
    "median",
    "mpi_report",
    "parse_rank_arguments",
    "publish",
    "run_command",
    "seconds",
    "summary",
    "text_table",
    "wall_time",
]

REPOSITORY = Path(__file__).resolve().parent.parent
KIB, MIB = 1 << 10, 1 << 20
COMMAND_TIMEOUT = 600.0  # seconds; the longest task takes a few, so more is a hang

median = statistics.median
Reading = TypeVar("Reading")


class BenchmarkError(Exception):
    """A measured program failed or did not do its work: a time of it would mean nothing."""


class Figure(NamedTuple):
    """One measured quantity beside its peer or its limit."""

    what: str
    ours: float  # in `unit`
    limit: float  # a ratio where there is a peer, else in `unit`
    peer: float | None = None  # in `unit`
    peer_name: str = ""
    unit: str = "seconds"  # or "bytes", or "messages"

    @property
    def ratio(self) -> float | None:
        """Ours to the peer's, if there is one."""
        return self.ours / self.peer if self.peer else None

    @property
    def met(self) -> bool:
        """Whether the ratio, or else our time, is within the limit."""
        ratio = self.ratio
        return (self.ours if ratio is None else ratio) <= self.limit

    def cells(self) -> list[str]:
        """Return the row of the table: what, ours, peer, its time, ratio, limit, verdict."""
        verdict = "ok" if self.met else "MISSED"
        show = {"bytes": binary, "messages": "{:g}".format}.get(self.unit, seconds)
        if self.peer is None or self.ratio is None:
            return [self.what, show(self.ours), "-", "-", "-", show(self.limit), verdict]
        ratio, limit = f"{self.ratio:.3f} x", f"{self.limit} x"
        return [self.what, show(self.ours), self.peer_name, show(self.peer), ratio, limit, verdict]


FIGURE_HEADER = ("what", "ours", "peer", "its time", "ratio", "at most", "")


# Measuring


def alternate(
    measures: Mapping[str, Callable[[], Reading]],
    rounds: int,
    *,
    warmup: int = 1,
    progress: bool = True,
    rest: float = 0.0,
) -> dict[str, list[Reading]]:
    """Call every measure once a round, in turn forwards and backwards; return the readings of each by name.

    A reading mostly is a number of seconds; a measure of several rows returns them all.

    Before each call the machine is left alone for ``rest`` seconds, so that what one measure still does in the
    background is not charged to the next.
    """
    samples: dict[str, list[Reading]] = {name: [] for name in measures}
    names = list(measures)
    for index in range(-warmup, rounds):
        if progress and sys.stderr.isatty():
            print(f"\rround {max(index + 1, 0)} of {rounds} ", end="", file=sys.stderr, flush=True)
        for name in names if index % 2 else reversed(names):
            time.sleep(rest)
            reading = measures[name]()
            if index >= 0:
                samples[name].append(reading)
    if progress and sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    return samples


def run_command(
    command: Sequence[str], *, cwd: str | Path | None = None, timeout: float = COMMAND_TIMEOUT
) -> tuple[float, str]:
    """Run `command` to its end; return the seconds that it took and what it printed.

    Raises:
        BenchmarkError: it failed or did not end; with what it printed.
    """
    env = environment()
    quiet = subprocess.DEVNULL
    started = time.perf_counter()
    try:
        done = subprocess.run(command, check=False, stdin=quiet, capture_output=True, timeout=timeout, env=env, cwd=cwd)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{' '.join(command)} did not end in {timeout:.0f} s") from error
    took = time.perf_counter() - started
    if done.returncode:
        printed = (done.stdout + done.stderr).decode(errors="replace")
        raise BenchmarkError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{printed}")
    return took, done.stdout.decode()


def wall_time(command: Sequence[str]) -> Callable[[], float]:
    """Return a measure: the seconds from starting `command` until it has ended."""
    return lambda: run_command(command)[0]


def environment() -> dict[str, str]:
    """Return the environment of measured programs: ours, with this checkout's klyng_mp first on the path.

    They may write bytecode, as installing them would: else what is imported is compiled within the clock. The last
    four are for Open MPI, which otherwise refuses to run as root or with more ranks than cores.
    """
    path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": os.pathsep.join(path),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }


def find_program(name: str) -> str | None:
    """Return where `name` is: beside the running Python first (a wheel's), else on PATH (the system's)."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return beside or shutil.which(name)


def klyng_command(count: int, *program: str) -> list[str]:
    """Return the command that runs `program` on `count` ranks: the installed one, else the module."""
    installed = shutil.which("klyng-mp", path=str(Path(sys.executable).parent))
    start = [installed] if installed else [sys.executable, "-m", "klyng_mp"]
    return [*start, "run", "-n", str(count), *program]


# Saying


def seconds(value: float) -> str:
    """Return a time with four digits in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(value) >= factor or unit == "us":
            scaled = value / factor
            return f"{scaled:.{max(0, 3 - len(str(int(abs(scaled)))) + 1)}f} {unit}"
    raise AssertionError("unreachable")


def binary(size: float) -> str:
    """Return a number of bytes in the largest of B, KiB, MiB and GiB of which there is at least one."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Return min, median, mean and max."""
    return {
        "min": min(samples),
        "median": statistics.median(samples),
        "mean": statistics.fmean(samples),
        "max": max(samples),
    }


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table for the terminal: the first column left, the others right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the same table in Markdown."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def machine() -> dict[str, str]:
    """Return what the times depend on: processor, system, and the versions of all that is compared."""
    cpus = len(os.sched_getaffinity(0))
    facts = {
        "processor": f"{processor_name()}, {cpus} usable CPU{'s' * (cpus != 1)}",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    for package in ("klyng_mp", "mpi4py", "mpich", "numpy", "numba"):
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return facts


def processor_name() -> str:
    """Return the processor's name as Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# The scripts of figures


def figure_arguments(docstring: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return the parser that every script of figures starts from."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=rounds, metavar="N", help="alternating rounds (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures and every sample to FILE")
    return parser


def publish(
    figures: Sequence[Figure],
    samples: Mapping[str, Sequence[float]],
    json_file: Path | None,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Print the figures as a table and write them, with the samples that they stand on, to `json_file`.

    `facts` are what these figures depend on beside the machine.
    """
    print(text_table(FIGURE_HEADER, [figure.cells() for figure in figures]))
    if json_file is None:
        return
    record: dict[str, Any] = {
        "machine": {**machine(), **(facts or {})},
        "figures": [{**figure._asdict(), "ratio": figure.ratio, "met": figure.met} for figure in figures],
        "samples": dict(samples),
    }
    json_file.write_text(json.dumps(record, indent=1) + "\n")


# The scripts in which ranks of several kinds take turns


def parse_rank_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add to `parser` what all these scripts take, and return what the command line says."""
    results = REPOSITORY / "benchmarks" / "results"
    add = parser.add_argument
    add("--output", type=Path, default=results, metavar="DIR", help="charts (default: benchmarks/results)")
    add("--no-charts", action="store_true", help="draw no charts")
    add("--cpus", type=cpus_of, metavar="A,B", help="the CPUs that all ranks share (default: the first two usable)")
    add("--quick", action="store_true", help="few calls and sizes: whether it works, not how fast")
    options = parser.parse_args()
    options.cpus = options.cpus or sorted(os.sched_getaffinity(0))[:2]
    if len(options.cpus) < 2 and not options.quick:
        parser.error("two CPUs are needed: on one, a peer that spins takes milliseconds a message, and hours in all")
    return options


def cpus_of(text: str) -> list[int]:
    """Return two different numbers of CPUs."""
    first, second = map(int, text.split(","))
    if first == second:
        raise argparse.ArgumentTypeError(f"{text} is one CPU, and two are shared")
    return [first, second]


def facts_of(cpus: Sequence[int]) -> dict[str, str]:
    """Return what the figures depend on beside the machine's name: CPUs, pages, nodes, the ranks' places."""
    nodes = len([folder for folder in Path("/sys/devices/system/node").glob("node*") if folder.name[4:].isdigit()])
    return {
        "cpus": f"{os.cpu_count()}, of which {len(os.sched_getaffinity(0))} usable",
        "page size": binary(os.sysconf("SC_PAGE_SIZE")),
        "NUMA nodes": str(nodes or "not told"),
        "placement": f"ranks of all sides may use CPU {' and '.join(map(str, cpus))}, and none is pinned by us to one",
    }


def find_mpiexec() -> str | None:
    """Return the peer's launcher, or None, having said so."""
    mpiexec = find_program("mpiexec")
    if mpiexec is None or find_spec("mpi4py") is None:
        print("no mpiexec or no mpi4py here: the rows that have it as their peer are left out\n")
        return None
    return mpiexec


def mpi_report(command: Sequence[str], *, timeout: float) -> Any:
    """Run the peer's program under its launcher; return what its rank 0 reports, a line "report" and JSON.

    Raises:
        BenchmarkError: it failed, or there was not one report.
    """
    _, printed = run_command(command, timeout=timeout)
    reports = [line.partition("report ")[2] for line in printed.splitlines() if line.startswith("report ")]
    if len(reports) != 1:
        raise BenchmarkError(f"{' '.join(command)}: expected one report, of rank 0, got {len(reports)}:\n{printed}")
    return json.loads(reports[0])


def build_limits(folder: str) -> Path | None:
    """Compile the bare limits into `folder`, or return None, having said so."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("no C compiler (cc, gcc, clang) here: the bare limits, and the row beside one, are left out\n")
        return None
    program = Path(folder, "limits")
    source = REPOSITORY / "benchmarks" / "bare" / "limits.c"
    run_command([compiler, "-O2", "-std=gnu11", str(source), "-o", str(program)])
    return program


def bare_limit(program: Path, *words: object, timeout: float) -> float:
    """Return what the program of `build_limits` says to `words`, in seconds."""
    return float(run_command([str(program), *map(str, words)], timeout=timeout)[1])


def collect(samples: dict[str, list[float]], readings: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Add the rows of each side's readings to the samples, under "side: row"."""
    for side, rounds in readings.items():
        for rows in rounds:
            for row, value in rows.items():
                samples.setdefault(f"{side}: {row}", []).append(value)


def draw_charts(draw: Callable[[], Sequence[Path]], folder: Path) -> None:
    """Let `draw` make its charts, and say where they are, or that matplotlib is missing."""
    try:
        files = draw()
    except ImportError as error:
        print(f"\nno charts ({error}): pip install matplotlib")
        return
    print(f"\ncharts in {folder}: {', '.join(file.name for file in files)}")
