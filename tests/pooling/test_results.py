from __future__ import annotations

import multiprocessing

import pytest

from klyng_mp.pooling.jobs import Job, Tally
from klyng_mp.pooling.results import ApplyResult, IMapIterator, IMapUnorderedIterator


class Crew:
    """Nobody comes; whoever would wait gets no answer."""

    def wait(self, is_done, timeout):
        assert not is_done()

    def hand_out(self, job):
        job.append(1)


class FakePool:
    def __init__(self):
        self._crew = Crew()


def test_a_result():
    called = []
    result = ApplyResult(FakePool(), called.append, called.append)
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(0)
    job = Job(5, 0, None, result)
    job.tally = Tally(5, [None], 1)
    assert result._put(job, 0, True, 5)
    result._complete(job)
    assert not result.ready()
    result._finish()
    assert (result.ready(), result.successful(), result.get(), called) == (True, True, 5, [5])


def test_it_is_ready_also_where_a_callback_raises():
    result = ApplyResult(FakePool(), lambda _: 1 / 0)
    result._value = 5
    with pytest.raises(ZeroDivisionError):
        result._finish()
    assert result.get() == 5


def test_results_come_in_order():
    results = IMapIterator(FakePool())
    assert not results._put(None, 1, True, "b")
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(0)
    results._put(None, 0, True, "a")
    results._put(None, 2, False, KeyError("c"))
    assert results._set_length(3)
    assert (next(results), next(results)) == ("a", "b")
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_results_come_in_any_order_and_are_paced():
    results = IMapUnorderedIterator(FakePool())
    results._paced = []
    results._put(None, 1, True, "b")
    assert next(results) == "b"
    assert (results._paced, results._handed_out) == ([1], 1)


def test_an_end_that_is_an_error_comes_after_the_results():
    results = IMapIterator(FakePool())
    results._put(None, 0, True, "a")
    results._fail(OSError("gone"))
    assert next(results) == "a"
    with pytest.raises(OSError, match="gone"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
