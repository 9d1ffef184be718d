"""Grids: where ranks are if they are the points of one, and who their neighbours are.

Layer: communicator; numbers only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from klyng_mp.communicator.base import as_int
from klyng_mp.wire.mailbox import PROC_NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Grid", "compute_dims"]


class Grid:
    """A grid of points that are numbered through the last dimension first.

    Args:
        dims: the length of each dimension, from 1.
        periods: for each dimension, or all, whether its ends are neighbours.

    Raises:
        ValueError, TypeError: this is no grid.
    """

    __slots__ = ("dims", "periods", "size")

    def __init__(self, dims: Sequence[int], periods: Sequence[bool] | bool) -> None:
        self.dims = tuple(
            as_int("create_cart()", "dims", length, "ints, the length of each dimension") for length in dims
        )
        if any(length < 1 for length in self.dims):
            raise ValueError(f"create_cart(): each of dims must be at least 1, which {list(self.dims)} is not")
        given = (periods,) * len(self.dims) if isinstance(periods, bool) else tuple(map(bool, periods))
        if len(given) != len(self.dims):
            raise ValueError(f"create_cart(): {len(given)} periods were given for {len(self.dims)} dims")
        self.periods = given
        self.size = math.prod(self.dims)

    def coords_of(self, rank: int) -> tuple[int, ...]:
        """Return the point of a number."""
        coords = []
        for length in reversed(self.dims):
            rank, place = divmod(rank, length)
            coords.append(place)
        return tuple(reversed(coords))

    def rank_at(self, coords: Sequence[int]) -> int:
        """Return the number of a point; ValueError where there is none."""
        rank = self._find(coords)
        if rank is None:
            raise ValueError(f"the point {tuple(coords)} is beyond a grid of {self.dims} without period there")
        return rank

    def shift(self, rank: int, dimension: int, displacement: int) -> tuple[int, int]:
        """Return who is so far before a point in a dimension, and who after it, or PROC_NULL."""
        if not 0 <= dimension < len(self.dims):
            raise ValueError(f"shift(): dimension must be from 0 to {len(self.dims) - 1}, not {dimension}")
        coords = list(self.coords_of(rank))
        found = []
        for step in (-displacement, displacement):
            moved = [*coords[:dimension], coords[dimension] + step, *coords[dimension + 1 :]]
            other = self._find(moved)
            found.append(PROC_NULL if other is None else other)
        return found[0], found[1]

    def slice_of(self, rank: int, keep: Sequence[bool]) -> tuple[int, int, Grid]:
        """Return the number of the slice that a point is in, its number there, and the slice's grid."""
        if len(keep) != len(self.dims):
            raise ValueError(f"sub(): {len(keep)} were given of {len(self.dims)} dimensions")
        sides = list(zip(self.coords_of(rank), self.dims, self.periods, keep, strict=True))
        color = key = 0
        for place, length, _, kept in sides:
            color, key = (color, key * length + place) if kept else (color * length + place, key)
        dims = [length for _, length, _, kept in sides if kept]
        return color, key, Grid(dims, [period for _, _, period, kept in sides if kept])

    def _find(self, coords: Sequence[int]) -> int | None:
        if len(coords) != len(self.dims):
            raise ValueError(f"a point of this grid has {len(self.dims)} coordinates, not {len(coords)}")
        rank = 0
        for place, length, period in zip(coords, self.dims, self.periods, strict=True):
            if not period and not 0 <= place < length:
                return None
            rank = rank * length + place % length
        return rank

    def __repr__(self) -> str:
        return f"Grid({list(self.dims)}, {list(self.periods)})"


def compute_dims(size: int, dimensions: int) -> list[int]:
    """Return the lengths of a grid of ``size`` points, as near to each other as can be, the longest first.

    Raises:
        ValueError: one of the numbers is below 1.
    """
    if size < 1 or dimensions < 1:
        raise ValueError(f"compute_dims() needs numbers from 1, not {size} and {dimensions}")
    return list(_best(size, dimensions, size))


def _best(size: int, dimensions: int, longest: int) -> tuple[int, ...]:
    """Return the lengths, none above ``longest``, whose longest is shortest; () where there are none."""
    if dimensions == 1:
        return (size,) if size <= longest else ()
    first = max(1, math.ceil(size ** (1 / dimensions) - 1e-9))
    for length in range(first, min(size, longest) + 1):
        if size % length == 0 and (rest := _best(size // length, dimensions - 1, length)):
            return (length, *rest)
    return ()
