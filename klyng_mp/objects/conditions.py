"""The state of a condition variable, and of an event.

Layer: objects; sans-IO.

Invariants: who waits in a condition does not have its lock, and has it again when it is answered, unless the lock is
broken; those that have waited longest are called first; a call is never lost to one who has given up.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from klyng_mp.objects.orders import Outcome, What

if TYPE_CHECKING:
    from klyng_mp.objects.orders import Asker, Order, Process
    from klyng_mp.objects.semaphores import Answer, SemaphoreState

__all__ = ["ConditionState", "EventState"]


class ConditionState:
    """Who waits to be called.

    Args:
        answer: takes the answers: YES to who was called, NO to who gave up; both have the lock again.
        lock: the condition's.
    """

    def __init__(self, answer: Answer, lock: SemaphoreState) -> None:
        self._answer = answer
        self._lock = lock
        self._waiting: dict[Asker, int] = {}  # how often each held the lock, in the order in which they came
        lock.on_broken.append(self._break)

    def ask(self, order: Order) -> None:
        """Do what a client asks for."""
        asker = order.asker
        if order.what == What.WAIT:
            if depth := self._lock.let_go(asker):
                self._waiting[asker] = depth
            else:
                self._answer(asker, Outcome.NOT_OWNED)
        elif order.what == What.NOTIFY:
            if not self._lock.is_owner(asker):
                self._answer(asker, Outcome.NOT_OWNED)
                return
            for waiting in list(self._waiting)[: max(0, order.first)]:
                self._resume(waiting, Outcome.YES)
            self._answer(asker, Outcome.YES)
        else:
            self._answer(asker, Outcome.UNKNOWN)

    def cancel(self, asker: Asker) -> None:
        """Let one give up, if it was not called; it is answered when it has the lock again."""
        if asker in self._waiting:
            self._resume(asker, Outcome.NO)

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended."""
        del orderly
        for asker in [asker for asker in self._waiting if asker.process == process]:
            del self._waiting[asker]

    def _resume(self, asker: Asker, outcome: int) -> None:
        depth = self._waiting.pop(asker)
        self._lock.acquire(asker, depth, then=partial(self._resumed, asker, outcome))

    def _resumed(self, asker: Asker, outcome: int, got: int) -> None:
        if got == Outcome.YES:
            self._answer(asker, outcome)
        else:
            self._answer(asker, got, *(self._lock.broken or (0, 0)))

    def _break(self) -> None:
        for asker in list(self._waiting):
            del self._waiting[asker]
            self._answer(asker, Outcome.BROKEN, *(self._lock.broken or (0, 0)))


class EventState:
    """A flag, and who waits for it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._set = False
        self._waiting: list[Asker] = []

    def ask(self, order: Order) -> None:
        """Do what a client asks for; who waits is answered also if the flag is cleared right after it was set."""
        asker = order.asker
        if order.what == What.WAIT and not self._set:
            self._waiting.append(asker)
            return
        if order.what == What.SET:
            self._set = True
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._answer(one, Outcome.YES, 1)
        elif order.what == What.CLEAR:
            self._set = False
        elif order.what not in {What.LOOK, What.WAIT}:
            self._answer(asker, Outcome.UNKNOWN)
            return
        self._answer(asker, Outcome.YES, int(self._set))

    def cancel(self, asker: Asker) -> None:
        """Let one wait no more."""
        if asker in self._waiting:
            self._waiting.remove(asker)
            self._answer(asker, Outcome.CANCELLED)

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended."""
        del orderly
        self._waiting = [asker for asker in self._waiting if asker.process != process]
