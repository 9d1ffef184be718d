from __future__ import annotations

import threading

import poolwork
import pytest

from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.jobs import Job, Tally, chunks_of, start_reader
from klyng_mp.pooling.results import MapResult
from klyng_mp.pooling.tasks import CALL, Function
from klyng_mp.reduction import codec


class Result:
    """A result as a job sees it."""

    def __init__(self):
        self.put = []
        self.length = None
        self._handed_out = 0

    def _put(self, job, index, success, value):
        self.put.append((index, success, value))
        return False

    def _set_length(self, length):
        self.length = length
        return False


@pytest.fixture
def encoder():
    return Encoder(forks=True)


@pytest.fixture
def job(encoder):
    return Job(5, CALL, Function.of(poolwork.square, encoder), Result())


def taken(job, encoder, most=100):
    found = []
    while (batch := job.take(most, encoder)) is not None:
        while batch.count:
            found.append((batch.first, codec().decode(*batch.task())))
            batch = batch.split(1)[1]
    return found


def test_tasks_are_taken_by_and_by(job, encoder):
    job.take_from(iter(range(10)))
    assert job.take(3, encoder).first == 0
    assert not job.ended
    assert taken(job, encoder)[-1] == (9, 9)
    assert job.ended
    assert job.result.length == 10


def test_one_that_cannot_travel_is_left_out(job, encoder):
    job.take_from(iter([1, threading.Lock(), 3]))
    assert taken(job, encoder) == [(0, 1), (2, 3)]
    [(index, success, error)] = job.result.put
    assert (index, success) == (1, False)
    assert "argument of task 1" in str(error)


def test_an_iterator_that_raises_is_one_more_result(job, encoder):
    def numbers():
        yield 1
        raise KeyError("end")

    job.take_from(numbers())
    assert taken(job, encoder) == [(0, 1)]
    assert [(index, success, type(error)) for index, success, error in job.result.put] == [(1, False, KeyError)]
    assert job.result.length == 2


def test_a_window_lets_no_more_be_read(job, encoder):
    job.window = 3
    job.take_from(iter(range(10)))
    assert [index for index, _ in taken(job, encoder)] == [0, 1, 2]
    job.result._handed_out = 2
    assert [index for index, _ in taken(job, encoder)] == [3, 4]


def test_a_sequence_that_is_shorter_than_it_said(encoder):
    class FakePool:
        _crew = None

    job = Job(5, CALL, Function.of(poolwork.square, encoder), MapResult(FakePool()))
    job.length = 5
    job.tally = Tally(5, [None] * 5, 5)
    job.take_from(iter([1, 2]))
    taken(job, encoder)
    assert (job.tally.left, job.length, job.finished) == (2, 2, False)
    job.put(0, True, 1)
    job.put(1, True, 4)
    assert job.finished


def test_chunks():
    assert list(chunks_of(iter(range(5)), 2)) == [(0, 1), (2, 3), (4,)]


def test_a_reader_reads_as_far_as_it_may(job, encoder):
    read, changed = [], threading.Semaphore(0)

    def numbers():
        for number in range(6):
            read.append(number)
            yield number

    def change(step, of):
        step(of)
        changed.release()

    job.window = 2
    job.prepare_reader()
    start_reader(job, numbers(), encoder, change)
    changed.acquire()
    changed.acquire()
    assert read == [0, 1]
    assert taken(job, encoder) == [(0, 0), (1, 1)]
    job.result._handed_out = 10
    job.allow()
    for _ in range(5):
        changed.acquire()
    assert job.ended
    assert taken(job, encoder) == [(number, number) for number in range(2, 6)]


def test_a_reader_stops_when_it_is_told_to(job, encoder):
    job.window = 1
    job.prepare_reader()
    start_reader(job, iter([1, 2, 3]), encoder, lambda step, of: step(of))
    job.stop()
    [reader] = [thread for thread in threading.enumerate() if "reader" in thread.name] or [None]
    if reader is not None:
        reader.join(30)
        assert not reader.is_alive()


def test_a_task_is_described(job, encoder):
    job.take_from(iter(["abc"]))
    assert job.describe(job.take(1, encoder), codec()) == "task 0 of square (with 'abc')"
