"""deadline: one point in time, made from seconds."""

from __future__ import annotations

import math
import time

import pytest

import klyng_mp as mp
from klyng_mp.deadline import Deadline


def test_none_is_never():
    deadline = Deadline(None)
    assert deadline.left() is None
    assert not deadline.over()
    assert deadline.seconds == math.inf


def test_several_steps_share_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("klyng_mp.deadline.monotonic", lambda: now[0])
    deadline = Deadline(5)
    assert (deadline.left(), deadline.over()) == (5.0, False)
    now[0] += 3
    assert (deadline.left(), deadline.over()) == (2.0, False)
    now[0] += 2
    assert (deadline.left(), deadline.over()) == (0.0, True)
    now[0] += 1
    assert deadline.left() == 0.0


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_no_time_at_all_is_over_at_once(timeout):
    assert Deadline(timeout).over()
    assert Deadline(timeout).seconds == 0.0


def test_infinity_is_never():
    assert Deadline(math.inf).left() is None


@pytest.mark.parametrize("timeout", ["5", True, [1], 1j])
def test_it_needs_a_number(timeout):
    with pytest.raises(TypeError, match="number of seconds"):
        Deadline(timeout)


def test_nan_is_no_number():
    with pytest.raises(ValueError, match="NaN"):
        Deadline(math.nan)


def test_its_error_says_how_long_was_waited_and_what_is_left():
    error = Deadline(2.5).error("recv(source=1)", left="nothing was taken")
    assert str(error) == "recv(source=1) did not finish within 2.5 s; nothing was taken"
    assert error.seconds == 2.5
    assert isinstance(error, mp.DeadlineError)
    assert isinstance(error, TimeoutError)


def test_it_counts_from_when_it_is_made():
    before = time.monotonic()
    deadline = Deadline(10)
    assert before + 10 <= deadline.at <= time.monotonic() + 10
