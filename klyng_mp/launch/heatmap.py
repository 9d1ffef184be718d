"""The picture of who waits for whom, and of what goes from whom to whom.

Layer: launch; draws with matplotlib, which klyng_mp does without elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.launch.outfile import write_whole
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.statistics import RankStatistics

__all__ = ["NEEDS_MATPLOTLIB", "can_draw", "save_heat_map"]

NEEDS_MATPLOTLIB = "a heat map needs matplotlib: pip install 'klyng_mp[plot]'"

_LARGEST_WITH_NUMBERS = 16  # ranks


def can_draw() -> bool:
    """Whether matplotlib is installed; it is not imported."""
    from importlib.util import find_spec  # noqa: PLC0415 - who draws nothing need not wait for it

    return find_spec("matplotlib") is not None


def save_heat_map(ranks: Sequence[RankStatistics], path: str) -> None:
    """Write a PNG with two heat maps: seconds that the row's rank waited for the column's, and bytes sent to it.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    if not can_draw():
        raise ImportError(NEEDS_MATPLOTLIB)
    from io import BytesIO  # noqa: PLC0415 - only who draws needs it

    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - slow to import, and optional
    from matplotlib.figure import Figure  # noqa: PLC0415 - not pyplot, which has state that is the program's

    side = min(12.0, 3.5 + 0.3 * len(ranks))
    figure = Figure(figsize=(2 * side, side), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw(left, ranks, lambda one: one.waiting_on, "waiting (seconds)", "waited for")
    _draw(right, ranks, lambda one: one.bytes, "messages (bytes)", "sent to")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_whole(path, [picture.getvalue()])


def _draw(
    axes: Any,
    ranks: Sequence[RankStatistics],
    counts: Callable[[RankStatistics], dict[int, Any]],
    title: str,
    column: str,
) -> None:
    numbers = [one.rank for one in ranks]
    columns = numbers + [ANY_SOURCE] * any(ANY_SOURCE in counts(one) for one in ranks)
    cells = [[float(counts(one).get(number, 0)) for number in columns] for one in ranks]
    image = axes.imshow(cells, cmap="viridis", vmin=0, aspect="equal")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set(title=title, xlabel=column, ylabel="rank")
    if len(numbers) <= _LARGEST_WITH_NUMBERS:
        names = ["any" if number == ANY_SOURCE else str(number) for number in columns]
        axes.set_xticks(range(len(columns)), names)
        axes.set_yticks(range(len(numbers)), numbers)
        largest = max((max(row) for row in cells), default=0.0)
        for row, values in enumerate(cells):
            for place, value in enumerate(values):
                if value:
                    shade = "black" if value > largest / 2 else "white"
                    axes.text(place, row, f"{value:.3g}", ha="center", va="center", color=shade, fontsize=8)
