"""wire.arrays: plain arrays travel as they lie, all others by pickle; both arrive as they were."""

from __future__ import annotations

import numpy as np
import pytest

from klyng_mp.wire import codec
from klyng_mp.wire.codec import Codec

PLAIN = {
    "float64": np.arange(1000.0),
    "matrix": np.arange(6000, dtype="i4").reshape(20, 300),
    "cube": np.zeros((10, 20, 30), "c16"),
    "booleans": np.arange(9000) % 3 == 0,
    "halves": np.ones(5000, "f2"),
    "a slice that is contiguous": np.arange(5000.0)[100:4000],
    "unaligned": np.frombuffer(bytearray(8009), "u1")[1:8001].view("f8"),
}
OTHERS = {
    "read-only": np.frombuffer(bytes(8000), "u1"),
    "small": np.arange(10.0),
    "none": np.zeros((0, 5)),
    "a number": np.array(5.0),
    "Fortran's order": np.asfortranarray(np.arange(6000.0).reshape(20, 300)),
    "every second": np.arange(5000.0)[::2],
    "the other byte order": np.arange(5000, dtype=np.dtype("i4").newbyteorder()),
    "structured": np.zeros(1000, [("a", "i4"), ("b", "f8")]),
    "objects": np.array([None, "x"] * 1000, dtype=object),
    "texts": np.array(["word"] * 2000),
    "times": np.arange(2000).astype("M8[s]"),
    "a subclass": np.ma.masked_array(np.arange(2000.0)),
}


def travel(array):
    code, head, buffers = Codec(main_by_reference=False).encode(array)
    return code, Codec(main_by_reference=False).decode(code, head, [bytearray(buffer) for buffer in buffers])


@pytest.mark.parametrize("name", PLAIN)
def test_plain_ones_travel_as_they_lie(name):
    array = PLAIN[name]
    code, got = travel(array)
    assert code == codec._ARRAY
    assert (got.dtype, got.shape, type(got)) == (array.dtype, array.shape, np.ndarray)
    assert np.array_equal(got, array)
    assert got.flags.writeable
    got.flat[0] = 1


@pytest.mark.parametrize("name", OTHERS)
def test_others_travel_by_pickle(name):
    array = OTHERS[name]
    code, got = travel(array)
    assert code != codec._ARRAY
    assert (got.dtype, got.shape, type(got)) == (array.dtype, array.shape, type(array))
    assert np.array_equal(got, array)


def test_the_senders_memory_is_not_copied_to_be_sent():
    array = np.arange(1000.0)
    _, _, (memory,) = Codec(main_by_reference=False).encode(array)
    array[0] = 5.0
    assert np.frombuffer(memory)[0] == 5.0
