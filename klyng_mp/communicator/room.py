"""How the threads of an endpoint poll, sleep, and wake each other: what `waiting` is made of.

Layer: communicator; the only caller of epoll and of the threads' locks.

The lock is never held while a thread sleeps, so signal handlers run at once.
"""

from __future__ import annotations

import math
import os
import select
from _thread import RLock, allocate_lock
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from klyng_mp.communicator.waiters import Guests, Waiter
from klyng_mp.native import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.attendant import Attendant

__all__ = ["LONGEST_SLEEP", "MAX_EVENTS", "EpollPoller", "Gate", "PureGate", "Room"]

_MOST_SKIPPED = 255  # waits, after spins that were in vain, until another is tried
# A signal that strikes between Python's last look at its signals and the kernel's call is seen only when that call
# returns: so no sleep of a thread that handlers may interrupt is longer. Seconds; the core's SLICE_MS.
LONGEST_SLEEP = 1.0
MAX_EVENTS = 64  # of one poll; the default makes room for a thousand each time


class PureGate(RLock):  # type: ignore[misc]  # the stubs call it final; it is not
    """A re-entrant lock, and whether the core's short way past it is open, which without the core nobody asks.

    Attributes:
        lowest: contexts below it belong to runs that are over.
        waiting: how many threads wait.
        stopped: the endpoint refuses everything.
    """

    __slots__ = ("lowest", "stopped", "waiting")

    def __init__(self) -> None:
        self.lowest = self.waiting = 0
        self.stopped = False


if TYPE_CHECKING or core is None:  # noqa: SIM108 - mypy takes this for a name of the class
    Gate = PureGate
else:
    Gate = core.Gate


class EpollPoller:
    """Descriptors and what to call when something is due at one of them; see `Poller`.

    Attributes:
        callbacks: by descriptor.
        wait: epoll's own ``poll(timeout, maxevents)``, or one that returns early; see `pace`.
        pause: says for how long one may sleep, of so many seconds; None: until something shows.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.callbacks: dict[int, Callable[[int], None]] = {}
        self.wait: Callable[..., list[tuple[int, int]]] = self._epoll.poll
        self.pause: Callable[[float], float] | None = None
        self._attended: list[tuple[int, Callable[[bool], bool]]] = []

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """See `Poller.register`."""
        self._epoll.register(fd, events)
        self.callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        """See `Poller.modify`."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """See `Poller.unregister`."""
        if self.callbacks.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)
        self._attended = [(other, is_quiet) for other, is_quiet in self._attended if other != fd]

    def attend(self, fd: int, is_quiet: Callable[[bool], bool]) -> None:
        """See `Poller.attend`."""
        self._attended.append((fd, is_quiet))

    def pace(self, pause: Callable[[float], float]) -> None:
        """See `Poller.pace`."""
        poll, self.pause = self._epoll.poll, pause

        def wait(seconds: float | None = None, maxevents: int = MAX_EVENTS) -> list[tuple[int, int]]:
            if seconds == 0:
                return poll(0, maxevents)
            return poll(pause(math.inf if seconds is None or seconds < 0 else seconds), maxevents)

        self.wait = wait

    def noises(self, before_sleep: bool) -> list[tuple[int, int]]:
        """Return as events what is due although its descriptor does not show it; nothing, if it is safe to sleep."""
        return [(fd, select.EPOLLIN) for fd, is_quiet in self._attended if not is_quiet(before_sleep)]

    def fileno(self) -> int:
        """Return the epoll descriptor, which is itself readable when something is due."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close the epoll descriptor; the registered ones belong to others."""
        self._epoll.close()


class Room:
    """The threads of one endpoint, of which one polls while the others sleep.

    Args:
        spoiled: called when an exception escapes a callback of the poller, so that bytes may be lost.
        served: called after callbacks of the poller, for what must not be done within them.

    Attributes:
        lock: guards the endpoint and all below it; re-entrant, because callbacks call the endpoint.
        poller: what is waited for besides other threads.
        guests: who waits in event loops.
        attendant: the thread that serves while nobody waits, if there is one.
        spin_seconds: for how long it is looked before a thread sleeps; only where a core is free for that.
        turn: how often callbacks were called.
    """

    def __init__(self, spoiled: Callable[[], None], served: Callable[[], None]) -> None:
        self.lock = Gate()
        self.poller = EpollPoller()
        self.guests = Guests()
        self._spoiled = spoiled
        self._served = served
        self._waiters: list[Waiter] = []
        self._polling: Waiter | None = None
        self._calling = False
        self.turn = 0
        self._closed = False
        self.spin_seconds = 0.0
        self._vain_spins = self._spins_to_skip = 0
        self._napping = False
        self.attendant: Attendant | None = None
        self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # Only the thread that it was rung for may silence it: others that look meanwhile leave it alone.
        self.poller.register(self._doorbell, select.EPOLLIN, lambda _: None)

    @property
    def stopped(self) -> bool:
        """Whether nobody is to wait any more; set it with the lock held, then `notify`."""
        return self.lock.stopped

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self.lock.stopped = stopped

    @property
    def closed(self) -> bool:
        """Whether its descriptors are closed, or will be when the last thread has left."""
        return self._closed

    def notify(self) -> None:
        """Wake the threads that have nothing to wait for any more; needs the lock."""
        for waiter in self._waiters:
            if not waiter.called and (self.stopped or waiter.is_ready()):
                self._wake(waiter)
        if self.guests:
            self.guests.notify(everybody=self.stopped)

    def close(self) -> None:
        """Close the descriptors, now or when the last thread has left; needs the lock.

        To be called when what every thread waits for has become true.
        """
        if self._closed:
            return
        self._closed = True
        if self.attendant is not None:
            self.attendant.stop()
        if self._waiters or self.guests:
            self.notify()
        else:
            self._close_if_left()

    @property
    def is_calling(self) -> bool:
        """Whether callbacks of the poller are being called; needs the lock."""
        return self._calling

    @property
    def is_used(self) -> bool:
        """Whether a thread waits here, or naps, and so serves the descriptors; needs the lock."""
        return self._napping or bool(self._waiters)

    def attend(self) -> None:
        """Have the descriptors served by a thread of their own while nobody waits; needs the lock."""
        if self.attendant is None and not self._closed and not self.stopped:
            from klyng_mp.communicator.attendant import Attendant  # noqa: PLC0415 - only where peers are remote

            self.attendant = Attendant(self)
            self.attendant.start()

    def leave_to_attendant(self, errand: Callable[[], bool]) -> None:
        """Have the attendant, if there is one, call this soon, and again until it returns True; needs the lock."""
        if self.attendant is not None:
            self.attendant.send(errand)

    def dismiss_attendant(self) -> None:
        """Undo `attend`, and wait until that thread has ended; not with the lock held."""
        with self.lock:
            attendant = self.attendant
            if attendant is not None:
                attendant.stop()
        if attendant is not None:
            attendant.join()

    def spoil(self) -> None:
        """Refuse everything, since an exception has come where there is nobody to tell; needs the lock."""
        self._spoiled()

    def part(self) -> None:
        """Take note that the attendant's thread ends; needs the lock."""
        self.attendant = None
        self._close_if_left()

    def progress(self) -> None:
        """Do what is due at the descriptors, without waiting; needs the lock."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Close this process's copies of the descriptors, in a forked child; its parent's are untouched."""
        stopped, self.lock = self.stopped, Gate()  # a thread that the child does not have may hold the old one
        self.stopped = stopped
        self._waiters.clear()
        self.guests.clear()
        if self.attendant is not None:
            self.attendant.abandon()
            self.attendant = None
        self._closed = True
        self._close_descriptors()

    def _poll(self, waiter: Waiter, seconds: float) -> list[tuple[int, int]]:
        if noises := self.poller.noises(True):
            return self.poller.wait(0, MAX_EVENTS) + noises  # or a peer that never stops would hide all others
        self._polling = waiter
        lock, turn = self.lock, self.turn
        try:
            lock.release()
            events = self._spin() or self.poller.wait(seconds, MAX_EVENTS)
        finally:
            try:
                lock.acquire()
            except BaseException:
                self._acquire_after_all()
                raise
            finally:
                self._polling = None
                if waiter.called:
                    waiter.called = False
                    os.eventfd_read(self._doorbell)
        # Another thread may have served them since; what is still due will be told again.
        return events if turn == self.turn else []

    def _spin(self) -> list[tuple[int, int]]:
        """Look for as long as it may take to wake up, unless that was in vain lately; return what is due."""
        if not self.spin_seconds:
            return []
        if self._spins_to_skip:
            self._spins_to_skip -= 1
            return []
        end = perf_counter() + self.spin_seconds
        wait = self.poller.wait
        while not (events := wait(0, MAX_EVENTS)):
            if perf_counter() > end:
                self._vain_spins = min(2 * self._vain_spins + 1, _MOST_SKIPPED)
                self._spins_to_skip = self._vain_spins
                return []
        self._vain_spins = 0
        return events

    def _sleep(self, waiter: Waiter, seconds: float) -> None:
        if waiter.alarm is None:
            waiter.alarm = allocate_lock()
            waiter.alarm.acquire()
        try:
            self.lock.release()
            woken = waiter.alarm.acquire(True, seconds)
        finally:
            try:
                self.lock.acquire()
            except BaseException:
                self._acquire_after_all()
                raise
        if waiter.called:
            waiter.called = False
            if not woken:  # it was rung for when the time was over
                waiter.alarm.acquire(False)

    def _acquire_after_all(self) -> None:
        """Take the lock although a signal handler raised meanwhile: the callers' ``with`` is going to release it."""
        while not self.lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition does
            with suppress(BaseException):  # the first interruption is on its way already
                self.lock.acquire()

    def _call(self, events: list[tuple[int, int]]) -> None:
        callbacks = self.poller.callbacks
        self.turn += 1
        self._calling = True
        try:
            for fd, happened in events:
                callback = callbacks.get(fd)
                if callback is not None:  # an earlier callback may have unregistered it
                    callback(happened)
        except BaseException:
            self._spoiled()
            raise
        finally:
            self._calling = False
        self._served()

    def _wake(self, waiter: Waiter) -> None:
        waiter.called = True
        if waiter is self._polling:
            os.eventfd_write(self._doorbell, 1)
        elif waiter.alarm is not None:
            waiter.alarm.release()

    def _leave(self) -> None:
        """Let another thread poll, unless one does or is about to, or guests; the last one out closes."""
        if not self._waiters:
            if self.attendant is not None and self.attendant.wants_call:
                self.attendant.call()
            if self.guests:
                self.guests.notify(everybody=True)
            else:
                self._close_if_left()
        elif self._polling is None and not any(waiter.called for waiter in self._waiters):
            self._wake(self._waiters[0])

    def _close_if_left(self) -> None:
        if self._closed and not self._waiters and not self.guests and self.attendant is None:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        if self._doorbell >= 0:
            self.poller.close()
            os.close(self._doorbell)
            self._doorbell = -1
