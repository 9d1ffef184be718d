"""The named reductions, on objects and on arrays."""

from __future__ import annotations

import pickle
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.communicator import reductions
from klyng_mp.communicator.reductions import BAND, BOR, BXOR, LAND, LOR, LXOR, MAX, MAXLOC, MIN, MINLOC, PROD, SUM

numpy = pytest.importorskip("numpy")

ints = st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=8)


@pytest.mark.parametrize("op", reductions.NAMED, ids=repr)
def test_it_has_its_name_and_travels_as_itself(op):
    assert getattr(reductions, op.name) is op
    assert repr(op) == op.name
    assert pickle.loads(pickle.dumps(op)) is op


@given(ints)
def test_ints(values):
    assert reduce(SUM, values) == sum(values)
    assert reduce(PROD, values) == reduce(lambda a, b: a * b, values)
    assert reduce(MAX, values) == max(values)
    assert reduce(MIN, values) == min(values)
    assert bool(reduce(LAND, values)) == all(values)
    assert bool(reduce(LOR, values)) == any(values)
    assert bool(reduce(LXOR, values)) == (sum(map(bool, values)) % 2 == 1)
    assert reduce(BAND, values) == reduce(lambda a, b: a & b, values)
    assert reduce(BOR, values) == reduce(lambda a, b: a | b, values)
    assert reduce(BXOR, values) == reduce(lambda a, b: a ^ b, values)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_extremes_come_with_the_lowest_place(values):
    pairs = [(value, place) for place, value in enumerate(values)]
    assert reduce(MAXLOC, pairs) == (max(values), values.index(max(values)))
    assert reduce(MINLOC, pairs) == (min(values), values.index(min(values)))
    assert reduce(MAXLOC, pairs[::-1]) == (max(values), values.index(max(values)))


@given(st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_extremes_of_arrays_are_found_element_by_element(rows):
    pairs = [(numpy.array(row), numpy.full(4, place)) for place, row in enumerate(rows)]
    table = numpy.array(rows)
    for op, extreme, where in ((MAXLOC, table.max, table.argmax), (MINLOC, table.min, table.argmin)):
        values, places = reduce(op, pairs)
        assert values.tolist() == extreme(axis=0).tolist()
        assert places.tolist() == where(axis=0).tolist()


@pytest.mark.parametrize("op", [op for op in reductions.NAMED if op not in (MAXLOC, MINLOC)], ids=repr)
def test_arrays_are_combined_as_their_elements_are(op):
    a, b = numpy.array([0, 0, 5, 6, -7]), numpy.array([0, 3, 0, 3, -7])
    got = op(a, b)
    assert got.tolist() == [op(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert got is not a
    assert got is not b
    if op.keeps_dtype:
        assert got.dtype == a.dtype
        out = numpy.zeros_like(a)
        op.into(a, b, out)
        assert (out == got).all()
        op.into(a, b, a)
        assert (a == got).all()


def test_an_array_and_a_number_are_combined_too():
    array = numpy.array([1, 5])
    assert MAX(array, 3).tolist() == [3, 5]
    assert MAX(3, array).tolist() == [3, 5]
    assert SUM(numpy.float64(1), numpy.float64(2)) == 3


@pytest.mark.parametrize("op", [SUM, MAX, MIN, LAND, BAND], ids=repr)
def test_numbers_of_numpy_are_combined_as_arrays_are(op):
    """So that it makes no difference in which order arrays without dimensions, which become numbers, are combined."""
    a, b, c = (numpy.array(value, dtype) for value, dtype in ((1, "i4"), (1, "i8"), (0, "i2")))
    left, right = op(op(a, b), c), op(a, op(b, c))
    assert (left, left.dtype) == (right, right.dtype)


def test_objects_are_combined_as_python_does():
    assert SUM("a", "b") == "ab"
    assert SUM([1], [2]) == [1, 2]
    assert MAX((1, 2), (1, 3)) == (1, 3)
    assert BOR({1}, {2}) == {1, 2}
    assert LAND("a", "") is False
    assert LOR("", "a") is True


def test_only_plain_arrays_are_arrays():
    assert reductions.is_array(numpy.zeros(3))
    assert not reductions.is_array(numpy.array([object()]))
    assert not reductions.is_array(numpy.ma.masked_array([1]))
    assert not reductions.is_array(numpy.float64(1))
    assert not reductions.is_array([1])
