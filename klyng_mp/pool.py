"""Pools of worker processes, with multiprocessing.pool's interface.

Layer: above pooling; is given its context.

What is ours: a worker that dies takes one task with it, and no more; tasks are sent ahead of the workers, but are not
bound to them; small arguments and results go through shared memory, large ones are copied once.
"""

from __future__ import annotations

import multiprocessing.pool as standard
import os
from functools import partial
from multiprocessing import util
from multiprocessing.pool import mapstar, starmapstar  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from klyng_mp.launch.spec import BLAS_VARIABLES
from klyng_mp.machine import usable_cpus
from klyng_mp.pooling.answers import MaybeEncodingError, RemoteTraceback
from klyng_mp.pooling.books import CLOSE, RUN, TERMINATE, CrewOptions
from klyng_mp.pooling.calls import Calls
from klyng_mp.pooling.crew import Crew
from klyng_mp.pooling.results import ApplyResult, AsyncResult, IMapIterator, IMapUnorderedIterator, MapResult
from klyng_mp.pooling.sharing import Shared
from klyng_mp.pooling.tasks import CALL, CALL_STAR, MAP, MAP_STAR
from klyng_mp.pooling.worker import WorkerOptions
from klyng_mp.process import START_METHOD
from klyng_mp.resource_tracker import ensure_running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from klyng_mp.pooling.jobs import Job

__all__ = [
    "CLOSE",
    "RUN",
    "TERMINATE",
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "MaybeEncodingError",
    "Pool",
    "RemoteTraceback",
    "ThreadPool",
    "mapstar",
    "starmapstar",
]


class ThreadPool(standard.ThreadPool):
    """See ``multiprocessing.pool.ThreadPool``."""


class Pool(standard.Pool):
    """A pool of worker processes; see ``multiprocessing.Pool``.

    Args:
        processes: how many; None: as many as this process has CPUs to use (`usable_cpus`), or as a World with hosts
            or of MPI has places, which are the most that it can have.
        initializer: each worker calls it when it starts, with `initargs`.
        initargs: its arguments.
        maxtasksperchild: a worker is replaced after so many tasks; None: never.
        context: makes the processes; None: the default one.
        retries: how often a task is done again whose worker died while it was at it.
        shared: a mapping of names to objects that all workers have, read with `klyng_mp.shared`; it is encoded once,
            and arrays are mapped, not copied (they are read-only there).
        progress: whether ``map`` and its kin show a bar (by tqdm).
        threads: that BLAS and OpenMP may use in each worker; None: the CPUs' share of a worker, unless the environment
            says how many.

    Raises:
        ValueError: an argument cannot be; nothing was started.
        CodecError: something shared cannot travel; nothing was started.
        OSError: there are no processes, memory or descriptors for it; nothing is left.

    Threads: all may use a pool. A forked child may not use its parent's.
    """

    _crew: Crew | None = None

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        retries: int = 0,
        shared: Mapping[str, Any] | None = None,
        progress: bool = False,
        threads: int | None = None,
    ) -> None:
        world = context if getattr(context, "is_spread", False) is True else None  # a mock has every attribute
        if processes is None:
            processes = usable_cpus() if world is None else world.size
        _check_arguments(processes, initializer, maxtasksperchild, retries, threads)
        bars = _find_tqdm() if progress else None
        if world is not None and processes > world.size:
            raise ValueError(f"its World has places for {world.size} workers, not for {processes}")
        if retries and world is not None and world.has_guests:
            raise ValueError(
                f"retries={retries} has no meaning with engine='mpi': MPI ends all ranks with one that dies, so nobody "
                "is left to do a task again"
            )
        self._ctx = context or START_METHOD.context()
        self._processes = processes
        worker = WorkerOptions(
            initializer,
            tuple(initargs),
            maxtasksperchild,
            _threads_of(threads, processes) if world is None else threads,  # a World's ranks have their share already
            _share(shared),
        )
        method = self._ctx.get_start_method()
        if method in ("spawn", "forkserver"):
            ensure_running()  # else the first worker's start does it, and lets interrupts come meanwhile
        forks = method == "fork"
        make_process = partial(self.Process, self._ctx)
        self._crew = Crew(CrewOptions(processes, make_process, worker, retries=retries, forks=forks, world=world))
        self._calls = Calls(self._crew, bars)
        self._terminate = util.Finalize(self, self._crew.terminate, exitpriority=15)

    # -- what programs look at

    @property
    def _pool(self) -> list[Any]:
        return self._crew.processes if self._crew is not None else []

    @property
    def _cache(self) -> dict[int, Job]:
        return self._crew.books.jobs if self._crew is not None else {}

    @property
    def _state(self) -> str:
        return self._crew.books.state if self._crew is not None else "INIT"

    @_state.setter
    def _state(self, state: str) -> None:
        self._engine.books.state = state

    @property
    def _engine(self) -> Crew:
        assert self._crew is not None  # noqa: S101 - whoever has a Pool has its crew
        return self._crew

    def _repopulate_pool(self) -> None:
        self._engine.maintain()

    # -- tasks

    def apply(self, func: Any, args: Iterable[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        """Return ``func(*args, **kwds)``, as a worker has it.

        Raises:
            ValueError: the pool is not running.
            WorkerDiedError: the worker died.
            Exception: what the call raised.
        """
        return self._calls.apply(func, args, kwds, ApplyResult(self), wait=True).get()

    def apply_async(
        self,
        func: Any,
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult:
        """Return at once with what will have the result of ``func(*args, **kwds)``; see `apply`."""
        return self._calls.apply(func, args, kwds, ApplyResult(self, callback, error_callback), wait=False)

    def map(self, func: Any, iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return the list of ``func(item)`` for each item.

        Args:
            func: called in workers.
            iterable: read as a whole.
            chunksize: so many items are one task; None: a quarter of a worker's share.

        Raises:
            ValueError: the pool is not running.
            WorkerDiedError: a worker died.
            Exception: the first that a call raised; all others were done.
        """
        return self._calls.map(func, iterable, (CALL, MAP), chunksize, MapResult(self), wait=True).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Any,
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Return at once with what will have the results of `map`."""
        result = MapResult(self, callback, error_callback)
        return self._calls.map(func, iterable, (CALL, MAP), chunksize, result, wait=False)

    def starmap(self, func: Any, iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> list[Any]:
        """Return the list of ``func(*item)`` for each item; see `map`."""
        result = MapResult(self)
        return self._calls.map(func, iterable, (CALL_STAR, MAP_STAR), chunksize, result, wait=True).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Any,
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """Return at once with what will have the results of `starmap`."""
        result = MapResult(self, callback, error_callback)
        return self._calls.map(func, iterable, (CALL_STAR, MAP_STAR), chunksize, result, wait=False)

    def imap(  # type: ignore[override]  # results are of any type
        self, func: Any, iterable: Iterable[Any], chunksize: int = 1, *, buffersize: int | None = None
    ) -> Any:
        """Return an iterator over ``func(item)`` for each item, in their order; see `IMapIterator`.

        Args:
            func: called in workers.
            iterable: read by and by, a little ahead of the workers; it may be endless.
            chunksize: so many items are one task.
            buffersize: at most so many items are read ahead of the results that were taken.

        Raises:
            ValueError: the pool is not running, or a size is less than 1.
        """
        return self._calls.imap(IMapIterator(self), func, iterable, chunksize, buffersize)

    def imap_unordered(  # type: ignore[override]  # as above
        self, func: Any, iterable: Iterable[Any], chunksize: int = 1, *, buffersize: int | None = None
    ) -> Any:
        """Return an iterator over ``func(item)`` for each item, in any order; see `imap`."""
        return self._calls.imap(IMapUnorderedIterator(self), func, iterable, chunksize, buffersize)

    # -- the end

    def close(self) -> None:
        """Take no more tasks; workers end when all are done."""
        self._engine.close()

    def terminate(self) -> None:
        """End the workers at once; who waits for results is told so."""
        self._terminate()
        self._state = TERMINATE

    def join(self) -> None:
        """Wait until the workers have ended.

        Raises:
            ValueError: the pool is still running.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        self._engine.join()

    def __enter__(self) -> Self:
        self._engine.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()


def _check_arguments(processes: int, initializer: Any, maxtasks: Any, retries: int, threads: int | None) -> None:
    if processes < 1:
        raise ValueError("Number of processes must be at least 1")
    if maxtasks is not None and (not isinstance(maxtasks, int) or maxtasks <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")


def _threads_of(threads: int | None, processes: int) -> int | None:
    if threads is not None:
        return threads
    if any(name in os.environ for name in BLAS_VARIABLES):
        return None
    return max(1, usable_cpus() // processes)


def _share(values: Mapping[str, Any] | None) -> Shared | None:
    return None if values is None else Shared.make(values)


def _find_tqdm() -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415 - only who wants a bar needs it
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install tqdm") from error
    return tqdm
