"""The one place where an endpoint waits: for its descriptors, on behalf of all threads that wait for anything.

Layer: communicator.

One of the waiting threads polls, the others sleep until the poller sees that what they wait for is
there, or until the poller leaves and one of them takes its place. No thread is started, and an idle
wait costs next to no CPU: it looks once a second whether a signal has come.

Invariant: whoever changes something that a thread may wait for does so with the lock held, and calls
`WaitingRoom.notify` unless it is a callback of the poller.

Who waits leaves a note of what it waits for, for whoever asks why nothing goes on; it is read only then.
"""

from __future__ import annotations

import math
from _thread import _count, get_ident
from collections import defaultdict
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.room import LONGEST_SLEEP, MAX_EVENTS, Room
from klyng_mp.communicator.waiters import Chore, Guest, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from klyng_mp.deadline import Deadline
    from klyng_mp.native import core

__all__ = ["WaitingRoom"]

# See LONGEST_SLEEP. To give up the interpreter lets another thread send a signal just then: so where there are others,
# the first sleep is short.
_FIRST_SLEEP = 0.02


def _nothing() -> None:
    pass


class WaitingRoom(Room):
    """Where the threads of one endpoint wait; see `Room` for its arguments and further attributes.

    Attributes:
        chores: what goes on by itself; each is dropped when nothing of it is left.
        steps: how often any of it went on: what a thread waits for may come nearer by that, and others get messages.
        waited: how many nanoseconds were waited, and how often, by whom it was for, or None. Threads that wait at once
            count one by one; what is moved and called meanwhile counts, too, since nothing else could be done.
    """

    def __init__(self, spoiled: Callable[[], None], served: Callable[[], None] = _nothing) -> None:
        super().__init__(spoiled, served)
        self.waited: defaultdict[int | None, list[int]] = defaultdict(lambda: [0, 0])
        self.chores: list[Chore] = []
        self.steps = 0
        self._working = False

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
        began = perf_counter_ns()
        waiter = Waiter(ready, deadline, doing, on)
        needed = waiter.peers
        waiters = self._waiters
        try:
            # An interrupt may strike after any call: so the count comes first, and the call within what undoes it.
            self.lock.waiting += 1
            waiters.append(waiter)
            longest = self._mind_threads(waiter) if _count() else LONGEST_SLEEP
            while True:
                left = deadline.left()
                pause = longest if left is None or left > longest else left
                longest = LONGEST_SLEEP
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
            self.lock.waiting -= 1
            try:
                waiters.remove(waiter)
                self._account(needed[0] if needed is not None and len(needed) == 1 else None, began)
            finally:
                if waiters or self.guests or self._closed or self.attendant is not None:
                    self._leave_for_sure()

    def nap(self, port: core.Port, steps: int = 0, on: int | None = None) -> bool:
        """Sleep until this rank's bell rings, but leave what came there; return False if that is not wise, or not why.

        For a caller who then looks there himself, and else goes on to `wait`: it spares a message that is waited for
        the way through callbacks and mailbox. Only where no other thread is, whom the message might be for.

        Args:
            port: the core's.
            steps: how many steps of collectives it is for, of which only the last one rings; 0 for any message.
            on: the peer that is waited for, if it is one.
        """
        if self.lock.waiting or self.stopped or self._calling or self._closed or self.chores:
            return False
        began = perf_counter_ns()
        if not _count():
            woken = port.doze(self.lock, self.poller.fileno(), steps)
        else:
            woken = self._nap_beside_attendant(port, steps)
        if on is None and woken and port.ringer < port.size:  # of several it was the last
            on = port.ringer
        self._account(on, began)
        return woken

    def progress(self) -> None:
        """Do what is due at the descriptors, without waiting; needs the lock."""
        if self._calling or self._closed:
            return
        events = self.poller.wait(0, MAX_EVENTS) + self.poller.noises(False)
        if events:
            self._call(events)
        if self.chores:
            self._work()
        if events or self._waiters:  # what they wait for may have come past the poller
            self.notify()
        if events:
            # A bell that was silenced here may have been rung for others: they have to say anew that they sleep.
            self.guests.notify(everybody=True)
            if self._polling is not None and not self._polling.called:
                self._wake(self._polling)

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

    def rest(self) -> float:
        """Return for how many seconds a guest may sleep, unless the poller's descriptor shows something.

        Needs the lock.
        """
        if self._closed or self._polling is not None:
            return math.inf
        if self.poller.noises(True):
            return 0.0
        return math.inf if self.poller.pause is None else self.poller.pause(math.inf)

    def _leave_for_sure(self) -> None:
        try:
            self._leave()
        except BaseException:
            self._leave()  # whoever is to go on must be told of it, also where an interrupt came in between
            raise

    def _mind_threads(self, waiter: Waiter) -> float:
        """Send the attendant away; return how long the first sleep may be, where there are threads of the program."""
        attendant = self.attendant
        if attendant is not None:
            if attendant.is_watching:
                attendant.send_away()
            if _count() == 1:
                return LONGEST_SLEEP
        waiter.thread = get_ident()
        return _FIRST_SLEEP

    def _nap_beside_attendant(self, port: core.Port, steps: int) -> bool:
        """See `nap`; where the only other thread is the attendant."""
        attendant = self.attendant
        if attendant is None or _count() > 1:
            return False
        self._napping = True  # first to say it and then to look, as the attendant does: the lock is not held
        try:
            return not attendant.is_watching and port.doze(self.lock, self.poller.fileno(), steps)
        finally:
            self._napping = False
            if attendant.wants_call:
                attendant.call()

    def _is_over(self, ready: Callable[[], bool]) -> bool:
        if self.chores:
            self._work()
        return ready() or self.stopped

    def _work(self) -> None:
        if self._working:  # a chore that sends makes progress, too
            return
        self._working = True
        try:
            left = [chore for chore in self.chores if not chore.advance()]
            some_are_over = len(left) < len(self.chores)
            self.chores = left
            if some_are_over and (self._waiters or self.guests):
                self.notify()  # for what a thread may sleep
        finally:
            self._working = False

    def _account(self, on: int | None, began: int) -> None:
        spent = self.waited[on]
        spent[0] += perf_counter_ns() - began
        spent[1] += 1
