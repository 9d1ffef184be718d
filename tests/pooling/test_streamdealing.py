"""Workers behind a link with a round trip of 20 ms: a thread that hands on what it has read a while ago."""

from __future__ import annotations

import collections
import os
import select
import signal
import socket
import threading
import time
from functools import partial

import poolwork as work
import pytest

import klyng_mp as mp
from klyng_mp.pooling import crew as crews
from klyng_mp.pooling.books import CrewOptions
from klyng_mp.pooling.calls import Calls
from klyng_mp.pooling.crew import Crew
from klyng_mp.pooling.results import IMapIterator, MapResult
from klyng_mp.pooling.seats import SocketWays
from klyng_mp.pooling.tasks import CALL, MAP
from klyng_mp.pooling.worker import WorkerOptions

ONE_WAY = 0.010


class Owner:
    def __init__(self, crew):
        self._crew = crew


class DelayedWays(SocketWays):
    """Sockets whose other ends are far away."""

    def seat(self, place, incarnation):
        seat = super().seat(place, incarnation)
        near, far = socket.socketpair()
        inner = self._theirs[place]
        self._theirs[place] = far
        seat.fds = (far.fileno(), seat.fds[1])
        threading.Thread(target=delay, args=(inner, near), daemon=True).start()
        return seat


def delay(*ends):
    """Carry what comes at one end to the other one, late, until an end is closed."""
    late = {end: collections.deque() for end in ends}
    open_ends = set(ends)
    while open_ends or any(late.values()):
        due = min((queue[0][0] for queue in late.values() if queue), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        for end in select.select(list(open_ends), [], [], wait)[0]:
            other = ends[1] if end is ends[0] else ends[0]
            try:
                data = end.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            late[other].append((time.monotonic() + ONE_WAY, data))
            if not data:
                open_ends.discard(end)
        for end, queue in late.items():
            while queue and queue[0][0] <= time.monotonic():
                data = queue.popleft()[1]
                try:
                    end.sendall(data) if data else end.shutdown(socket.SHUT_WR)
                except OSError:
                    queue.clear()
    for end in ends:
        end.close()


@pytest.fixture
def make_crew(monkeypatch):
    monkeypatch.setattr(crews, "make_ways", DelayedWays)
    made = []

    def make(processes=2, *, maxtasks=None, retries=0):
        worker = WorkerOptions(None, (), maxtasks, None, None)
        process = partial(mp.get_context("fork").Process)
        made.append(Crew(CrewOptions(processes, process, worker, retries=retries, forks=True)))
        return made[-1]

    yield make
    for crew in made:
        crew.terminate()
        for process in crew.processes:
            process.close()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)


def start_map(crew, function, items, chunksize=1):
    return Calls(crew, None).map(function, items, (CALL, MAP), chunksize, MapResult(Owner(crew)), wait=False)


def warm(crew):
    crew.wait(lambda: all(hand.is_ready for hand in crew.books.hands), 30)
    assert start_map(crew, work.square, range(100)).get(30) == [x * x for x in range(100)]


def test_the_distance_is_not_felt(make_crew, time_limit):
    crew = make_crew(2)
    warm(crew)
    begin = time.monotonic()
    assert start_map(crew, work.nap, [0.001] * 800).get(time_limit(30)) == [0.001] * 800
    took = time.monotonic() - begin
    assert 0.4 < took < time_limit(0.8), "one at a time, it would take 400 round trips, 8 s"
    assert all(hand.pace.round_trip_ns > 2 * ONE_WAY * 1e9 for hand in crew.books.hands)


def test_a_slow_worker_gets_less(make_crew):
    crew = make_crew(2)
    warm(crew)
    slow = start_map(crew, work.pid, range(50)).get(30)[0]
    pids = start_map(crew, partial(work.pid_of_slow, slow, 0.01), range(600)).get(60)
    assert 0 < pids.count(slow) < 200


def test_what_another_has_ahead_is_asked_for(make_crew, tmp_path):
    crew = make_crew(2)
    warm(crew)
    path = str(tmp_path / "file")
    result = start_map(crew, work.wait_for_file, [path] + [os.devnull] * 50)
    others = IMapIterator(Owner(crew))
    Calls(crew, None).imap(others, work.wait_for_file, [os.devnull] * 50, 1, None)
    assert list(others) == ["seen"] * 50
    crew.wait(lambda: result._count(next(iter(crew.books.jobs.values()))) == 50, 30)
    (tmp_path / "file").touch()
    assert result.get(30) == ["seen"] * 51


def test_no_task_is_done_twice(make_crew, tmp_path):
    crew = make_crew(3)
    paths = [str(tmp_path / str(number)) for number in range(400)]
    assert start_map(crew, work.make_file, paths).get(60) == paths


@pytest.mark.slow
def test_a_killed_worker_loses_one_task_and_no_answer(make_crew):
    crew = make_crew(1)
    results = IMapIterator(Owner(crew))
    Calls(crew, None).imap(results, work.kill_itself_at, [(index, 60) for index in range(200)], 1, None)
    found, died = [], []
    for _ in range(200):
        try:
            found.append(next(results))
        except mp.WorkerDiedError as error:
            died.append((error.index, error.exitcode))
    assert found == [index for index in range(200) if index != 60]
    assert died == [(60, -signal.SIGKILL)]


def test_a_quota_is_kept_ahead(make_crew):
    crew = make_crew(2, maxtasks=30)
    pids = start_map(crew, work.pid, range(150)).get(60)
    assert max(pids.count(pid) for pid in pids) <= 30


def test_large_and_small_answers_keep_their_order(make_crew):
    crew = make_crew(2)
    sizes = [1, 1 << 20, 2, 1 << 14, 3, 1 << 22, *range(50)]
    assert [len(data) for data in start_map(crew, bytes, sizes).get(60)] == sizes
