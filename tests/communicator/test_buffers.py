"""Memory to receive into and to give away, as far as that needs no ranks."""

from __future__ import annotations

import array

import pytest

from klyng_mp.communicator.buffers import Gift, Target, allocate
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import Message

numpy = pytest.importorskip("numpy")
CODEC = Codec(main_by_reference=True)


def message_of(obj):
    return Message(1 << 32, 0, 7, 0, *CODEC.encode(obj))


@pytest.mark.parametrize("shape", [0, 5, (3, 4), (0, 7), [2, 2]])
@pytest.mark.parametrize("dtype", [float, "i4", "M8[s]", [("a", "u1"), ("b", "f8")]])
def test_empty_is_as_numpys(shape, dtype):
    made, expected = allocate(None, shape, dtype), numpy.empty(shape, dtype)
    assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
    assert made.flags.writeable
    assert made.flags.c_contiguous


def test_empty_refuses_objects():
    with pytest.raises(TypeError, match="plain memory, and object is made of Python objects"):
        allocate(None, 3, object)


class Port:
    """A port that has slabs to give, or none."""

    def __init__(self, slab):
        self.slab = slab

    def allocate(self, size):
        return None if self.slab is None else self.slab[:size]

    def find_slab(self, buffer):
        return self.slab if self.slab is not None and buffer.nbytes == len(self.slab) else None


def test_an_array_lies_in_the_slab_that_the_port_gives():
    memory = bytearray(8000)
    made = allocate(Port(memory), (10, 100), float)
    made[:] = 0
    assert made.shape == (10, 100)
    assert allocate(Port(None), 5, "u1").shape == (5,)


class Slab(bytearray):
    given = False


def test_what_is_not_a_slab_is_not_given():
    message = message_of(numpy.zeros(1000))
    before = list(message.buffers)
    gift = Gift(Port(None), message, None)
    assert list(message.buffers) == before
    gift.close()
    gift = Gift(None, message, None)
    gift.close()


def test_an_array_is_read_only_once_it_was_given():
    made = numpy.zeros(1000)
    slab = Slab(8000)
    message = message_of(made)
    gift = Gift(Port(slab), message, made)
    assert message.buffers == [slab]
    gift.close()
    assert made.flags.writeable  # the transport copied it
    slab.given = True
    gift.close()
    assert not made.flags.writeable


KINDS = {
    "bytearray": lambda: bytearray(8),
    "memoryview": lambda: memoryview(bytearray(8)),
    "array.array": lambda: array.array("d", [0]),
    "float": lambda: numpy.zeros(1),
    "matrix": lambda: numpy.zeros((2, 2), "u2"),
    "dates": lambda: numpy.zeros(1, "M8[s]"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_buffers_of_all_kinds_take_bytes(kind):
    buffer = KINDS[kind]()
    assert Target(buffer).take(message_of(b"\1" * 8), CODEC) == 8
    assert bytes(memoryview(buffer.view("u1") if isinstance(buffer, numpy.ndarray) else buffer)) == b"\1" * 8


def test_an_array_of_dates_takes_dates():
    buffer = numpy.zeros(3, "M8[s]")
    dates = numpy.array(["2026-11-24", "2000-01-01"], "M8[s]")
    assert Target(buffer).take(message_of(dates), CODEC) == 16
    assert (buffer[:2] == dates).all()
    with pytest.raises(TypeError, match="datetime64"):
        Target(buffer).take(message_of(numpy.zeros(1)), CODEC)


def test_objects_have_no_bytes():
    with pytest.raises(TypeError, match="no bytes"):
        Target(numpy.zeros(3, object))
    with pytest.raises(TypeError, match="no bytes"):
        Target(bytearray(100)).take(message_of(numpy.array([None])), CODEC)


def test_an_array_of_any_dtype_is_contiguous():
    with pytest.raises(ValueError, match="contiguous"):
        Target(numpy.zeros((4, 4), "M8[s]")[:, :2])


@pytest.mark.parametrize("shape", [-1, (2, -3), (-2, -3)])
def test_a_shape_is_refused_as_by_numpy(shape):
    with pytest.raises(ValueError, match="negative"):
        allocate(Port(bytearray(8000)), shape, "u1")


def test_what_is_read_only_is_refused():
    locked = numpy.zeros(3)
    locked.setflags(write=False)
    for buffer in (locked, b"abc", memoryview(b"abc")):
        with pytest.raises(TypeError, match="read-only"):
            Target(buffer)


def test_nothing_is_copied_of_what_has_landed():
    target = Target(bytearray(10_000))
    message = message_of(bytes(10_000))
    message.buffers = [target.view]
    assert target.take(message, CODEC) == 10_000
