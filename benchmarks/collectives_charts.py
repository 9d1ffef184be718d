"""The charts of ``collectives.py``: the time of one call, a group of bars for each collective, a panel for each World.

A bar is the median of all rounds. The scale is logarithmic, because ranks that spin on CPUs they share need a
thousand times as long as ranks that have their own. The black mark is the least of the limits of klyng_mp's bar.
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any, NamedTuple

from charts import COLOURS, GROUP, INK, OTHER_COLOUR, plain, save, titled
from collectives_peer import ARRAY_NAMES, RANKS, SIZES, SMALL_NAMES, array_row, buffer_row, of_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from common import Figure

__all__ = ["draw"]

WIDTH = 10.4  # inches
FONT = 7  # points, of the numbers in bars
BARS = 3  # at most in a group


class Bars(NamedTuple):
    """The bars of one side: their name in the legend, and how its rows are called among the medians."""

    label: str
    side: str
    colour: str
    row_of: Callable[[str], str] = str
    alpha: float = 1.0


class Chart(NamedTuple):
    """What one file shows."""

    program: str
    title: str
    subtitle: str
    rows: tuple[str, ...]
    sides: tuple[Bars, ...]


CHARTS = (
    Chart(
        "small",
        "Collectives of a small object",
        "",
        SMALL_NAMES,
        (
            Bars("klyng_mp", "klyng_mp", COLOURS["klyng"]),
            Bars("mpi4py", "mpi4py", COLOURS["mpi"]),
            Bars("bare futex barrier", "bare", OTHER_COLOUR),
        ),
    ),
    Chart(
        "arrays",
        "Collectives of arrays",
        " NumPy arrays, written before and summed after.",
        tuple(array_row(name, size) for name in ARRAY_NAMES for size in SIZES),
        (
            Bars("klyng_mp", "klyng_mp", COLOURS["klyng"]),
            Bars("mpi4py objects", "mpi4py", COLOURS["mpi"]),
            Bars("mpi4py buffers", "mpi4py", COLOURS["mpi"], buffer_row, 0.5),
        ),
    ),
)


def draw(medians: Mapping[str, float], figures: Sequence[Figure], rounds: int, folder: Path) -> list[Path]:
    """Draw both charts into `folder`; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    marks: dict[str, float] = {}
    for figure in figures:
        if figure.peer is not None:
            marks[figure.what] = min(figure.limit * figure.peer, marks.get(figure.what, float("inf")))
    files = []
    for chart in CHARTS:
        panels: list[Any] = []
        page = titled(chart.title, f"Time of one call, median of {rounds}.{chart.subtitle}", width=WIDTH)
        for place, ranks in enumerate(RANKS[chart.program]):
            axes = page.add_axes((0.055 + 0.48 * place, 0.095, 0.455, 0.62), sharey=panels[0] if panels else None)
            draw_panel(axes, chart, ranks, medians)
            draw_marks(axes, [marks.get(of_ranks(row, ranks)) for row in chart.rows])
            decorate(axes, chart.rows, ranks)
            panels.append(axes)
        scale(panels)
        files.append(save(page, folder / f"collectives_{chart.program}.png"))
    return files


def draw_panel(axes: Any, chart: Chart, ranks: int, medians: Mapping[str, float]) -> None:
    """Draw the bars of one number of ranks, side by side at each row."""
    from matplotlib.ticker import EngFormatter

    width, written = GROUP / BARS, EngFormatter("s", places=1)
    for index, side in enumerate(chart.sides):
        keys = [f"{side.side}: {of_ranks(side.row_of(row), ranks)}" for row in chart.rows]
        found = {place: medians[key] for place, key in enumerate(keys) if key in medians}
        if not found:
            continue
        middles = [place - GROUP / 2 + (index + 0.5) * width for place in found]
        label = once(axes, side.label)
        bars = axes.bar(middles, found.values(), width * 0.92, color=side.colour, alpha=side.alpha, label=label)
        for bar, took in zip(bars, found.values(), strict=True):
            # At the foot: above a bar it would be under the mark of a limit that is just met.
            at = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom", "rotation": 90}
            ink = "white" if side.alpha == 1 else INK
            foot = (bar.get_x() + bar.get_width() / 2, 0)
            across = ("data", "axes fraction")
            axes.annotate(written(took), foot, xycoords=across, fontsize=FONT, color=ink, **at)


def draw_marks(axes: Any, marks: Sequence[float | None]) -> None:
    """Draw the limit over our bar at each row that has one; ours are the first of their group."""
    found = {place - GROUP / 2: mark for place, mark in enumerate(marks) if mark is not None}
    if found:
        right = [left + GROUP / BARS for left in found]
        axes.hlines(found.values(), found.keys(), right, color="black", linewidth=2, label=once(axes, "limit"))


def once(axes: Any, label: str) -> str:
    """Return `label`, or what is left out of the legend if the page has it already."""
    labels = [found for panel in axes.figure.axes for found in panel.get_legend_handles_labels()[1]]
    return "_" if label in labels else label


def decorate(axes: Any, rows: Sequence[str], ranks: int) -> None:
    """Give a panel its title, scales and grid."""
    axes.set_title(f"{ranks} ranks", fontsize=10, color=INK)
    axes.set_xticks(range(len(rows)), [row.replace(" of ", "\n") for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.5)
    plain(axes)
    axes.tick_params(labelsize=8)


def scale(panels: Sequence[Any]) -> None:
    """Give all panels one logarithmic scale, on which the shortest bar still has room for its number."""
    from matplotlib.ticker import EngFormatter

    times = [bar.get_height() for axes in panels for bar in axes.patches]
    first, last = floor(log10(min(times) / 4)), ceil(log10(max(times) * 1.2))
    decades = [10.0**power for power in range(first, last + 1)]
    for axes in panels:
        axes.set_yscale("log")
        axes.set_ylim(decades[0], decades[-1])
        axes.set_yticks(decades, map(EngFormatter("s"), decades))
        axes.minorticks_off()
    for axes in panels[1:]:
        axes.tick_params(labelleft=False)
