"""Buffer specifications: which memory they name."""

from __future__ import annotations

import array

import numpy as np
import pytest

from klyng_mp import MPI
from klyng_mp.errors import LocalProtocolError
from klyng_mp.MPI.specifications import Memory, fill

TEN = np.arange(10, dtype="i")


def elements(spec, **how):
    memory = Memory("call()", spec, **how)
    return np.frombuffer(memory.incoming(memory.whole()), "i").tolist()


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ((), range(10)),
        ((MPI.INT,), range(10)),
        (("i",), range(10)),
        ((3,), range(3)),
        ((3, MPI.INT), range(3)),
        (((3, 2), MPI.INT), [2, 3, 4]),
        (([3, 2], MPI.INT), [2, 3, 4]),
        (((3, 2),), [2, 3, 4]),
        ((3, 2, MPI.INT), [2, 3, 4]),
        ((None, MPI.INT), range(10)),
        (((None, 8), MPI.INT), [8, 9]),
        ((12, 8, MPI.BYTE), [2, 3, 4]),
    ],
)
@pytest.mark.parametrize("data", [TEN, array.array("i", range(10))], ids=["numpy", "array"])
def test_one_count(data, rest, expected):
    assert elements([data, *rest]) == list(expected)
    assert elements((data, *rest)) == list(expected)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (([1, 2, 3],), [(0, 1), (1, 2), (3, 3)]),
        (([1, 2, 3], MPI.INT), [(0, 1), (1, 2), (3, 3)]),
        ((([1, 2, 3], [9, 0, 4]),), [(9, 1), (0, 2), (4, 3)]),
        ((([1, 2, 3], None), MPI.INT), [(0, 1), (1, 2), (3, 3)]),
        (([1, 2, 3], [9, 0, 4], MPI.INT), [(9, 1), (0, 2), (4, 3)]),
        ((np.array([1, 2, 3]), np.array([9, 0, 4]), "i"), [(9, 1), (0, 2), (4, 3)]),
        ((2,), [(0, 2), (2, 2), (4, 2)]),
    ],
)
def test_a_count_for_each(rest, expected):
    assert Memory("call()", [TEN, *rest], vector=True).vector(3) == expected


def test_equal_parts():
    assert Memory("call()", TEN).shares(2) == [(0, 5), (5, 5)]
    assert Memory("call()", [TEN, 3]).shares(3) == [(0, 3), (3, 3), (6, 3)]
    assert Memory("call()", TEN, vector=True).vector(5) == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 2)]
    with pytest.raises(ValueError, match=r"call\(\): 10 elements are no 3 equal parts"):
        Memory("call()", TEN).shares(3)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ([], ValueError, "1 to 4 parts"),
        ([TEN, 1, 2, 3, MPI.INT], ValueError, "1 to 4 parts"),
        ([TEN, 1, 2, 3], ValueError, "no buffer specification"),
        ([TEN, 11], ValueError, "11 elements of 4 bytes"),
        ([TEN, (2, 9)], ValueError, "2 elements of 4 bytes from element 9"),
        ([TEN, -1], ValueError, "not in a buffer"),
        ([TEN, "no"], ValueError, "type code"),
        ([TEN, MPI.DATATYPE_NULL], ValueError, "no datatype"),
        (5, TypeError, "buffer protocol"),
        (np.array([object()]), TypeError, r"send\(\)"),
        (TEN[::2], ValueError, "contiguous"),
        (memoryview(bytes(4))[::2], ValueError, "contiguous"),
    ],
)
def test_what_is_no_specification_is_refused(spec, error, said):
    with pytest.raises(error, match=rf"{said}"):
        Memory("call()", spec).whole()


def test_counts_must_be_as_many_as_ranks():
    with pytest.raises(ValueError, match="3 counts"):
        Memory("call()", [TEN, [1, 2]], vector=True).vector(3)


def test_a_large_array_goes_as_it_is_and_a_small_one_as_bytes():
    large = np.arange(5000.0)
    memory = Memory("call()", [large, 4000])
    sent = memory.outgoing(memory.whole())
    assert np.shares_memory(sent, large)
    assert sent.shape == (4000,)
    assert Memory("call()", TEN).outgoing((1, 2)) == TEN[1:3].tobytes()
    frozen = np.arange(5000.0)
    frozen.setflags(write=False)
    assert Memory("call()", frozen).outgoing((0, 5000)) == frozen.tobytes()


def test_part_of_an_array_by_another_datatype():
    large = np.arange(5000.0)
    assert Memory("call()", [large, MPI.BYTE]).outgoing((4, 36000)).tobytes() == large.tobytes()[4:36004]
    assert Memory("call()", [large, MPI.FLOAT]).length == 10000
    halves = Memory("call()", [large, MPI.FLOAT])
    assert halves.operand((0, 2)).dtype == np.dtype("f")


def test_a_fortran_array_is_the_memory_that_it_is():
    table = np.asfortranarray(np.arange(6, dtype="i").reshape(2, 3))
    assert elements(table) == [0, 3, 1, 4, 2, 5]


def test_a_subclass_of_an_array_is_the_memory_that_it_is():
    class Table(np.ndarray):
        def reshape(self, *_args, **_keywords):
            return self

    assert elements(np.arange(6, dtype="i").reshape(2, 3).view(Table)) == list(range(6))


def test_bytes_are_sent_without_a_copy():
    text = bytearray(100)
    memory = Memory("call()", text)
    assert memory.outgoing(memory.whole()) is text
    assert memory.outgoing((2, 3)) == bytes(3)


def test_nothing_is_a_buffer_without_elements():
    memory = Memory("call()", [None, MPI.INT])
    assert memory.whole() == (0, 0)
    assert memory.outgoing((0, 0)) == b""
    empty = Memory("call()", np.empty(0))
    assert empty.whole() == (0, 0)


def test_an_operand_is_the_memory_itself():
    numbers = array.array("d", [1.0, 2.0])
    memory = Memory("call()", numbers)
    memory.operand(memory.whole())[:] += 1
    assert numbers.tolist() == [2.0, 3.0]


def test_what_is_too_large_is_not_copied():
    into = bytearray(3)
    with pytest.raises(LocalProtocolError, match=r"call\(\): what came has 4 bytes, and the buffer 3"):
        fill("call()", memoryview(into), b"four")
    assert into == bytes(3)
    fill("call()", memoryview(into), b"ok")
    assert into == b"ok\0"
