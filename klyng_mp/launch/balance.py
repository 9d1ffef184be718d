"""What was sent to a rank against what it took: how messages that nobody received are noticed.

Layer: launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["count_unreceived", "describe_unreceived"]


def count_unreceived(reports: Mapping[int, tuple[dict[int, int], int]]) -> dict[int, int]:
    """Return how many messages each rank has left, for ranks that have left some.

    Args:
        reports: of every rank, how many messages it sent to whom and how many it took.
    """
    surplus = {rank: -taken for rank, (_, taken) in reports.items()}
    for sent, _ in reports.values():
        for dest, count in sent.items():
            surplus[dest] += count
    return {rank: count for rank, count in surplus.items() if count > 0}


def describe_unreceived(rank: int, count: int, first: tuple[int, int | str] | None) -> str:
    """Say how many messages a rank left, and the (source, tag) of the first where that is known."""
    text = f"rank {rank} ended with {count} unreceived message{'s' if count > 1 else ''}"
    return text if first is None else f"{text}, first: source {first[0]}, tag {first[1]!r}"
