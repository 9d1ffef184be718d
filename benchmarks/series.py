"""The readings of ``run.py`` and what is said of them: tables, ratios to the C program, JSON.

One series is one task as one row on one number of ranks. Every iteration adds a run at the task's size
and, for RTET, one at size 0, which starts, sends the same messages, computes nothing, and ends. The
difference of their medians is the net time that is compared with the C program's.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from common import markdown_table, seconds, summary, text_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from task import Reading, Task

__all__ = ["LIMIT", "METRICS", "Results", "Series", "Verdict"]

LIMIT = 1.05  # of the C program's time, for RTET net of size 0 and for MPCT

METRICS = {
    "rtet": "RTET, wall time of the runner",
    "mpct": "MPCT, largest CPU time of a rank in the task",
}
HEADERS = {
    "rtet": ("row", "ranks", "min", "median", "mean", "max", "scaling", "size 0", "net", "net / C", ""),
    "mpct": ("row", "ranks", "min", "median", "mean", "max", "scaling", "start-up", "/ C", ""),
}
COLUMNS = {
    "rtet": "size 0: median of starting, sending and ending alone; net: median of RTET less that.",
    "mpct": "start-up: largest CPU time of a rank before the task, its imports included.",
}


class Series:
    """The readings of one task, row and number of ranks, in the order in which they were taken."""

    def __init__(self, task: Task, row: str, count: int, size: int) -> None:
        self.task, self.row, self.count, self.size = task, row, count, size
        self.rtet: list[float] = []
        self.rtet_empty: list[float] = []
        self.mpct: list[float] = []
        self.startup_cpu: list[float] = []

    def add(self, full: Reading, empty: Reading | None) -> None:
        """Add an iteration: the run at the task's size, and the one at size 0 if there was one."""
        self.rtet.append(full.rtet)
        self.mpct.append(full.mpct)
        self.startup_cpu.append(full.startup_cpu)
        if empty is not None:
            self.rtet_empty.append(empty.rtet)

    def samples(self, metric: str) -> list[float]:
        """Return the raw seconds of `metric`."""
        return self.rtet if metric == "rtet" else self.mpct

    def judged(self, metric: str) -> float:
        """Return the seconds that are compared with the C program's."""
        return median(self.mpct) if metric == "mpct" else median(self.rtet) - median(self.rtet_empty)

    def record(self) -> dict[str, Any]:
        """Return the series for JSON: every sample, in seconds."""
        return {
            "task": self.task.name,
            "row": self.row,
            "ranks": self.count,
            "size": self.size,
            "rtet": self.rtet,
            "rtet_size_0": self.rtet_empty,
            "mpct": self.mpct,
            "startup_cpu": self.startup_cpu,
        }


class Verdict(NamedTuple):
    """One judged figure: ours, the C program's, and whether their ratio is within the limit."""

    task: str
    metric: str
    ranks: int
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        """Ours to the C program's."""
        return self.ours / self.peer if self.peer > 0 else float("inf")

    @property
    def met(self) -> bool:
        """Whether the ratio is within the limit."""
        return self.ratio <= LIMIT

    def sentence(self) -> str:
        """Return what was missed, for the end of the output."""
        where = f"{self.task} {self.metric} at {self.ranks}"
        return f"{where}: {seconds(self.ours)} to {seconds(self.peer)}, {self.ratio:.3f} x"


class Results:
    """All series of one call of ``run.py``."""

    def __init__(self, series: Sequence[Series], metrics: Sequence[str]) -> None:
        self.series = [one for one in series if one.rtet]
        self.metrics = metrics
        self.tasks = list({one.task.name: one.task for one in self.series}.values())

    def of_task(self, task: Task) -> list[Series]:
        """Return the series of `task`, as they were run."""
        return [one for one in self.series if one.task == task]

    def peer_of(self, one: Series) -> Series | None:
        """Return the C program's series for the same work, if it was measured."""
        peers = [other for other in self.of_task(one.task) if other.row == "mpi"]
        return next((peer for peer in peers if (peer.count, peer.size) == (one.count, one.size)), None)

    def first_of(self, one: Series) -> Series:
        """Return the series of the same row at the first number of ranks, which scaling is relative to."""
        return next(other for other in self.of_task(one.task) if other.row == one.row)

    def verdict(self, one: Series, metric: str) -> Verdict | None:
        """Return the figure that `one` is judged by; None for the C program itself and without it."""
        peer = self.peer_of(one)
        if peer is None or one.row == "mpi":
            return None
        return Verdict(one.task.name, metric, one.count, one.judged(metric), peer.judged(metric))

    def verdicts(self) -> list[Verdict]:
        """Return all figures that have a limit: those of the row klyng."""
        found = [self.verdict(one, metric) for metric in self.metrics for one in self.series if one.row == "klyng"]
        return [verdict for verdict in found if verdict is not None]

    def cells(self, one: Series, metric: str) -> list[str]:
        """Return one row of a table."""
        numbers = summary(one.samples(metric))
        first = median(self.first_of(one).samples(metric))
        cells = [one.row, str(one.count), *map(seconds, numbers.values()), f"{first / numbers['median']:.2f} x"]
        if metric == "rtet":
            cells += [seconds(median(one.rtet_empty)), seconds(one.judged("rtet"))]
        else:
            cells += [seconds(median(one.startup_cpu))]
        verdict = self.verdict(one, metric)
        if verdict is None:
            return [*cells, "-", ""]
        return [*cells, f"{verdict.ratio:.3f} x", ("ok" if verdict.met else "MISSED") if one.row == "klyng" else ""]

    def tables(self, *, markdown: bool = False) -> str:
        """Return every table with its heading, for the terminal or in Markdown."""
        parts = []
        for task in self.tasks:
            for metric in self.metrics:
                series = self.of_task(task)
                rows = [self.cells(one, metric) for one in sorted(series, key=lambda one: one.count)]
                heading = f"{task.title}: {METRICS[metric]}"
                table = (markdown_table if markdown else text_table)(HEADERS[metric], rows)
                parts.append(f"{'### ' if markdown else ''}{heading}\n\n{table}\n\n{self.legend(task, metric)}")
        return "\n\n".join(parts)

    def legend(self, task: Task, metric: str) -> str:
        """Return what a reader of the table needs to know of its sizes and columns."""
        rows_by_size: dict[int, list[str]] = {}
        for one in self.of_task(task):
            rows = rows_by_size.setdefault(one.size, [])
            rows += [one.row] * (one.row not in rows)
        work = "; ".join(f"{', '.join(rows)}: {task.work(size)}" for size, rows in rows_by_size.items())
        iterations = len(self.of_task(task)[0].rtet)
        return f"{work}. {iterations} iterations. {COLUMNS[metric]} Limit: {LIMIT} x C."
