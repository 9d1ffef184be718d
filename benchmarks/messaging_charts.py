"""The charts of ``messaging.py``: latency and bandwidth over the size of a message, a line for each side.

A point is the median of all rounds, of one way. Both scales of latency are logarithmic, because it spans
five decades; that of bandwidth is not, because what matters there is how much higher one line is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charts import FAINT, INK, OTHER_COLOUR
from common import binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["draw"]

GIB = 1 << 30
STYLES = {
    "klyng_mp": ("#0b6bcb", "-", "o"),
    "mpi4py objects": ("#d9730d", "-", "s"),
    "mpi4py buffers": ("#d9730d", ":", "^"),
    "Pipe": ("#2e8b57", "--", "D"),
}
OBJECTS = "Bytes; from 4 KiB NumPy arrays, written before and summed after"


def draw(lines: Mapping[str, Mapping[int, float]], rounds: int, folder: Path) -> list[Path]:
    """Draw both charts into `folder`; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bandwidth = {name: {size: size / took / GIB for size, took in line.items()} for name, line in lines.items()}
    latency = {name: {size: took * 1e6 for size, took in line.items()} for name, line in lines.items()}
    return [
        draw_one(latency, ("Latency", "microseconds", "log"), rounds, folder / "messaging_latency.png"),
        draw_one(bandwidth, ("Bandwidth", "GiB/s", "linear"), rounds, folder / "messaging_bandwidth.png"),
    ]


def draw_one(lines: Mapping[str, Mapping[int, float]], words: tuple[str, str, str], rounds: int, file: Path) -> Path:
    """Draw one chart, of the given title, unit and scale."""
    from matplotlib.figure import Figure

    title, unit, scale = words
    figure = Figure(figsize=(7.6, 4.6))
    axes = figure.add_axes((0.095, 0.075, 0.885, 0.695))
    for name, line in lines.items():
        colour, dashes, marker = STYLES.get(name, (OTHER_COLOUR, "-", "x"))
        axes.plot(line.keys(), line.values(), dashes, marker=marker, markersize=4, color=colour, label=name)
    decorate(axes, sorted({size for line in lines.values() for size in line}), unit, scale)
    subtitle = f"One way between two ranks, median of {rounds}. {OBJECTS}."
    figure.text(0.02, 0.94, f"{title} of a message", fontsize=13, fontweight="bold", color=INK)
    figure.text(0.02, 0.885, subtitle, fontsize=8.5, color=INK)
    figure.legend(loc="upper left", bbox_to_anchor=(0.01, 0.875), ncols=4, frameon=False, fontsize=9.5, labelcolor=INK)
    figure.savefig(file, dpi=160, facecolor="white")
    return file


def decorate(axes: Any, sizes: list[int], unit: str, scale: str) -> None:
    """Give the chart its scales and grid."""
    axes.set_xscale("log", base=2)
    axes.set_yscale(scale)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.set_xticks(sizes, [binary(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylabel(unit, color=INK)
    axes.tick_params(colors=INK, length=0, labelsize=8)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
