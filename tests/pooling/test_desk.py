from __future__ import annotations

import os
import select
import threading
import time

import pytest

from klyng_mp.pooling.desk import Desk


class Work:
    """Something comes when somebody writes into a pipe."""

    def __init__(self, desk):
        self.desk = desk
        self.is_active = self.is_over = self.has_calls = False
        self.come, self.called, self.lookers = 0, 0, set()
        self.reader, self.writer = os.pipe()
        desk.poller.register(self.reader, select.EPOLLIN, self.read)

    def read(self, _):
        self.come += len(os.read(self.reader, 100))

    def look(self):
        self.lookers.add(threading.current_thread())

    def sleep(self, seconds):
        events = self.desk.poller.wait(-1 if seconds is None else seconds)
        with self.desk.lock:
            for fd, event in events:
                self.desk.poller.callbacks[fd](event)

    def call_back(self):
        self.called += self.has_calls
        self.has_calls = False

    def break_down(self, error):
        self.broken = error


@pytest.fixture
def work():
    desk = Desk()
    work = Work(desk)
    desk.start(work)
    yield work
    work.is_over = True
    with desk.lock:
        desk.alarm()
    assert desk.end()
    desk.close()
    os.close(work.reader)
    os.close(work.writer)


def test_who_waits_looks_himself(work):
    os.write(work.writer, b"x")
    work.desk.wait(lambda: work.come > 0, None)
    assert threading.current_thread() in work.lookers


def test_a_time_limit(work):
    begin = time.monotonic()
    work.desk.wait(lambda: False, 0.05)
    assert time.monotonic() - begin >= 0.05


@pytest.mark.parametrize("active", [False, True])
def test_several_wait_and_one_looks(work, active):
    work.is_active = active
    done = []
    threads = [
        threading.Thread(target=lambda n=n: (work.desk.wait(lambda: work.come > n, 30), done.append(n)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for n in range(4):
        os.write(work.writer, b"x")
    for thread in threads:
        thread.join(30)
    assert sorted(done) == [0, 1, 2, 3]


def test_the_pools_own_thread_looks_where_nobody_waits(work):
    seen = threading.Event()

    def look():
        work.lookers.add(threading.current_thread())
        if work.come:
            work.is_active = False
            seen.set()

    work.look = look
    work.is_active = True
    with work.desk.lock:
        work.desk.attend()
    os.write(work.writer, b"x")
    assert seen.wait(30)
    assert work.desk.thread in work.lookers


def test_callbacks_are_called_in_the_pools_own_thread(work):
    work.has_calls = True
    with work.desk.lock:
        work.desk.kick()
    end = time.monotonic() + 30
    while not work.called and time.monotonic() < end:
        os.sched_yield()
    assert work.called == 1


def test_another_threads_news_wake_who_looks(work):
    flag = []
    thread = threading.Thread(target=work.desk.wait, args=(lambda: bool(flag), 30))
    thread.start()
    while work.desk._looking is not thread:
        os.sched_yield()
    with work.desk.lock:
        flag.append(1)
        work.desk.notify()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("others", [0, 1, 3])
def test_an_interrupt_between_a_look_and_passing_the_turn_on(work, monkeypatch, others):
    work.is_active = True
    done = []
    threads = [
        threading.Thread(target=lambda n=n: (work.desk.wait(lambda: work.come > 1 + n, 30), done.append(n)))
        for n in range(others)
    ]

    def is_done():
        if work.desk._looking is None:
            return False
        for thread in threads:
            if not thread.ident:
                thread.start()
        while len(work.desk._waiters) < others:
            os.sched_yield()
        return work.come > 0

    def interrupt(_desk, _begin):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Desk, "_pass_turn_on", interrupt)
    os.write(work.writer, b"x")
    with pytest.raises(KeyboardInterrupt):
        work.desk.wait(is_done, None)
    os.write(work.writer, b"x" * others)
    for thread in threads:
        thread.join(30)
    assert sorted(done) == list(range(others))
    os.write(work.writer, b"x")
    work.desk.wait(lambda: work.come > others + 1, 30)
    assert work.come == others + 2


@pytest.mark.parametrize("timeout", [None, 30, 0.5])
def test_nobody_sleeps_so_long_that_a_signal_before_it_would_be_lost(work, timeout):
    """One that strikes between the interpreter's last look at signals and the kernel's call does not end that call."""
    slept = []
    work.sleep = slept.append
    work.desk.wait(lambda: len(slept) == 3, timeout)
    assert len(slept) == 3
    assert all(0 < seconds <= min(1.0, timeout or 1.0) for seconds in slept)
