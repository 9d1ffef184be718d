"""Conditions, events and barriers that processes on any host of a World use, under multiprocessing's names.

Layer: objects.

Cost: each call is a message to the driver and one back; in the driver, none.
"""

from __future__ import annotations

import threading
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.objects.asking import How
from klyng_mp.objects.barriers import BarrierState
from klyng_mp.objects.conditions import ConditionState, EventState
from klyng_mp.objects.locks import RLock, SharedLock
from klyng_mp.objects.orders import Outcome, What
from klyng_mp.objects.semaphores import SemaphoreState
from klyng_mp.objects.shared import Shared, check_broken

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from klyng_mp.objects.asking import Asking
    from klyng_mp.objects.orders import Order
    from klyng_mp.objects.semaphores import Answer
    from klyng_mp.objects.shared import Numbers

__all__ = ["Barrier", "Condition", "Event"]

_EVERYBODY = 2**62


def _give_up(desk: Asking, number: int, answer: Order) -> None:
    if answer.what == Outcome.ACT:
        desk.tell(number, What.DONE)


_NOTIFY = How("notify() of a shared condition")
_WAIT_EVENT = How("wait() of a shared event")
_WAIT_BARRIER = How("wait() of a shared barrier", undo=_give_up)
_ACTED = How("wait() of a shared barrier", gives_back=True)


class Condition(Shared):
    """A condition variable; ``notify`` wakes only processes that live.

    Args:
        numbers: of its World.
        lock: a Lock or RLock of the same World; None: an RLock of its own.
    """

    def __init__(self, numbers: Numbers, lock: SharedLock | None = None) -> None:
        self._lock = RLock(numbers) if lock is None else lock
        if not isinstance(self._lock, SharedLock):
            raise TypeError(f"a Condition of a World with hosts needs a Lock or RLock of it, not {lock!r}")
        super().__init__(numbers, self._make)
        self._set_state(self._lock)

    def _make(self, answer: Answer) -> ConditionState:
        state = self._lock._desk.state(self._lock._number)
        assert isinstance(state, SemaphoreState)  # noqa: S101 - a lock's is one
        return ConditionState(answer, state)

    def _state(self) -> tuple[Any, ...]:
        return (self._lock,)

    def _set_state(self, lock: SharedLock) -> None:  # type: ignore[override]
        self._lock = lock
        self.acquire, self.release = lock.acquire, lock.release

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait until notified, and take the lock again; tell whether it was in time.

        Raises:
            AssertionError: this thread does not hold the lock.
            BrokenLockError: a process that had the lock was killed; it is not held.
        """
        how = How("wait() of a shared condition", undo=self._let_go, insists=True)
        answer = self._desk.ask(self._number, What.WAIT, deadline=Deadline(timeout), how=how)
        if answer.what == Outcome.NOT_OWNED:
            raise AssertionError("must acquire() condition before using wait()")
        check_broken(answer, self._lock._label)
        return answer.what == Outcome.YES

    def _let_go(self, desk: Asking, number: int, answer: Order) -> None:
        del number, answer
        desk.tell(self._lock._number, What.LET_GO)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until the predicate is true; return what it returned last."""
        end = None if timeout is None else monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake the ``n`` that have waited longest, or all where they are fewer.

        Raises:
            AssertionError: this thread does not hold the lock.
        """
        if self._desk.ask(self._number, What.NOTIFY, (n, 0, 0), how=_NOTIFY).what == Outcome.NOT_OWNED:
            raise AssertionError("lock is not owned")

    def notify_all(self) -> None:
        """Wake all that wait."""
        self.notify(_EVERYBODY)

    def __enter__(self) -> bool:
        """Acquire the lock."""
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<Condition({self._lock!r})>"


class Event(Shared):
    """A flag that processes can wait for."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers, EventState)

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return bool(self._desk.ask(self._number, What.LOOK).first)

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._desk.ask(self._number, What.SET)

    def clear(self) -> None:
        """Reset it; later waits wait."""
        self._desk.ask(self._number, What.CLEAR)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; tell whether that was in time. Who waited is told also of an event that was cleared."""
        answer = self._desk.ask(self._number, What.WAIT, deadline=Deadline(timeout), how=_WAIT_EVENT)
        return answer.what == Outcome.YES

    def __repr__(self) -> str:
        return "<Event of a World with hosts>"


class Barrier(Shared):
    """A barrier; it breaks when a process ends that waits in it.

    Args:
        numbers: of its World.
        parties: how many are to come.
        action: what the last one does before the others go on.
        timeout: the default of `wait`.
    """

    def __init__(
        self,
        numbers: Numbers,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be > 0")
        super().__init__(numbers, partial(BarrierState, parties=parties, acts=action is not None))
        self._set_state(parties, action, timeout)

    def _state(self) -> tuple[Any, ...]:
        return self._parties, self._action, self._timeout

    def _set_state(  # type: ignore[override]
        self, parties: int, action: Callable[[], object] | None, timeout: float | None
    ) -> None:
        self._parties, self._action, self._timeout = parties, action, timeout

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; return a number that no other one of this round gets.

        Raises:
            BrokenBarrierError: the barrier is broken, or somebody gave up, or a process ended; it is broken now.
        """
        deadline = Deadline(self._timeout if timeout is None else timeout)
        answer = self._desk.ask(self._number, What.WAIT, deadline=deadline, how=_WAIT_BARRIER)
        if answer.what == Outcome.ACT:
            self._act()
        elif answer.what != Outcome.YES:
            raise threading.BrokenBarrierError
        return answer.first

    def _act(self) -> None:
        done = 0
        try:
            assert self._action is not None  # noqa: S101 - else its state asks for none
            self._action()
            done = 1
        finally:
            self._desk.ask(self._number, What.DONE, (done, 0, 0), how=_ACTED)

    def reset(self) -> None:
        """Make it as new; who waits gets BrokenBarrierError."""
        self._desk.ask(self._number, What.RESET)

    def abort(self) -> None:
        """Break it; who waits, and who comes later, gets BrokenBarrierError."""
        self._desk.ask(self._number, What.ABORT)

    @property
    def parties(self) -> int:
        """How many are to come."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many have come."""
        return self._desk.ask(self._number, What.LOOK).first

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        return bool(self._desk.ask(self._number, What.LOOK).second)

    def __repr__(self) -> str:
        return f"<Barrier of {self._parties} of a World with hosts>"
