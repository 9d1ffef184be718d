"""The state of a lock, a recursive lock or a semaphore.

Layer: objects; sans-IO.

Invariants: nobody waits while a permit is to be had; permits are given in the order in which they were asked for; one
that was given to who cancels is given back by nobody but its owner. What becomes of permits whose process has ended is
told in `klyng_mp.synchronize`.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from klyng_mp.objects.orders import Outcome, What

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.objects.orders import Asker, Content, Order, Process

__all__ = ["LOCK", "RECURSIVE", "SEMAPHORE", "Answer", "SemaphoreState"]

LOCK, RECURSIVE, SEMAPHORE = range(3)


class Answer(Protocol):
    """Takes a state's answers: to whom, one of `Outcome`, numbers, and an object's content."""

    def __call__(  # noqa: PLR0917 - a record, made for every answer
        self, asker: Asker, outcome: int, first: int = 0, second: int = 0, third: int = 0, content: Content = ...
    ) -> None:
        """Send it, or forget it where nobody wants one."""


class _Waiting:
    """Who waits for a permit.

    Attributes:
        depth: how often a recursive lock is to be held.
        then: what is done instead of an answer; it is given one of `Outcome`.
    """

    __slots__ = ("asker", "depth", "then")

    def __init__(self, asker: Asker, depth: int, then: Callable[[int], None] | None) -> None:
        self.asker = asker
        self.depth = depth
        self.then = then


class SemaphoreState:
    """Permits, who has them, and who waits for one.

    Args:
        answer: takes the answers.
        kind: LOCK, RECURSIVE or SEMAPHORE.
        value: how many permits there are at first.
        maximum: how many there may be.

    Attributes:
        broken: who has made it useless by being killed: its place and thread; None as long as nobody has.
        on_broken: called when it becomes useless, for those who wait in a condition.
    """

    def __init__(self, answer: Answer, kind: int, value: int, maximum: int) -> None:
        self._answer = answer
        self._kind = kind
        self._value = value
        self._maximum = maximum
        self._owner: tuple[int, int, int] | None = None  # the thread that has a lock
        self._depth = 0
        self._held: Counter[Process] = Counter()
        self._dead: Counter[Process] = Counter()  # permits of the killed, and of those who have ended
        self._killed: set[Process] = set()
        self._owned = value > 0  # whether it is known whose permits are whose
        self._waiting: list[_Waiting] = []
        self.broken: Process | None = None
        self.on_broken: list[Callable[[], None]] = []

    # -- what is asked for

    def ask(self, order: Order) -> None:
        """Do what a client asks for."""
        asker = order.asker
        if order.what == What.ACQUIRE:
            self.acquire(asker, block=bool(order.first))
        elif order.what == What.RELEASE:
            self._answer(asker, self.release(asker), *(self.broken or (0, 0)))
        elif order.what == What.LET_GO:
            self._answer(asker, Outcome.YES if self.let_go(asker) else Outcome.NOT_OWNED)
        elif order.what == What.COUNT:
            self._answer(asker, Outcome.YES, self._value, int(self._owner == asker.owner))
        else:
            self._answer(asker, Outcome.UNKNOWN)

    def acquire(
        self, asker: Asker, depth: int = 1, *, block: bool = True, then: Callable[[int], None] | None = None
    ) -> None:
        """Give a permit now, or when there is one; or refuse it."""
        waiting = _Waiting(asker, depth, then)
        if self.broken is not None:
            self._tell(waiting, Outcome.BROKEN, self.broken)
        elif self._kind == RECURSIVE and self._owner == asker.owner:
            self._depth += depth
            self._tell(waiting, Outcome.YES)
        elif self._value:
            self._give(waiting)
        elif (culprit := self._culprit()) is not None and (block or culprit in self._killed):
            self._tell(waiting, Outcome.BROKEN if culprit in self._killed else Outcome.ENDED, culprit)
        elif block:
            self._waiting.append(waiting)
        else:
            self._tell(waiting, Outcome.NO)

    def release(self, asker: Asker) -> int:
        """Take a permit back; return YES, or why that cannot be."""
        if self.broken is not None:
            return Outcome.BROKEN
        if self._kind == RECURSIVE:
            if self._owner != asker.owner:
                return Outcome.NOT_OWNED
            self._depth -= 1
            if self._depth:
                return Outcome.YES
        elif self._value >= self._maximum:
            return Outcome.TOO_OFTEN
        self._take_back(asker.process)
        self._owner = None
        self._value += 1
        self._serve()
        return Outcome.YES

    def let_go(self, asker: Asker) -> int:
        """Take a lock back from its owner, however often it holds it; return how often, or 0 from another one."""
        if self._owner != asker.owner:
            return 0
        depth, self._depth = max(1, self._depth), 1
        self.release(asker)
        return depth

    def is_owner(self, asker: Asker) -> bool:
        """Whether the asker's thread has the lock."""
        return self._owner == asker.owner

    def cancel(self, asker: Asker) -> None:
        """Take back what was asked for, if it waits."""
        for waiting in self._waiting:
            if waiting.asker == asker and waiting.then is None:
                self._waiting.remove(waiting)
                self._answer(asker, Outcome.CANCELLED)
                return

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended, by itself or not."""
        self._waiting = [one for one in self._waiting if one.asker.process != process]
        count = self._held.pop(process, 0)
        if not count or not self._owned:
            return
        self._dead[process] = count
        if not orderly:
            self._killed.add(process)
            if self._kind != SEMAPHORE:
                self.broken = process
        culprit = self._culprit()
        if self._value == 0 and culprit is not None:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._tell(one, Outcome.BROKEN if culprit in self._killed else Outcome.ENDED, culprit)
        if self.broken is not None:
            for call in self.on_broken:
                call()

    # -- inside

    def _culprit(self) -> Process | None:
        """Return whose end makes it vain to wait: somebody's who was killed, or anybody's if all permits are lost."""
        if self._killed:
            return next(iter(self._killed))
        return next(iter(self._dead), None) if not self._held else None

    def _give(self, waiting: _Waiting) -> None:
        asker = waiting.asker
        self._value -= 1
        if self._kind != SEMAPHORE:
            self._owner, self._depth = asker.owner, waiting.depth
        if self._owned:
            self._held[asker.process] += 1
        self._tell(waiting, Outcome.YES)

    def _take_back(self, process: Process) -> None:
        """Forget one permit: the process's own, else a dead one's, else that of whoever has the lock."""
        if not self._owned:
            return
        holder: Process | None = process
        if process not in self._held:
            holder = next(iter(self._dead), None)
            if holder is None and self._kind != SEMAPHORE:
                holder = next(iter(self._held), None)
        if holder is None:  # a signal: its permits belong to nobody
            self._owned = False
            self._held.clear()
            return
        counter = self._held if holder in self._held else self._dead
        counter[holder] -= 1
        if not counter[holder]:
            del counter[holder]
            self._killed.discard(holder)

    def _serve(self) -> None:
        while self._value and self._waiting:
            self._give(self._waiting.pop(0))

    def _tell(self, waiting: _Waiting, outcome: int, culprit: Process | None = None) -> None:
        if waiting.then is not None:
            waiting.then(outcome)
        else:
            place, incarnation = culprit or (0, 0)
            self._answer(waiting.asker, outcome, place, incarnation)
