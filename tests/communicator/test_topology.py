"""Grids: points and numbers, neighbours, slices, and dimensions that are computed."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.communicator.topology import Grid, compute_dims
from klyng_mp.wire.mailbox import PROC_NULL

sides = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=0, max_size=4)


def made(drawn):
    return Grid([length for length, _ in drawn], [period for _, period in drawn])


@given(sides)
def test_points_are_numbered_through_the_last_dimension_first(drawn):
    grid = made(drawn)
    points = list(product(*(range(length) for length, _ in drawn)))
    assert grid.size == len(points)
    assert [grid.coords_of(rank) for rank in range(grid.size)] == points
    assert [grid.rank_at(point) for point in points] == list(range(grid.size))


@given(sides.filter(bool), st.data())
def test_a_shift_names_who_is_before_and_after(drawn, data):
    grid = made(drawn)
    rank = data.draw(st.integers(0, grid.size - 1))
    dimension = data.draw(st.integers(0, len(drawn) - 1))
    step = data.draw(st.integers(-5, 5))
    length, period = drawn[dimension]

    def moved(distance):
        coords = list(grid.coords_of(rank))
        coords[dimension] += distance
        if not period and not 0 <= coords[dimension] < length:
            return PROC_NULL
        coords[dimension] %= length
        return grid.rank_at(coords)

    assert grid.shift(rank, dimension, step) == (moved(-step), moved(step))


@given(sides, st.data())
def test_slices_are_the_points_that_agree_in_what_is_dropped(drawn, data):
    grid = made(drawn)
    keep = data.draw(st.lists(st.booleans(), min_size=len(drawn), max_size=len(drawn)))
    slices = {}
    for rank in range(grid.size):
        color, key, part = grid.slice_of(rank, keep)
        coords = grid.coords_of(rank)
        kept = tuple(place for place, wanted in zip(coords, keep, strict=True) if wanted)
        dropped = tuple(place for place, wanted in zip(coords, keep, strict=True) if not wanted)
        assert part.dims == tuple(length for (length, _), wanted in zip(drawn, keep, strict=True) if wanted)
        assert part.periods == tuple(period for (_, period), wanted in zip(drawn, keep, strict=True) if wanted)
        assert part.coords_of(key) == kept
        slices.setdefault(color, set()).add(dropped)
    assert all(len(points) == 1 for points in slices.values())
    assert len(slices) == len({point for points in slices.values() for point in points})


def test_one_period_is_for_all_dimensions():
    assert Grid([2, 3], True).periods == (True, True)
    assert Grid([2, 3], False).periods == (False, False)
    assert repr(Grid([2, 3], True)) == "Grid([2, 3], [True, True])"


@pytest.mark.parametrize(
    ("dims", "periods", "error", "text"),
    [
        ([2, 0], False, ValueError, "must be at least 1"),
        ([-1], False, ValueError, "must be at least 1"),
        ([2, 2], [True], ValueError, "1 periods were given for 2 dims"),
        ([1.5], False, TypeError, "dims must be ints"),
        (["2"], False, TypeError, "dims must be ints"),
        ([True], False, TypeError, "dims must be ints"),
    ],
)
def test_what_is_no_grid_is_refused(dims, periods, error, text):
    with pytest.raises(error, match=text):
        Grid(dims, periods)


def test_points_that_are_not_there_are_refused():
    grid = Grid([2, 3], [False, True])
    assert grid.rank_at([1, 4]) == grid.rank_at([1, 1])
    for coords in ([2, 0], [-1, 0]):
        with pytest.raises(ValueError, match="beyond a grid"):
            grid.rank_at(coords)
    with pytest.raises(ValueError, match="2 coordinates, not 1"):
        grid.rank_at([1])
    for dimension in (-1, 2):
        with pytest.raises(ValueError, match="dimension must be from 0 to 1"):
            grid.shift(0, dimension, 1)
    with pytest.raises(ValueError, match="1 were given of 2"):
        grid.slice_of(0, [True])


def factorisations(size, dimensions, longest):
    if dimensions == 1:
        return [(size,)] if size <= longest else []
    return [
        (first, *rest)
        for first in range(1, min(size, longest) + 1)
        if size % first == 0
        for rest in factorisations(size // first, dimensions - 1, first)
    ]


@given(st.integers(1, 300), st.integers(1, 4))
def test_computed_dims_are_as_near_to_each_other_as_can_be(size, dimensions):
    found = tuple(compute_dims(size, dimensions))
    assert math.prod(found) == size
    assert found == min(factorisations(size, dimensions, size))  # the longest is as short as can be, then the next


@pytest.mark.parametrize("wrong", [(0, 1), (4, 0), (-1, 2)])
def test_dims_of_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="numbers from 1"):
        compute_dims(*wrong)
