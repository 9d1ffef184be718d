"""A crew with real workers, and what is known of it on the way."""

from __future__ import annotations

import os
from functools import partial

import poolwork as work
import pytest

import klyng_mp as mp
from klyng_mp.pooling.books import CLOSE, RUN, TERMINATE, CrewOptions
from klyng_mp.pooling.calls import Calls
from klyng_mp.pooling.crew import Crew
from klyng_mp.pooling.results import IMapIterator, MapResult
from klyng_mp.pooling.tasks import CALL, MAP
from klyng_mp.pooling.worker import WorkerOptions


class Owner:
    """What results know of a Pool."""

    def __init__(self, crew):
        self._crew = crew


@pytest.fixture
def make_crew():
    made = []

    def make(processes=2, *, maxtasks=None, retries=0):
        process = mp.get_context("fork").Process
        worker = WorkerOptions(None, (), maxtasks, None, None)
        made.append(Crew(CrewOptions(processes, partial(process), worker, retries=retries, forks=True)))
        return made[-1]

    yield make
    for crew in made:
        crew.terminate()
        for process in crew.processes:
            process.close()


def start_map(crew, function, items, chunksize=1):
    return Calls(crew, None).map(function, items, (CALL, MAP), chunksize, MapResult(Owner(crew)), wait=False)


def test_its_states(make_crew):
    crew = make_crew()
    assert crew.books.state == RUN
    assert start_map(crew, work.square, [1, 2]).get(30) == [1, 4]
    assert not crew.books.jobs
    assert not crew.books.supply
    crew.close()
    assert crew.books.state == CLOSE
    with pytest.raises(ValueError, match="Pool not running"):
        crew.check()
    crew.join()
    assert crew.books.leaving
    crew.terminate()
    crew.join()


def test_a_job_that_comes_too_late_fails(make_crew):
    crew = make_crew(1)
    result = MapResult(Owner(crew))
    crew.terminate()
    assert crew.books.state == TERMINATE
    job = crew.make_job(CALL, None, result)
    crew.submit(job)
    with pytest.raises(mp.ClosedError):
        result.get(0)


class _TerminatedFirst:
    """A lock that another caller gets first, who terminates the crew."""

    def __init__(self, crew):
        self._crew, self._lock = crew, crew._desk.lock

    def __enter__(self):
        self._crew._desk.lock = self._lock
        self._crew.terminate()
        self._lock.acquire()

    def __exit__(self, *_error):
        self._lock.release()


def test_a_close_that_comes_too_late_changes_nothing(make_crew):
    crew = make_crew(1)
    crew._desk.lock = _TerminatedFirst(crew)
    crew.close()
    assert crew.books.state == TERMINATE
    crew.join()


def test_what_is_ahead_is_bounded_and_dealt_to_all(make_crew, tmp_path):
    crew = make_crew(2)
    path = str(tmp_path / "file")
    result = start_map(crew, work.wait_for_file, [path] * 1000)
    crew.wait(lambda: all(hand.is_ready and hand.sent for hand in crew.books.hands), 30)
    ahead = [hand.sent - hand.seen for hand in crew.books.hands]
    assert all(0 < count <= 8 for count in ahead), "nothing is known yet of how long they take"
    (tmp_path / "file").touch()
    assert result.get(30) == ["seen"] * 1000


def test_what_was_taken_back_is_done_by_another(make_crew, tmp_path):
    crew = make_crew(2)
    first, path = (str(tmp_path / name) for name in ("first", "file"))
    result = start_map(crew, work.wait_for_file, [first, path, *[os.devnull] * 6])
    (tmp_path / "first").touch()
    rest = IMapIterator(Owner(crew))
    Calls(crew, None).imap(rest, work.square, range(100), 1, None)
    assert list(rest) == [x * x for x in range(100)]
    assert not result.ready()
    (tmp_path / "file").touch()
    assert result.get(30) == ["seen"] * 8


def test_a_quota_is_kept(make_crew):
    crew = make_crew(2, maxtasks=5)
    pids = start_map(crew, work.pid, range(40)).get(30)
    assert max(pids.count(pid) for pid in pids) <= 5


def test_retries_are_counted_for_each_task(make_crew, tmp_path):
    crew = make_crew(2, retries=2)
    assert start_map(crew, work.die_the_first_time, [str(tmp_path / n) for n in "abcd"]).get(60) == ["done"] * 4
    with pytest.raises(mp.WorkerDiedError, match="code 9"):
        start_map(crew, work.leave, [9]).get(30)


def test_a_process_that_cannot_be_started_leaves_none(monkeypatch):
    started = []

    def make_process(**words):
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(mp.get_context("fork").Process(**words))
        return started[-1]

    with pytest.raises(OSError, match="no more processes"):
        Crew(CrewOptions(3, make_process, WorkerOptions(None, (), None, None, None), retries=0, forks=True))
    assert all(process.exitcode is not None for process in started)
