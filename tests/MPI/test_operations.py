"""Operators: what they do with objects, with arrays, and when they travel."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from klyng_mp import MPI
from klyng_mp.MPI.operations import on_arrays, on_objects


def add(inbuf, inoutbuf, datatype):
    np.frombuffer(inoutbuf, datatype.tocode())[:] += np.frombuffer(inbuf, datatype.tocode())


def test_a_named_one_combines_objects_and_arrays():
    assert MPI.SUM(2, 3) == 5
    assert MPI.SUM([1], [2]) == [1, 2]
    assert MPI.MAXLOC((1, 5), (1, 3)) == (1, 3)
    a, b = np.array([1, 0], "i"), np.array([0, 0], "i")
    for op, expected in [(MPI.LOR, [1, 0]), (MPI.BOR, [1, 0]), (MPI.MIN, [0, 0])]:
        out = on_arrays(op, MPI.INT)(a, b)
        assert (out.tolist(), out.dtype) == (expected, a.dtype)


def test_one_of_a_function_is_given_memory_for_buffers_and_objects_for_objects():
    op = MPI.Op.Create(add)
    a, b = np.arange(3.0), np.ones(3)
    assert on_arrays(op, MPI.DOUBLE)(a, b).tolist() == [1, 2, 3]
    assert b.tolist() == [1, 1, 1]
    other = MPI.Op.Create(lambda x, y, datatype: (x, y, datatype), commute=True)
    assert other(1, 2) == (1, 2, None)
    assert on_objects(lambda x, y: x - y)(3, 1) == 2
    assert (op.is_commutative, other.Is_commutative(), op.is_predefined, MPI.SUM.is_predefined) == (
        False,
        True,
        False,
        True,
    )


def test_a_local_reduction_goes_into_the_second_buffer():
    x, y = np.array([1, 5], "i"), np.array([3, 2], "i")
    MPI.MAX.Reduce_local([x, MPI.INT], [y, MPI.INT])
    assert y.tolist() == [3, 5]
    MPI.Op.Create(add).Reduce_local(x, y)
    assert y.tolist() == [4, 10]


def test_the_place_of_an_extreme_needs_pairs():
    with pytest.raises(ValueError, match="DOUBLE_INT"):
        on_arrays(MPI.MAXLOC, MPI.DOUBLE)(np.ones(2), np.ones(2))
    pairs = np.array([(1.0, 4), (2.0, 4)], [("f0", "d"), ("f1", "i")])
    others = np.array([(1.0, 2), (1.0, 2)], pairs.dtype)
    assert on_arrays(MPI.MAXLOC, MPI.DOUBLE_INT)(pairs, others).tolist() == [(1.0, 2), (2.0, 4)]


def test_what_is_no_operator_is_refused():
    with pytest.raises(TypeError, match="Op"):
        on_arrays(max, MPI.DOUBLE)
    for find in (on_objects, lambda op: on_arrays(op, MPI.DOUBLE)):
        with pytest.raises(ValueError, match="OP_NULL"):
            find(MPI.OP_NULL)
    assert not MPI.OP_NULL


def test_one_that_travels_is_the_same():
    assert pickle.loads(pickle.dumps(MPI.SUM)) == MPI.SUM
    assert pickle.loads(pickle.dumps(MPI.Op.Create(add))) == MPI.Op.Create(add)
    assert MPI.SUM != MPI.PROD
    assert len({MPI.SUM, MPI.Op(MPI.SUM), MPI.PROD}) == 2
    assert repr(MPI.SUM) == "<Op SUM>"
    MPI.SUM.Free()
    assert MPI.SUM(1, 1) == 2
