"""Values and arrays of a World with hosts, as programs use them."""

from __future__ import annotations

import ctypes
from multiprocessing.sharedctypes import typecode_to_type

import pytest
from contracts.ranks import together

from klyng_mp import native
from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.objects.locks import Lock
from klyng_mp.objects.values import Array, RawArray, RawValue, Value


def test_a_value_is_the_same_everywhere(job):
    values = job.everywhere(Value(job.numbers, "d", 1.5))
    assert [value.value for value in values] == [1.5] * 3
    values[1].value = -2
    assert [value.value for value in values] == [-2.0] * 3


def test_its_lock_keeps_others_out(job):
    values = job.everywhere(Value(job.numbers, ctypes.c_int, 0))

    def add(value):
        for _ in range(50):
            with value.get_lock():
                value.value += 1

    together([lambda value=value: add(value) for value in values])
    assert values[0].value == 150
    with values[1]:
        waiting = job.start(lambda: values[2].value)
        values[1].value = 7
    assert waiting.result() == 7
    with values[1] as held:
        assert held is True
        assert values[2].acquire(False) is False
    assert values[2].acquire(False) is True
    values[2].release()


@pytest.mark.parametrize("code", list("cbBhHiIlLqQfd"))
def test_all_codes_hold_what_multiprocessings_hold(job, code):
    standard = typecode_to_type[code]()
    ours = job.at(1, RawValue(job.numbers, code))
    assert (ours.value, type(ours.value)) == (standard.value, type(standard.value))
    new = b"x" if code == "c" else 77
    ours.value = standard.value = new
    assert ours.value == standard.value


SLICES = [
    slice(None),
    slice(1, 4),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(8, 1, -3),
    slice(3, 3),
    slice(-2, None),
]


def test_an_array_does_what_multiprocessings_does(job):
    standard = (ctypes.c_int * 10)(*range(10))
    arrays = job.everywhere(Array(job.numbers, "i", range(10)))
    assert (len(arrays[1]), list(arrays[1])) == (10, list(range(10)))
    for index in (0, 9, -1, -10):
        assert arrays[1][index] == standard[index]
        arrays[1][index] = standard[index] = 50 + index
    for part in SLICES:
        assert arrays[2][part] == standard[part]
        new = [value * 3 for value in standard[part]]
        arrays[2][part] = standard[part] = new
        assert arrays[0][:] == standard[:]
    with pytest.raises(IndexError):
        arrays[1][10]
    with pytest.raises(ValueError, match="same size"):
        arrays[1][:3] = [1]
    with pytest.raises(TypeError):
        arrays[1][0] = "text"


def test_an_array_of_characters_has_a_value(job):
    texts = job.everywhere(Array(job.numbers, "c", 5))
    texts[1].value = b"abc"
    assert (texts[2].value, texts[2].raw, texts[0][:], texts[0][1]) == (b"abc", b"abc\0\0", b"abc\0\0", b"b")
    texts[1].value = b"vwxyz"
    assert texts[2].value == b"vwxyz"
    texts[2].raw = b"12"
    assert texts[1].raw == b"12xyz"
    with pytest.raises(ValueError, match="too long"):
        texts[1].value = b"123456"
    with pytest.raises(AttributeError):
        Array(job.numbers, "i", 2).value


def test_there_is_no_memory_to_be_had_and_the_error_says_what_to_do(job):
    array = job.at(1, Array(job.numbers, "d", 3))
    for call in (array.get_obj, lambda: array.__array_interface__):
        with pytest.raises(NotAcrossHostsError, match=r"read a copy \(value\[:\]\)"):
            call()
    with pytest.raises(TypeError if native.core is None else NotAcrossHostsError):
        memoryview(array)


def test_numpy_is_told_the_same(job):
    numpy = pytest.importorskip("numpy")
    array = RawArray(job.numbers, "d", [1, 2])
    with pytest.raises(NotAcrossHostsError):
        numpy.asarray(array)
    with pytest.raises(TypeError if native.core is None else NotAcrossHostsError):
        numpy.frombuffer(array)
    assert numpy.array(array[:]).tolist() == [1, 2]


@pytest.mark.parametrize(
    "kind", [ctypes.c_char_p, ctypes.py_object, ctypes.c_int * 2, type("S", (ctypes.Structure,), {})]
)
def test_only_simple_types_can_be_shared(job, kind):
    with pytest.raises(NotAcrossHostsError, match="share simple ctypes"):
        Value(job.numbers, kind)


def test_what_is_no_type_or_no_lock_is_refused(job):
    with pytest.raises(TypeError, match="a code of one letter"):
        Value(job.numbers, "not one")
    with pytest.raises(TypeError, match="lock of a shared value"):
        Value(job.numbers, "i", lock=object())
    lock = Lock(job.numbers)
    assert Value(job.numbers, "i", 3, lock=lock).get_lock() is lock
