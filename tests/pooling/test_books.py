from __future__ import annotations

import sys
from itertools import count

import pytest

from klyng_mp.errors import ClosedError
from klyng_mp.pooling.books import Books, CrewOptions
from klyng_mp.pooling.desk import Desk
from klyng_mp.pooling.jobs import Job, Tally
from klyng_mp.pooling.worker import WorkerOptions


class Result:
    """What a user has of a job."""

    _has_callbacks = False

    def __init__(self):
        self.errors = []
        self.is_ready = False

    def _fail(self, error):
        self.errors.append(error)

    def _complete(self, job):
        assert job.finished

    def _finish(self):
        self.is_ready = True


@pytest.fixture
def books():
    desk = Desk()
    worker = WorkerOptions(None, (), None, None, None)
    yield Books(CrewOptions(1, None, worker, retries=0, forks=True), desk)
    desk.close()


def make_job(context, ended):
    job = Job(context, 0, None, Result())
    job.tally = Tally(context, [None], 1)
    job.ended = ended
    return job


def interrupt(call, function, line):
    """Make a call, and raise KeyboardInterrupt before the how-manieth line of a function of it; return whether it was.

    That is where the interpreter runs a handler of the main thread, and many places more.
    """
    left = line

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code is not function.__code__:
            return None
        if event == "line":
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("ended", [False, True])
def test_an_interrupt_anywhere_leaves_jobs_that_can_be_ended(books, ended):
    lines = 0
    for line in count(1):
        job = make_job(100 + line, ended)
        if not interrupt(lambda job=job: books.open(job), Books.open, line):
            break
        lines += 1
        entered = job.context in books.jobs
        books.fail_all(ClosedError("over"), call_back=False)
        assert not books.jobs
        assert (job.result.is_ready, len(job.result.errors)) == (entered, entered)
        books.supply.clear()  # of what nobody had entered yet
    assert lines >= 5


def test_a_job_with_all_its_results_is_forgotten(books):
    job = make_job(100, ended=False)
    books.open(job)
    assert list(books.supply) == [job]
    books.finish(job)
    assert (books.jobs, list(books.supply), job.result.is_ready) == ({}, [], True)
