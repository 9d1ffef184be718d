"""Who waits for a pool's results, and who looks for them meanwhile.

Layer: pooling; imports communicator's poller.

One thread at a time looks for results: whoever waits for one, so that no result passes through a second thread, or
else the pool's own thread, which also calls back. It gives way to callers, and looks again two milliseconds later
whether anybody does the looking; where nothing is awaited it sleeps until a worker ends.

Invariants: the lock is never held while anything waits or the user is called. A caller may be interrupted anywhere (a
handler of the main thread raises): that he does not look or wait any more is noted first of all, without the lock, for
which he might be interrupted; where he then does not pass his turn on, the pool's thread does.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.communicator.room import LONGEST_SLEEP, EpollPoller

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Desk", "Work"]

_PAUSE = 0.002  # how late the pool's thread may be where a caller has stopped looking
_LONG_PAUSE = 0.016


class Work(Protocol):
    """What there is to be looked for."""

    @property
    def is_active(self) -> bool:
        """Whether anything is awaited."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will be awaited any more."""

    @property
    def has_calls(self) -> bool:
        """Whether the user is to be called back."""

    def look(self) -> None:
        """Take what has come; with the lock held."""

    def sleep(self, seconds: float | None) -> None:
        """Wait until something has come; without the lock."""

    def call_back(self) -> None:
        """Call the user back; without the lock, in the pool's own thread."""

    def break_down(self, error: Exception) -> None:
        """Nothing can be done any more."""


class _Bell:
    """An eventfd that is closed when nobody can wait on it any more."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it has been rung 2**64 times
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class _Waiter:
    __slots__ = ("is_done", "lock")

    def __init__(self, is_done: Callable[[], bool]) -> None:
        self.is_done = is_done
        self.lock = threading.Lock()
        self.lock.acquire()

    def wake(self) -> None:
        if self.lock.locked():
            self.lock.release()


class Desk:
    """The threads of a process that have to do with one pool.

    Attributes:
        lock: guards the pool; re-entrant, as finalizers may run anywhere.
        poller: what shows that something has come.
        deaths: what shows that a worker has ended.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.poller = EpollPoller()
        self.deaths = EpollPoller()
        self._idle = EpollPoller()
        self._work: Any = None
        self._waiters: list[_Waiter] = []
        self._looking: object | None = None
        self._own = object()
        self._kick = _Bell()
        self._alarm = _Bell()
        self._nudge = _Bell()
        self._is_enough: Callable[[], bool] | None = None  # what the caller who looks waits for
        self.poller.register(self._alarm.fd, select.EPOLLIN, lambda _: None)
        self.poller.register(self._nudge.fd, select.EPOLLIN, lambda _: self._nudge.silence())
        self.poller.register(self.deaths.fileno(), select.EPOLLIN, lambda _: self.see_deaths())
        self._idle.register(self.deaths.fileno(), select.EPOLLIN, lambda _: self.see_deaths())
        self._idle.register(self._kick.fd, select.EPOLLIN, lambda _: self._kick.silence())
        self.thread: threading.Thread | None = None
        self._closed = False

    def start(self, work: Work) -> None:
        """Look for something from now on.

        The pool's own thread is started when there is something for it to do, or the first call is over: workers that
        are just being born would make who starts it wait for his turn.
        """
        self._work = work

    def kick(self) -> None:
        """Let the pool's own thread look what has changed; with the lock held."""
        self._kick.ring()
        if self.thread is None and not self._closed:
            self.thread = threading.Thread(target=self._serve, name="klyng_mp pool", daemon=True)
            self.thread.start()

    def attend(self) -> None:
        """Something is awaited that nobody may wait for; with the lock held."""
        if self._looking is None:
            self.kick()

    def wait(self, is_done: Callable[[], bool], timeout: float | None) -> None:
        """Wait until something is done, or so many seconds are over, and do what is to be done meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not is_done():
            if not self._look_until(is_done, deadline):
                self._sleep_until(is_done, deadline)
            if deadline is not None and time.monotonic() >= deadline:
                return

    def notify(self) -> None:
        """Wake those who have got what they wait for; with the lock held."""
        for waiter in tuple(self._waiters):
            if waiter.is_done():
                waiter.wake()
        is_enough = self._is_enough
        if is_enough is not None and self._looking is not threading.current_thread() and is_enough():
            self._nudge.ring()

    def alarm(self) -> None:
        """Wake all threads that wait, now and ever after; with the lock held."""
        self._closed = True
        self._alarm.ring()
        self._kick.ring()

    def end(self) -> bool:
        """Wait until the pool's own thread has ended; return False where this is it."""
        if self.thread is threading.current_thread():
            return False
        if self.thread is not None:
            self.thread.join()
        return True

    def close(self) -> None:
        """Close what nobody waits on any more; the thread has ended. A caller who is just leaving keeps his poller."""
        self._idle.close()
        self.deaths.close()
        if self._looking is None:
            self.poller.close()
            for bell in (self._kick, self._nudge, self._alarm):
                bell.close()

    # -- inside

    def _pass_on(self) -> None:
        """Let another waiter look; with the lock held."""
        for waiter in tuple(self._waiters):
            if waiter.lock.locked():
                waiter.wake()
                return

    def _look_until(self, is_done: Callable[[], bool], deadline: float | None) -> bool:
        """Look until something is done; return False, at once, if somebody else looks."""
        begin = time.monotonic()
        mine = False
        try:
            with self.lock:
                if self._looking is not None:
                    return False
                self._looking, self._is_enough, mine = threading.current_thread(), is_done, True
            work, left = self._work, LONGEST_SLEEP
            while not is_done():
                if deadline is not None:
                    left = min(deadline - time.monotonic(), LONGEST_SLEEP)
                    if left <= 0:
                        break
                work.sleep(left)
                with self.lock:
                    work.look()
                    if self._waiters:
                        self.notify()
            return True
        finally:
            if mine:
                self._is_enough = self._looking = None
                self._pass_turn_on(begin)

    def _pass_turn_on(self, begin: float) -> None:
        with self.lock:
            if self._looking is not None:
                return
            if self._waiters:
                self._pass_on()
            elif self.thread is None or (self._work.is_active and time.monotonic() - begin > _PAUSE):
                self.kick()

    def _sleep_until(self, is_done: Callable[[], bool], deadline: float | None) -> None:
        """Sleep until somebody who looks says that something is done, or that he has stopped looking."""
        waiter = _Waiter(is_done)
        try:
            with self.lock:
                if is_done() or self._looking is None:
                    return
                self._waiters.append(waiter)
                if self._looking is self._own or self.thread is None:
                    self.kick()
            left = LONGEST_SLEEP if deadline is None else max(0.0, deadline - time.monotonic())
            waiter.lock.acquire(timeout=min(left, LONGEST_SLEEP))
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            with self.lock:
                if self._looking is None:
                    self._pass_on()

    def _serve(self) -> None:
        pause = _PAUSE
        try:
            while True:
                self._work.call_back()
                with self.lock:
                    if self._work.is_over:
                        return
                    active = self._work.is_active
                    mine = False
                    if active and self._looking is None:
                        if self._waiters:
                            self._pass_on()
                        else:
                            self._looking, mine = self._own, True
                if mine:
                    self._look_for_all()
                    pause = _PAUSE
                    continue
                self._wait_idly(pause if active else None)
                pause = min(pause * 2, _LONG_PAUSE)
        except Exception as error:  # noqa: BLE001 - else everybody would wait for ever
            self._work.break_down(error)

    def _look_for_all(self) -> None:
        self.poller.register(self._kick.fd, select.EPOLLIN, lambda _: self._kick.silence())
        try:
            while True:
                with self.lock:
                    work = self._work
                    work.look()
                    self.notify()
                    if any(not waiter.is_done() for waiter in self._waiters):
                        return
                    if work.has_calls or work.is_over or not work.is_active:
                        return
                work.sleep(None)
        finally:
            with self.lock:
                self.poller.unregister(self._kick.fd)
                self._looking = None
                self._pass_on()

    def _wait_idly(self, seconds: float | None) -> None:
        events = self._idle.wait(seconds)
        with self.lock:
            for fd, event in events:
                self._idle.callbacks[fd](event)

    def see_deaths(self) -> None:
        """Tell what shows of workers' ends; with the lock held."""
        if self._closed:  # since somebody was woken by it
            return
        for fd, event in self.deaths.wait(0):
            callback = self.deaths.callbacks.get(fd)
            if callback is not None:
                callback(event)
