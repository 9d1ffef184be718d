"""The charts of ``messaging.py``: latency and bandwidth over the size of a message, a line for each side.

A point is the median of all rounds, of one way. Both scales of latency are logarithmic, because it spans
five decades; that of bandwidth is not, because what matters there is how much higher one line is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charts import COLOURS, INK, OTHER_COLOUR, plain, save, titled
from common import binary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["draw"]

GIB = 1 << 30
STYLES = {
    "klyng_mp": (COLOURS["klyng"], "-", "o"),
    "mpi4py objects": (COLOURS["mpi"], "-", "s"),
    "mpi4py buffers": (COLOURS["mpi"], ":", "^"),
    "Pipe": ("#2e8b57", "--", "D"),
}
OBJECTS = "Bytes; from 4 KiB NumPy arrays, written before and summed after"


def draw(lines: Mapping[str, Mapping[int, float]], rounds: int, folder: Path) -> list[Path]:
    """Draw both charts into `folder`; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    bandwidth = {name: {size: size / took / GIB for size, took in line.items()} for name, line in lines.items()}
    latency = {name: {size: took * 1e6 for size, took in line.items()} for name, line in lines.items()}
    return [
        draw_one(latency, ("Latency", "microseconds", "log"), rounds, folder / "messaging_latency.png"),
        draw_one(bandwidth, ("Bandwidth", "GiB/s", "linear"), rounds, folder / "messaging_bandwidth.png"),
    ]


def draw_one(lines: Mapping[str, Mapping[int, float]], words: tuple[str, str, str], rounds: int, file: Path) -> Path:
    """Draw one chart, of the given title, unit and scale."""
    title, unit, scale = words
    figure = titled(f"{title} of a message", f"One way between two ranks, median of {rounds}. {OBJECTS}.")
    axes = figure.add_axes((0.095, 0.075, 0.885, 0.695))
    for name, line in lines.items():
        colour, dashes, marker = STYLES.get(name, (OTHER_COLOUR, "-", "x"))
        axes.plot(line.keys(), line.values(), dashes, marker=marker, markersize=4, color=colour, label=name)
    decorate(axes, sorted({size for line in lines.values() for size in line}), unit, scale)
    return save(figure, file)


def decorate(axes: Any, sizes: list[int], unit: str, scale: str) -> None:
    """Give the chart its scales and grid."""
    axes.set_xscale("log", base=2)
    axes.set_yscale(scale)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.set_xticks(sizes, [binary(size) for size in sizes])
    axes.minorticks_off()
    axes.set_ylabel(unit, color=INK)
    plain(axes)
    axes.tick_params(labelsize=8)
