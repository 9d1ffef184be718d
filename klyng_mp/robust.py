"""What the classes of `klyng_mp.synchronize` have in common: memory without a name, and notice of a holder's death.

Layer: just below synchronize, on the core's types `SemLock`, `Waiters` and `Flag`. Where there is no core nothing of
this is used, and the classes are the standard library's.

Each class here goes before one of ``multiprocessing.synchronize`` in a list of bases and overrides what has to do with
how it is made, how it travels, and how it waits; all else stays the standard library's. Memory is anonymous in a fork
context, and has a descriptor otherwise, which only a `Process` that is being started can take along.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import multiprocessing.util
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp import reduction
from klyng_mp.deadline import Deadline
from klyng_mp.errors import describe_made
from klyng_mp.native import core
from klyng_mp.process import START_METHOD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Context", "RobustBarrier", "RobustCondition", "RobustEvent", "RobustParties", "RobustSemLock", "travels"]

# The standard library's own words, which programs and its tests look for.
_FORK_ONLY = (
    "A SemLock created in a fork context is being shared with a process in a spawn context. This is not supported. "
    "Please use the same context to create multiprocessing objects and Process."
)
# Seconds between two looks at whether the parties of a barrier live: a fifth of what is promised.
_LOOK_SECONDS = 0.4
# After all that a program does at its end, and after its children have been joined.
_EXIT_PRIORITY = -100
_FILLING, _DRAINING, _RESETTING, _BROKEN = 0, 1, -1, -2  # threading.Barrier's states


class Context(Protocol):
    """What a lock asks of the context that it is made by."""

    def get_start_method(self) -> str | None:
        """Return how its processes are started."""


class _Memory(Protocol):
    @property
    def handle(self) -> int: ...
    @property
    def travels(self) -> bool: ...


def travels(ctx: Context | None) -> bool:
    """Tell whether what a context makes may go to processes that are not forks of this one.

    Args:
        ctx: the context; None for the default one, which is thereby settled.
    """
    if ctx is None:
        return (START_METHOD.name or multiprocessing.get_start_method()) != "fork"
    return ctx.get_start_method() != "fork"


def _send_handle(owner: object, memory: _Memory) -> Any:
    multiprocessing.context.assert_spawning(owner)
    if not memory.travels:
        raise RuntimeError(_FORK_ONLY)
    return reduction.DupFd(memory.handle)


# -- the end of a process --------------------------------------------------------------------------


class _Ending:
    """Has the core told that this process ends by itself: what it holds is not broken then."""

    def __init__(self) -> None:
        self.pid = 0

    def watch(self) -> None:
        """See to it, once in each process."""
        if self.pid == 0:  # a process that multiprocessing starts has forgotten all finalizers when it calls these
            multiprocessing.util.register_after_fork(self, _Ending.begin)
        if self.pid != os.getpid():
            self.begin()

    def begin(self) -> None:
        """Ask for it in this process."""
        self.pid = os.getpid()
        multiprocessing.util.Finalize(None, core.leave_locks, exitpriority=_EXIT_PRIORITY)


_ENDING = _Ending()


# -- the parts of the classes ----------------------------------------------------------------------


class RobustSemLock:
    """A lock or semaphore whose waiters get BrokenLockError when a process that has it is killed."""

    _owned = True  # False: permits belong to nobody, so it cannot be broken
    _make_methods: Callable[[], None]
    _is_fork_ctx: bool

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Context | None) -> None:
        away = travels(ctx)
        self._is_fork_ctx = not away
        self._semlock = core.SemLock(kind, value, maxvalue, describe_made(self), away, self._owned)
        multiprocessing.util.debug("created semlock with handle %s", self._semlock.handle)
        self._make_methods()
        _ENDING.watch()

    def __getstate__(self) -> tuple[Any, ...]:
        made = self._semlock
        return _send_handle(self, made), made.kind, made.maxvalue, made.label

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        handle, *rest = state
        self._semlock = core.SemLock._rebuild(handle.detach(), *rest)
        multiprocessing.util.debug("recreated blocker with handle %s", self._semlock.handle)
        self._make_methods()
        self._is_fork_ctx = False
        _ENDING.watch()


class _Tally:
    """A number in the shape of a semaphore: for who looks into a standard Condition."""

    def __init__(self, count: Callable[[], int]) -> None:
        self.get_value = self._get_value = count

    @property
    def _semlock(self) -> _Tally:
        return self


class RobustCondition:
    """A condition variable that notifies only processes that live, first come, first called.

    Where the process that holds its lock is killed, all that use it get BrokenLockError.
    """

    _make_methods: Callable[[], None]
    _lock: Any

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        self._lock = lock or ctx.RLock()
        self._waiters = core.Waiters(travels(ctx))
        self._make_methods()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._lock, _send_handle(self, self._waiters)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._lock, handle = state
        self._waiters = core.Waiters._rebuild(handle.detach())
        self._make_methods()

    @property
    def _sleeping_count(self) -> _Tally:
        return _Tally(lambda: len(self._waiters))

    @property
    def _woken_count(self) -> _Tally:
        return _Tally(lambda: 0)

    _wait_semaphore = _woken_count

    def _counts(self) -> bool:
        """Tell whether the death of this thread's process has to be reported while it waits."""
        return False

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait until notified, and take the lock again; tell whether it was in time.

        Raises:
            AssertionError: this thread does not hold the lock.
            BrokenLockError: the lock could not be taken again; it is not held.
            RuntimeError: more than 8000 wait already.
        """
        if not self._lock._semlock._is_mine():
            raise AssertionError("must acquire() condition before using wait()")
        place = self._waiters.add(self._counts())
        count = self._lock._semlock._count()
        served = False
        try:
            for _ in range(count):
                self._lock.release()
            self._waiters.wait(place, timeout)
            served = True
        finally:
            for _ in range(count):
                self._lock.acquire()
            called = self._waiters.remove(place)
            if called and not served:
                self._waiters.wake()  # the call was meant for who goes on
        return called

    def notify(self, n: int = 1) -> None:
        """Wake the ``n`` that have waited longest, or all where they are fewer; the dead do not count.

        Raises:
            AssertionError: this thread does not hold the lock.
        """
        if not self._lock._semlock._is_mine():
            raise AssertionError("lock is not owned")
        woken = 0
        while woken < n and self._waiters.wake():
            woken += 1


class RobustEvent:
    """An event that is one word: a killed process can hold nothing of it."""

    def __init__(self, *, ctx: Context | None) -> None:
        self._word = core.Flag(travels(ctx))

    def __getstate__(self) -> Any:
        return (_send_handle(self, self._word),)

    def __setstate__(self, state: Any) -> None:
        self._word = core.Flag._rebuild(state[0].detach())

    def is_set(self) -> bool:
        """Tell whether it is set."""
        return self._word.is_set()

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._word.set()

    def clear(self) -> None:
        """Reset it; later waits wait."""
        self._word.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; tell whether that was in time. Who waited is told also of an event that was cleared."""
        return self._word.wait(timeout)


class RobustParties(RobustCondition):
    """The condition variable of a barrier, which also keeps the barrier's state and notices that a party has died."""

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        super().__init__(lock, ctx=ctx)
        self.numbers = memoryview(self._waiters).cast("i")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        super().__setstate__(state)
        self.numbers = memoryview(self._waiters).cast("i")

    def _counts(self) -> bool:
        return self.numbers[0] == _FILLING  # who waits for an earlier round to end has not come to this one yet

    def wait(self, timeout: float | None = None) -> bool:
        """As a condition's, and wake up now and then to look whether the others live."""
        deadline = Deadline(timeout)
        while True:
            left = deadline.left()
            if super().wait(_LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)):
                return True
            if self._bury():
                return True
            if deadline.over():
                return False

    def _bury(self) -> bool:
        """Take dead parties out of the count, and break a barrier that they had come to; tell whether there are any."""
        dead = self._waiters.bury()
        if not dead:
            return False
        self.numbers[1] -= dead
        if self.numbers[0] == _FILLING:
            self.numbers[0] = _BROKEN
        elif self.numbers[1] == 0 and self.numbers[0] in (_DRAINING, _RESETTING):
            self.numbers[0] = _FILLING
        self.notify(sys.maxsize)
        return True


class RobustBarrier:
    """A barrier that breaks when a process is killed that waits in it."""

    _cond: Any

    def __init__(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None, *, ctx: Any
    ) -> None:
        self.__setstate__((parties, action, timeout, self._make_condition(ctx)))

    def _make_condition(self, ctx: Any) -> RobustParties:
        raise NotImplementedError

    def __getstate__(self) -> tuple[Any, ...]:
        return self._parties, self._action, self._timeout, self._cond

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._parties, self._action, self._timeout, self._cond = state
        self._array = self._cond.numbers  # where the standard library's properties look
