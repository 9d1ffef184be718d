"""Datatypes: sizes, names, and the type codes that name them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from klyng_mp import MPI
from klyng_mp.MPI.datatypes import DATATYPE_NULL, NAMED, Datatype, datatype_of, type_codes


@pytest.mark.parametrize("code", "bhilqBHILQefdg?FDG")
def test_a_type_code_of_numpy_names_a_datatype_of_the_same_size(code):
    assert datatype_of(code).Get_size() == np.dtype(code).itemsize
    assert np.dtype(datatype_of(code).tocode()) == np.dtype(code)


@pytest.mark.parametrize("code", ["<f8", "=i4", "f8", "@l"])
def test_so_does_one_with_a_size_or_a_byte_order_of_this_machine(code):
    assert datatype_of(code).size in (4, 8)


@pytest.mark.parametrize("code", ["", "O", ">f8", "V8", "no"])
def test_what_names_none_says_what_to_give(code):
    with pytest.raises(ValueError, match="BYTE"):
        datatype_of(code)


@pytest.mark.parametrize(
    ("name", "code"), [("FLOAT_INT", "f"), ("DOUBLE_INT", "d"), ("SHORT_INT", "h"), ("TWOINT", "i")]
)
def test_a_pair_lies_as_c_has_it(name, code):
    pair = np.dtype([("f0", code), ("f1", "i")], align=True)
    assert np.dtype(NAMED[name]._dtype) == pair
    assert NAMED[name].Get_extent() == (0, pair.itemsize)
    with pytest.raises(ValueError, match="type code"):
        NAMED[name].tocode()


def test_a_datatype_that_travels_arrives_as_the_constant():
    assert Datatype.fromcode("d") is MPI.DOUBLE
    for name in ("DOUBLE", "DATATYPE_NULL"):
        copy = pickle.loads(pickle.dumps(getattr(MPI, name)))
        assert copy is getattr(MPI, name)
    assert not DATATYPE_NULL
    assert MPI.DOUBLE.is_predefined
    assert MPI.DOUBLE.is_named
    assert repr(MPI.DOUBLE) == "DOUBLE"
    assert type_codes()["f8"] is MPI.DOUBLE
