"""Contexts: the whole interface of multiprocessing for one start method, made of this package's parts.

Layer: above all rooms whose classes its factory methods make; they are imported when they are asked for.
"""

from __future__ import annotations

import multiprocessing.context as standard
from multiprocessing.context import (
    AuthenticationError,
    BufferTooShort,
    ProcessError,
    TimeoutError,  # noqa: A004 - multiprocessing's own
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)
from typing import TYPE_CHECKING, Any

from klyng_mp import reduction
from klyng_mp.process import START_METHOD, BaseProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from klyng_mp.connection import Connection
    from klyng_mp.managers import SyncManager
    from klyng_mp.pool import Pool
    from klyng_mp.queues import JoinableQueue, Queue, SimpleQueue
    from klyng_mp.synchronize import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore

__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "ProcessError",
    "SpawnContext",
    "SpawnProcess",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "reduction",
    "set_spawning_popen",
]


class BaseContext(standard.BaseContext):
    """What all contexts have; see ``multiprocessing.get_context``.

    A method makes an object of the class of the same name, for processes that this context starts.
    """

    def cpu_count(self) -> int:
        """Return the number of CPUs of the machine; `klyng_mp.usable_cpus` says how many this process may use."""
        return super().cpu_count()

    def Manager(self) -> SyncManager:
        """Return a started manager, whose methods make objects that live in its process."""
        from klyng_mp.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def _publish(self, address: Any, authkey: bytes) -> Any:
        """Return the address by which processes of this context reach a manager's server of this machine."""
        del authkey
        return address

    def Pipe(self, duplex: bool = True) -> tuple[Connection, Connection]:
        """Return two connections that are the ends of one pipe."""
        from klyng_mp.connection import Pipe

        return Pipe(duplex)

    def Lock(self) -> Lock:
        """Return a lock."""
        from klyng_mp.synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> RLock:
        """Return a recursive lock."""
        from klyng_mp.synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> Condition:
        """Return a condition variable."""
        from klyng_mp.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Semaphore:
        """Return a semaphore."""
        from klyng_mp.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> BoundedSemaphore:
        """Return a semaphore that cannot be released beyond its first value."""
        from klyng_mp.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> Event:
        """Return an event."""
        from klyng_mp.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> Barrier:
        """Return a barrier."""
        from klyng_mp.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize: int = 0) -> Queue:
        """Return a queue."""
        from klyng_mp.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> JoinableQueue:
        """Return a queue with ``task_done`` and ``join``."""
        from klyng_mp.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> SimpleQueue:
        """Return a queue without a bound."""
        from klyng_mp.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        **extras: Any,
    ) -> Pool:
        """Return a pool of worker processes; for the extras see `klyng_mp.pool.Pool`."""
        from klyng_mp.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context(), **extras)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a shared object, with a lock unless ``lock`` is false."""
        from klyng_mp.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a shared array, with a lock unless ``lock`` is false."""
        from klyng_mp.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a shared object without a lock."""
        from klyng_mp.sharedctypes import RawValue

        return RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a shared array without a lock."""
        from klyng_mp.sharedctypes import RawArray

        return RawArray(typecode_or_type, size_or_initializer)

    def get_context(self, method: str | None = None) -> Any:
        """Return the context of a start method, or this one.

        Raises:
            ValueError: there is no such start method.
        """
        if method is None:
            return self
        try:
            context = _concrete_contexts[method]
        except KeyError:
            raise ValueError(f"cannot find context for {method!r}") from None
        context._check_available()
        return context

    @property
    def reducer(self) -> Any:
        """What pickles objects for other processes; by default this package's ``reduction``."""
        return _reducer

    @reducer.setter
    def reducer(self, reducer: Any) -> None:
        global _reducer  # noqa: PLW0603 - one for all contexts, as in the standard module
        _reducer = reducer


_reducer: Any = reduction
_standard_default: Any = standard._default_context


class Process(BaseProcess, standard.Process):
    """A function call in a process of its own, started as the default context says; see `BaseProcess`."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        _default_context.get_context().Process._after_fork()


class DefaultContext(BaseContext, standard.DefaultContext):
    """The context whose start method can be chosen, once."""

    Process = Process

    def __init__(self, context: BaseContext) -> None:
        self._default_context = context

    @property
    def _actual_context(self) -> BaseContext | None:
        name: str | None = START_METHOD.name or _standard_default.get_start_method(allow_none=True)
        return None if name is None else _concrete_contexts[name]

    @_actual_context.setter
    def _actual_context(self, context: BaseContext | None) -> None:
        START_METHOD.name = None if context is None else context.get_start_method()

    def get_context(self, method: str | None = None) -> Any:
        """Return the context of a start method, or the one that is used by default, which is thereby settled."""
        if method is None:
            if self._actual_context is None:
                self._actual_context = self._default_context
            return self._actual_context
        return super().get_context(method)


class ForkProcess(BaseProcess, standard.ForkProcess):
    """A process that is a fork of this one, with its globals."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from klyng_mp.popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(BaseProcess, standard.SpawnProcess):
    """A process that is a fresh interpreter, which imports the main module."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from klyng_mp.popen_spawn_posix import Popen

        return Popen(process_obj)


class ForkServerProcess(BaseProcess, standard.ForkServerProcess):
    """A process that is a fork of a server process, and imports the main module."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from klyng_mp.popen_forkserver import Popen

        return Popen(process_obj)


class ForkContext(BaseContext, standard.ForkContext):
    """Processes are forks of this one."""

    Process = ForkProcess


class SpawnContext(BaseContext, standard.SpawnContext):
    """Processes are fresh interpreters."""

    Process = SpawnProcess


class ForkServerContext(BaseContext, standard.ForkServerContext):
    """Processes are forks of a server process."""

    Process = ForkServerProcess


_concrete_contexts: Mapping[str, Any] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
# As the running Python has it.
_default_context = DefaultContext(_concrete_contexts[_standard_default._default_context.get_start_method()])
START_METHOD.context = _default_context.get_context
