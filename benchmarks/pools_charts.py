"""The chart of ``pools.py``: how many times faster than multiprocessing each side is, a group of bars for each row.

The scale is logarithmic and begins at a tie, the line at 1: what goes up is faster than multiprocessing, what goes down
is slower. Multiprocessing itself is that line, and has no bar.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Any

from charts import COLOURS, GROUP, INK, OTHER_COLOUR, plain, save, titled
from pools_peer import ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["draw"]

STANDARD = "multiprocessing"
TICKS = (0.01, 0.1, 1, 10, 100)
STYLES = {
    "klyng_mp": COLOURS["klyng"],
    "multiprocess": "#2e8b57",
    "loky": COLOURS["mpi"],
    "concurrent.futures": "#8a5fbf",
}


def draw(medians: Mapping[str, float], sides: Sequence[str], rounds: int, file: Path) -> list[Path]:
    """Draw the chart into `file`; return it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = [row for row in ROWS if f"{STANDARD}: {row}" in medians]
    figure = titled(
        "Pools and queues", f"Times faster than {STANDARD}, of medians of {rounds}; below 1 is slower.", width=11.0
    )
    axes = figure.add_axes((0.06, 0.17, 0.925, 0.60))
    others = [side for side in sides if side in STYLES]
    width = GROUP / max(1, len(others))
    for index, side in enumerate(others):
        draw_side(axes, medians, rows, side, (index * width - GROUP / 2 + width / 2, width))
    axes.set_yscale("log")
    axes.axhline(1.0, color=INK, linewidth=1)
    axes.set_xticks(range(len(rows)), [fill(row, 18) for row in rows])
    axes.margins(y=0.12)
    lowest, highest = axes.get_ylim()
    axes.set_yticks([tick for tick in TICKS if lowest <= tick <= highest], minor=False)
    axes.yaxis.set_major_formatter(lambda tick, _place: f"{tick:g}")
    axes.minorticks_off()
    axes.set_ylabel("times faster", color=INK)
    plain(axes)
    axes.tick_params(axis="x", labelsize=7.5)
    return [save(figure, file)]


def draw_side(
    axes: Any, medians: Mapping[str, float], rows: Sequence[str], side: str, where: tuple[float, float]
) -> None:
    """Draw the bars of one side; `where` says how far from the middle of a group, and how wide."""
    left, width = where
    places = [place for place, row in enumerate(rows) if f"{side}: {row}" in medians]
    ratios = [medians[f"{STANDARD}: {rows[place]}"] / medians[f"{side}: {rows[place]}"] for place in places]
    heights = [ratio - 1 for ratio in ratios]
    axes.bar(
        [place + left for place in places], heights, width * 0.92, 1.0, color=STYLES.get(side, OTHER_COLOUR), label=side
    )
    for place, ratio in zip(places, ratios, strict=True):
        at = {"xytext": (0, 3 if ratio >= 1 else -9), "textcoords": "offset points", "ha": "center", "fontsize": 7}
        axes.annotate(f"{ratio:.2g}", (place + left, ratio), color=INK, **at)
