"""launch.exitpipe: how a process object learns of its process's end."""

from __future__ import annotations

import os

import pytest

from klyng_mp.launch.exitpipe import EXIT_CODE, ExitPipe


@pytest.fixture
def ends():
    sentinel, fd = os.pipe()
    yield sentinel, fd
    os.close(sentinel)


def test_the_first_exit_code_is_told(ends):
    sentinel, fd = ends
    pipe = ExitPipe(fd)
    pipe.tell(-9)
    pipe.tell(0)
    assert EXIT_CODE.unpack(os.read(sentinel, 100)) == (-9,)
    assert not os.read(sentinel, 100)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_an_end_that_nobody_knows_more_of_is_a_word_less(ends):
    sentinel, fd = ends
    ExitPipe(fd).tell(None)
    assert not os.read(sentinel, 100)


def test_that_nobody_wants_to_know_is_no_error():
    sentinel, fd = os.pipe()
    os.close(sentinel)
    ExitPipe(fd).tell(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
