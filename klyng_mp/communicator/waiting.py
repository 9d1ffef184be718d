"""The one place where an endpoint waits: for its descriptors, on behalf of all threads that wait for anything.

Layer: communicator; the only caller of epoll and of the threads' locks.

One of the waiting threads polls, the others sleep until the poller sees that what they wait for is
there, or until the poller leaves and one of them takes its place. No thread is started, and an idle
wait costs no CPU. The lock is never held while a thread sleeps, so signal handlers run at once.

Invariant: whoever changes something that a thread may wait for does so with the lock held, and calls
`WaitingRoom.notify` unless it is a callback of the poller.

Who waits leaves a note of what it waits for, for whoever asks why nothing goes on; it is read only then.
"""

from __future__ import annotations

import os
import select
from _thread import LockType, RLock, _count, allocate_lock, get_ident
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.native import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from klyng_mp.deadline import Deadline

__all__ = ["Chore", "EpollPoller", "Gate", "Guest", "PureGate", "Waiter", "WaitingRoom"]

_MAX_EVENTS = 64  # of one poll; the default makes room for a thousand each time
_LONGEST_SLEEP = 1_000_000.0  # seconds; epoll's and the locks' own limits are 25 days and more
# A signal that strikes between Python's last look at its signals and the kernel's call is seen only when that
# call returns. To give up the interpreter lets another thread send one just then; so where there are others,
# the first sleep is short. It is not where there are none, as a timer costs a tenth of a ping-pong.
_FIRST_SLEEP = 0.02


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
        wait: epoll's own ``poll(timeout, maxevents)``.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.callbacks: dict[int, Callable[[int], None]] = {}
        self.wait = self._epoll.poll
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

    def noises(self, before_sleep: bool) -> list[tuple[int, int]]:
        """Return as events what is due although its descriptor does not show it; nothing, if it is safe to sleep."""
        return [(fd, select.EPOLLIN) for fd, is_quiet in self._attended if not is_quiet(before_sleep)]

    def fileno(self) -> int:
        """Return the epoll descriptor, which is itself readable when something is due."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Close the epoll descriptor; the registered ones belong to others."""
        self._epoll.close()


class Chore(Protocol):
    """Something that goes on by itself while a thread waits for anything."""

    def advance(self) -> bool:
        """Do what can be done without waiting; return whether nothing is left. Called with the lock held."""


class Waiter:
    """One thread that waits.

    Args:
        ready: tells whether it has nothing to wait for.
        deadline: when it gives up.
        doing: its call as text; or a function and its arguments, which make that text when somebody asks.
        on: the peer that it needs; or a function that returns several, all of which it needs; None where any may
            help, or it is not known who.

    Attributes:
        since: when it began, by the monotonic clock; no two waits of a thread have the same.
        thread: the thread's number; 0 where there was only one.
    """

    __slots__ = ("alarm", "called", "deadline", "doing", "on", "ready", "since", "thread")

    def __init__(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str | tuple[Any, ...],
        on: int | Callable[[], Iterable[int]] | None,
    ) -> None:
        self.ready = ready
        self.deadline = deadline
        self.doing = doing
        self.on = on
        self.since = monotonic()
        self.thread = 0
        self.alarm: LockType | None = None  # held by the thread while it sleeps on it
        self.called = False

    @property
    def call(self) -> str:
        """What it does, as text."""
        if isinstance(self.doing, str):
            return self.doing
        make, *arguments = self.doing
        return str(make(*arguments))

    @property
    def peers(self) -> tuple[int, ...] | None:
        """Whom it needs; None where any may help, or it is not known who."""
        if self.on is None or isinstance(self.on, int):
            return None if self.on is None else (self.on,)
        return tuple(self.on()) or None

    def is_ready(self) -> bool:
        """Whether it has nothing to wait for; an exception is for the thread itself to meet."""
        try:
            return self.ready()
        except Exception:  # noqa: BLE001
            return True


class Guest(Protocol):
    """Who waits elsewhere, in an event loop that watches the room's poller, for what happens here.

    Attributes:
        called: it was woken and has not looked yet; it says so itself.
    """

    called: bool

    def is_ready(self) -> bool:
        """Whether it has something to do; called with the lock held, often, by any thread."""

    def wake(self) -> None:
        """Let it look: at what it waits for, and whether it may sleep. Called with the lock held, by any thread."""


class _Guests(list[Guest]):
    """The guests of one room."""

    def notify(self, *, everybody: bool) -> None:
        """Wake those that have something to do, or all."""
        for guest in tuple(self):
            if not guest.called and (everybody or guest.is_ready()):
                guest.called = True
                guest.wake()


def _nothing() -> None:
    pass


def _shortest(left: float | None, brief: float | None) -> float:
    pauses = [pause for pause in (left, brief, _LONGEST_SLEEP) if pause is not None]
    return min(pauses)


class WaitingRoom:
    """Where the threads of one endpoint wait.

    Args:
        spoiled: called when an exception escapes a callback of the poller, so that bytes may be lost.
        served: called after callbacks of the poller, for what must not be done within them.

    Attributes:
        lock: guards the endpoint and all below it; re-entrant, because callbacks call the endpoint.
        poller: what is waited for besides other threads.
        chores: what goes on by itself; each is dropped when nothing of it is left.
        guests: who waits in event loops; see `welcome`.
    """

    def __init__(self, spoiled: Callable[[], None], served: Callable[[], None] = _nothing) -> None:
        self.lock = Gate()
        self.poller = EpollPoller()
        self._spoiled = spoiled
        self.chores: list[Chore] = []
        self._working = False
        self._served = served
        self.guests = _Guests()
        self._waiters: list[Waiter] = []
        self._polling: Waiter | None = None
        self._calling = False
        self._turn = 0  # how often callbacks were called
        self._closed = False
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
    def waiters(self) -> list[Waiter]:
        """Who waits now; read it with the lock held."""
        return list(self._waiters)

    def wait(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str | tuple[Any, ...] = "",
        on: int | Callable[[], Iterable[int]] | None = None,
    ) -> bool:
        """Wait, with the lock held once, until ``ready()`` or `stopped`; return False if the deadline comes first.

        ``ready`` is called with the lock held, by any thread, often: it must be quick and change nothing.
        Even with a deadline that is over, what can be moved at once is moved first. See `Waiter` for the rest.
        """
        if self._is_over(ready):
            return True
        if self._calling:
            raise RuntimeError("a callback of the poller may not wait: it would wait for itself")
        waiter = Waiter(ready, deadline, doing, on)
        waiters = self._waiters
        waiters.append(waiter)
        self.lock.waiting += 1
        brief = None
        if _count():
            brief, waiter.thread = _FIRST_SLEEP, get_ident()
        try:
            while True:
                left = deadline.left()
                pause = left if left is None and brief is None else _shortest(left, brief)
                brief = None
                if left == 0:
                    self.progress()
                elif self._polling is not None:
                    self._sleep(waiter, pause)
                elif events := self._poll(waiter, pause):
                    self._call(events)
                    if len(waiters) > 1 or self.guests:
                        self.notify()
                if self._is_over(ready):
                    return True
                if left == 0:
                    return False
        finally:
            waiters.remove(waiter)
            self.lock.waiting -= 1
            if waiters or self.guests or self._closed:
                self._leave()

    def nap(self, port: core.Port, steps: int = 1) -> bool:
        """Sleep until this rank's bell rings, but leave what came there; return False if that is not wise, or not why.

        For a caller who then looks there himself, and else goes on to `wait`: it spares a message that is waited for
        the way through callbacks and mailbox. Only where no other thread is, whom the message might be for.

        Args:
            port: the core's.
            steps: how many steps of collectives it is for; only the last of them rings.
        """
        if self.lock.waiting or _count() or self.stopped or self._calling or self._closed or self.chores:
            return False
        return port.doze(self.lock, self.poller.fileno(), steps)

    def progress(self) -> None:
        """Do what is due at the descriptors, without waiting; needs the lock."""
        if self._calling or self._closed:
            return
        events = self.poller.wait(0, _MAX_EVENTS) + self.poller.noises(False)
        if events:
            self._call(events)
        if self.chores:
            self._work()
        if events:
            self.notify()
            # A bell that was silenced here may have been rung for others: they have to say anew that they sleep.
            self.guests.notify(everybody=True)
            if self._polling is not None and not self._polling.called:
                self._wake(self._polling)

    def notify(self) -> None:
        """Wake the threads that have nothing to wait for any more; needs the lock."""
        for waiter in self._waiters:
            if not waiter.called and (self.stopped or waiter.is_ready()):
                self._wake(waiter)
        if self.guests:
            self.guests.notify(everybody=self.stopped)

    def welcome(self, guest: Guest) -> None:
        """Wake this guest, too, when something happens, until `dismiss`; needs the lock."""
        self.guests.append(guest)
        self.lock.waiting += 1

    def dismiss(self, guest: Guest) -> None:
        """Wake this guest no more; needs the lock."""
        self.guests.remove(guest)
        self.lock.waiting -= 1
        if self._closed:
            self._leave()

    def is_quiet(self) -> bool:
        """Whether a guest may sleep until the poller's descriptor shows something; needs the lock."""
        return self._closed or self._polling is not None or not self.poller.noises(True)

    def close(self) -> None:
        """Close the descriptors, now or when the last thread has left; needs the lock.

        To be called when what every thread waits for has become true.
        """
        if self._closed:
            return
        self._closed = True
        if self._waiters or self.guests:
            self.notify()
        else:
            self._close_descriptors()

    def abandon(self) -> None:
        """Close this process's copies of the descriptors, in a forked child; its parent's are untouched."""
        stopped, self.lock = self.stopped, Gate()  # a thread that the child does not have may hold the old one
        self.stopped = stopped
        self._waiters.clear()
        self.guests.clear()
        self._closed = True
        self._close_descriptors()

    def _is_over(self, ready: Callable[[], bool]) -> bool:
        if self.chores:
            self._work()
        return ready() or self.stopped

    def _work(self) -> None:
        if self._working:  # a chore that sends makes progress, too
            return
        self._working = True
        try:
            self.chores = [chore for chore in self.chores if not chore.advance()]
        finally:
            self._working = False

    def _poll(self, waiter: Waiter, seconds: float | None) -> list[tuple[int, int]]:
        if noises := self.poller.noises(True):
            return self.poller.wait(0, _MAX_EVENTS) + noises  # or a peer that never stops would hide all others
        self._polling = waiter
        lock, turn = self.lock, self._turn
        try:
            lock.release()
            events = self.poller.wait(seconds, _MAX_EVENTS)
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
        return events if turn == self._turn else []

    def _sleep(self, waiter: Waiter, seconds: float | None) -> None:
        if waiter.alarm is None:
            waiter.alarm = allocate_lock()
            waiter.alarm.acquire()
        try:
            self.lock.release()
            woken = waiter.alarm.acquire(True, -1 if seconds is None else seconds)
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
        self._turn += 1
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
            if self.guests:
                self.guests.notify(everybody=True)
            elif self._closed:
                self._close_descriptors()
        elif self._polling is None and not any(waiter.called for waiter in self._waiters):
            self._wake(self._waiters[0])

    def _close_descriptors(self) -> None:
        if self._doorbell >= 0:
            self.poller.close()
            os.close(self._doorbell)
            self._doorbell = -1
