"""Locks and semaphores that processes on any host of a World use, under multiprocessing's names.

Layer: objects. What becomes of them when a process that has one is killed is as in `klyng_mp.synchronize`, at once.

Cost: each call is a message to the driver and one back; in the driver, none.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.errors import describe_made
from klyng_mp.objects.asking import How
from klyng_mp.objects.orders import Outcome, What
from klyng_mp.objects.semaphores import LOCK, RECURSIVE, SEMAPHORE, SemaphoreState
from klyng_mp.objects.shared import Shared, check_broken

if TYPE_CHECKING:
    from types import TracebackType

    from klyng_mp.objects.asking import Asking
    from klyng_mp.objects.orders import Order
    from klyng_mp.objects.shared import Numbers

_MOST = 2**31 - 1  # multiprocessing's SEM_VALUE_MAX

__all__ = ["BoundedSemaphore", "Lock", "RLock", "Semaphore", "SharedLock"]


def _release(desk: Asking, number: int, answer: Order) -> None:
    del answer
    desk.tell(number, What.RELEASE)


_ACQUIRE = How("acquire() of a shared lock", undo=_release)
_RELEASE = How("release() of a shared lock", gives_back=True)


class Acquired:
    """What is acquired for a ``with`` block, and released after it."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it."""
        raise NotImplementedError

    def release(self) -> None:
        """Release it."""
        raise NotImplementedError

    def __enter__(self) -> bool:
        """Acquire it."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SharedLock(Acquired, Shared):
    """What locks and semaphores have in common."""

    _kind = LOCK

    def __init__(self, numbers: Numbers, value: int = 1, maximum: int = 1) -> None:
        if not 0 <= value <= maximum:
            raise ValueError(f"{type(self).__name__} needs a number of permits from 0 to {maximum}, not {value}")
        self._label = describe_made(self)
        super().__init__(numbers, partial(SemaphoreState, kind=self._kind, value=value, maximum=maximum))

    def _state(self) -> tuple[Any, ...]:
        return (self._label,)

    def _set_state(self, label: str) -> None:  # type: ignore[override]
        self._label = label

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; return False if that could not be done at once, or within ``timeout`` seconds.

        Raises:
            BrokenLockError: a process that had it was killed.
            PeerLostError, ClosedError: the run was ended meanwhile; it was not acquired.
        """
        waits = block and (timeout is None or timeout > 0)
        deadline = Deadline(timeout) if waits and timeout is not None else NEVER
        answer = self._desk.ask(self._number, What.ACQUIRE, (int(waits), 0, 0), deadline=deadline, how=_ACQUIRE)
        check_broken(answer, self._label)
        return answer.what == Outcome.YES

    def release(self) -> None:
        """Release it.

        Raises:
            ValueError: there is nothing to be released.
            AssertionError: it is an RLock, and this thread does not have it.
            BrokenLockError: a process that had it was killed; so this one has lost it, if it had it.
        """
        answer = self._desk.ask(self._number, What.RELEASE, how=_RELEASE)
        check_broken(answer, self._label)
        if answer.what == Outcome.TOO_OFTEN:
            raise ValueError("semaphore or lock released too many times")
        if answer.what == Outcome.NOT_OWNED:
            raise AssertionError("attempt to release recursive lock not owned by thread")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of a World with hosts>"


class Lock(SharedLock):
    """A lock that any process or thread of the World may release."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)


class RLock(SharedLock):
    """A lock that its thread may take several times, and only it may release."""

    _kind = RECURSIVE

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)


class Semaphore(SharedLock):
    """A number of permits."""

    _kind = SEMAPHORE

    def __init__(self, numbers: Numbers, value: int = 1) -> None:
        super().__init__(numbers, value, _MOST)

    def get_value(self) -> int:
        """Return how many permits are to be had."""
        return self._desk.ask(self._number, What.COUNT).first


class BoundedSemaphore(Semaphore):
    """A Semaphore that cannot be released beyond its first value."""

    def __init__(self, numbers: Numbers, value: int = 1) -> None:
        SharedLock.__init__(self, numbers, value, value)
