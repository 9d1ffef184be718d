"""Shared values as states: bytes that are read and written, and not while another thread has their lock."""

from __future__ import annotations

from functools import partial

import pytest
from answers import Answers

from klyng_mp.objects.cells import CellState
from klyng_mp.objects.semaphores import RECURSIVE, SemaphoreState


def made(lock=None, data=b"abcdefgh"):
    return Answers(partial(CellState, data=data, lock=lock))


def read(cell, start=0, size=8):
    assert cell.ask("a", "READ", start, size) == [("a", "YES")]
    return cell.content[1]


def write(cell, data, *numbers):
    return cell.ask("a", "WRITE", *numbers, content=(0, data, ()))


def test_it_is_read_and_written():
    cell = made()
    assert read(cell, 2, 3) == b"cde"
    assert write(cell, b"XY", 1, 1, 1) == [("a", "YES")]
    assert read(cell) == b"aXYdefgh"


def test_it_is_written_with_gaps_and_backwards():
    cell = made()
    write(cell, b"1122", 0, 4, 2)
    assert read(cell) == b"11cd22gh"
    write(cell, b"3344", 6, -2, 2)
    assert read(cell) == b"11cd4433"


@pytest.mark.parametrize("numbers", [(7, 1, 1), (0, -1, 1), (-1, 1, 1), (0, 8, 1), (0, 1, 0), (2**62, 2**62, 1)])
def test_nothing_is_written_beyond_it(numbers):
    cell = made()
    assert write(cell, b"XY", *numbers) == [("a", "UNKNOWN")]
    assert read(cell) == b"abcdefgh"


@pytest.mark.parametrize("numbers", [(-1, 2), (7, 2), (0, -1), (9, 0)])
def test_nothing_is_read_beyond_it(numbers):
    assert made().ask("a", "READ", *numbers) == [("a", "UNKNOWN")]


def test_who_has_the_lock_reads_and_writes_and_others_wait():
    lock = Answers(partial(SemaphoreState, kind=RECURSIVE, value=1, maximum=1))
    cell = made(lock.state)
    assert read(cell) == b"abcdefgh"
    lock.ask("b", "ACQUIRE", 1)
    assert cell.ask("b", "READ", 0, 1) == [("b", "YES")]
    assert write(cell, b"X", 0, 1, 1) == []
    lock.ask("b", "RELEASE")
    assert cell.take() == [("a", "YES")]
    assert lock.ask("c", "ACQUIRE", 0) == [("c", "YES")]


def test_a_broken_lock_is_told():
    lock = Answers(partial(SemaphoreState, kind=RECURSIVE, value=1, maximum=1))
    cell = made(lock.state)
    lock.ask("b", "ACQUIRE", 1)
    assert cell.ask("a", "READ", 0, 1) == []
    lock.end("b")
    assert cell.take() == [("a", "BROKEN")]
    assert cell.ask("c", "READ", 0, 1) == [("c", "BROKEN")]
