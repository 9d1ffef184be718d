"""The charts of ``run.py``: one PNG for each task and metric, a group of bars for each number of ranks.

A bar is a median with its value above it, and its whisker reaches from the fastest to the slowest
iteration. In a chart of RTET the pale foot of a bar is the run at size 0, so the full colour above it is
the net time that is judged. Rows that were run at another size than the C program are left out: their
times say nothing beside the others. What the charts of other scripts have in common with these is at the end.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from common import seconds
from series import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from series import Results, Series
    from task import Task

__all__ = ["COLOURS", "GROUP", "INK", "OTHER_COLOUR", "draw", "plain", "save", "titled"]

LABELS = {
    "klyng": "klyng_mp, C kernel",
    "mpi": "C with MPI",
    "numba": "klyng_mp, numba",
    "plain": "klyng_mp, plain Python",
}
COLOURS = {"klyng": "#0b6bcb", "mpi": "#d9730d", "numba": "#2e8b57", "plain": "#8a5fbf"}
OTHER_COLOUR = "#6e7781"
INK, FAINT = "#24292f", "#8c959f"
HEIGHT = 4.6  # inches
GROUP = 0.8  # how much of the space between two groups the bars of one take


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every task and metric of `results` into `folder`; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return [draw_one(results, task, metric, folder) for task in results.tasks for metric in results.metrics]


def draw_one(results: Results, task: Task, metric: str, folder: Path) -> Path:
    """Draw one chart."""
    comparable = [one for one in results.of_task(task) if one.size == common_size(results, task)]
    iterations = len(comparable[0].rtet)
    subtitle = f"{METRICS[metric]}. {task.work(comparable[0].size)}, median and range of {iterations}."
    figure = titled(task.title, subtitle)
    axes = figure.add_axes((0.085, 0.075, 0.895, 0.695))
    draw_bars(axes, comparable, metric)
    decorate(axes, sorted({one.count for one in comparable}))
    return save(figure, folder / f"{task.name}_{metric}.png")


def common_size(results: Results, task: Task) -> int:
    """Return the size whose rows can be compared: the C program's, else the largest."""
    series = results.of_task(task)
    return next((one.size for one in series if one.row == "mpi"), max(one.size for one in series))


def draw_bars(axes: Any, series: list[Series], metric: str) -> None:
    """Draw the bars of every row, side by side at each number of ranks."""
    rows = list(dict.fromkeys(one.row for one in series))
    places = {count: place for place, count in enumerate(sorted({one.count for one in series}))}
    width = GROUP / len(rows)
    for index, row in enumerate(rows):
        mine = [one for one in series if one.row == row]
        left = [places[one.count] - GROUP / 2 + (index + 0.5) * width for one in mine]
        draw_row(axes, mine, metric, left, width)
    if metric == "rtet":
        axes.bar(0, 0, color="#d0d7de", label="pale: size 0")


def draw_row(axes: Any, series: list[Series], metric: str, left: list[float], width: float) -> None:
    """Draw the bars of one row, whose middles are at `left`."""
    row = series[0].row
    colour = COLOURS.get(row, OTHER_COLOUR)
    medians = [median(one.samples(metric)) for one in series]
    below = [mid - min(one.samples(metric)) for one, mid in zip(series, medians, strict=True)]
    above = [max(one.samples(metric)) - mid for one, mid in zip(series, medians, strict=True)]
    axes.bar(left, medians, width * 0.92, color=colour, label=LABELS.get(row, f"klyng_mp, {row}"))
    if metric == "rtet":
        feet = [median(one.rtet_empty) for one in series]
        axes.bar(left, feet, width * 0.92, color="white", alpha=0.55)
    axes.errorbar(left, medians, [below, above], fmt="none", ecolor=INK, elinewidth=1, capsize=3)
    for place, mid, high in zip(left, medians, above, strict=True):
        at = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "fontsize": 8, "color": INK}
        axes.annotate(seconds(mid), (place, mid + high), **at)


def decorate(axes: Any, counts: list[int]) -> None:
    """Give the chart its scales and grid."""
    axes.set_xticks(range(len(counts)), [f"{count} rank{'s' * (count > 1)}" for count in counts])
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.set_ylabel("seconds", color=INK)
    plain(axes)


# What all charts of these benchmarks have


def titled(title: str, subtitle: str, *, width: float = 7.6) -> Any:
    """Return an empty figure, `width` inches wide, under its title; below that is the place of its legend.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, HEIGHT))
    figure.text(0.02, 0.94, title, fontsize=13, fontweight="bold", color=INK)
    figure.text(0.02, 0.885, subtitle, fontsize=8.5, color=INK)
    return figure


def plain(axes: Any) -> None:
    """Take the frame off, and lay a faint grid behind what is drawn."""
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def save(figure: Any, file: Path) -> Path:
    """Add the legend, write the figure to `file`, whose folder is made, and return it."""
    figure.legend(loc="upper left", bbox_to_anchor=(0.01, 0.875), ncols=5, frameon=False, fontsize=9.5, labelcolor=INK)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160, facecolor="white")
    return file
