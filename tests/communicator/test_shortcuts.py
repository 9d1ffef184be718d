"""communicator.shortcuts: what is asked of a transport that has collectives itself, and what comes of its answers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from klyng_mp.communicator.reductions import BAND, LAND, MAX, MAXLOC, PROD, SUM
from klyng_mp.communicator.shortcuts import moving_bytes, reducing_arrays
from klyng_mp.transports.shortcuts import ANY_ROOM


def test_what_moves_is_bytes():
    array, room = np.arange(3.0), np.zeros(10)
    shortcut = moving_bytes("allgather", array, room, 3)
    assert (shortcut.size, shortcut.room) == (24, 26)
    assert shortcut.alike == ("allgather", "<f8", None, 24)
    assert (shortcut.send.nbytes, shortcut.receive.nbytes) == (24, 80)
    shortcut.receive[:8] = shortcut.send[8:16]
    assert room[0] == 1.0


@pytest.mark.parametrize("here", [True, False])
def test_only_the_root_knows_how_much_it_is(here):
    shortcut = moving_bytes("bcast", None, bytearray(5), 3, root=1, here=here)
    assert (shortcut.size, shortcut.room, shortcut.root) == (5 if here else 0, 5, 1)
    shortcut = moving_bytes("scatter", bytes(12) if here else None, bytearray(7), 3, root=0, here=here)
    assert (shortcut.size, shortcut.room, shortcut.alike) == (4 if here else 0, 7, ("scatter", "", 0))


def test_who_fills_nothing_has_any_room():
    shortcut = moving_bytes("gather", bytes(6), None, 2, root=1, here=False)
    assert (shortcut.size, shortcut.room, shortcut.receive) == (6, ANY_ROOM, None)
    assert moving_bytes("alltoall", bytes(6), bytearray(6), 2).size == 3


def test_what_the_root_of_a_broadcast_gives_is_only_read():
    assert moving_bytes("bcast", None, b"bytes", 2, root=0, here=True).alike is not None
    assert moving_bytes("bcast", None, b"bytes", 2, root=1, here=False).alike is None


@pytest.mark.parametrize(
    ("array", "buffer"),
    [
        (np.arange(6)[::2], bytearray(24)),
        (np.arange(3), np.zeros(6)),
        (np.arange(3), bytearray(48)),
        (b"bytes", b"bytes"),
        ("text", bytearray(9)),
        (np.zeros(2, "i4,i4"), np.zeros(4, "i4,i4")),
        (np.array([None]), np.array([None])),
    ],
)
def test_what_is_not_simply_bytes_goes_by_messages(array, buffer):
    assert moving_bytes("allgather", array, buffer, 2).alike is None


@pytest.mark.parametrize(
    ("dtype", "op", "possible"),
    [
        ("f8", SUM, True),
        ("f4", PROD, True),
        ("c16", SUM, True),
        ("i8", MAX, True),
        ("u1", BAND, True),
        ("f8", MAX, False),
        ("f2", SUM, False),
        ("?", SUM, False),
        (">i4", SUM, False),
        ("i4", LAND, False),
        ("i4", MAXLOC, False),
        ("i4", max, False),
    ],
)
def test_numbers_are_reduced_that_come_out_as_they_do_here(dtype, op, possible):
    array = np.zeros((2, 3), dtype)
    shortcut = reducing_arrays("allreduce", array, np.zeros(6, dtype), op)
    assert (shortcut.alike is not None) == possible
    if possible:
        assert (shortcut.send.shape, shortcut.receive.shape, shortcut.operation) == ((6,), (6,), op.name)


def test_a_buffer_that_does_not_fit_goes_by_messages():
    array = np.zeros(6)
    assert reducing_arrays("scan", array, np.zeros(7), SUM).receive.size == 6
    assert reducing_arrays("reduce_scatter", array, np.zeros(2), SUM, parts=3).receive.size == 2
    for buffer in (np.zeros(5), np.zeros(6, "f4"), bytearray(48)):
        assert reducing_arrays("scan", array, buffer, SUM).alike is None
    buffer = np.zeros(6)
    buffer.flags.writeable = False
    assert reducing_arrays("scan", array, buffer, SUM).alike is None


def test_a_copy_is_of_other_memory():
    array, buffer = np.arange(3.0), np.zeros(3)
    shortcut = reducing_arrays("allreduce", array, buffer, SUM)
    shortcut.copy()
    array[0] = 100
    shortcut.receive[...] = 7
    assert (shortcut.send[0], buffer.tolist()) == (0, [0, 0, 0])
    content = bytearray(b"abc")
    shortcut = moving_bytes("allgather", content, bytearray(6), 2)
    shortcut.copy()
    content[:] = b"xyz"
    assert bytes(shortcut.send) == b"abc"


def test_a_communicator_of_one_has_none():
    from klyng_mp.communicator.base import Base
    from klyng_mp.communicator.express import Ways

    endpoint = SimpleNamespace(ways=lambda *_: Ways(None, None, None, natives=object()), call_logs={})
    assert Base(endpoint, None, context=2, rank=0, members=[0]).natives is None
    assert Base(endpoint, None, context=2, rank=0, members=[0, 1]).natives is not None
