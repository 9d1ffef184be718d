"""A World behind concurrent.futures' interface.

Layer: above world. The executor's calls are tasks of a Pool of the World's ranks.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Executor, Future
from functools import cache, partial
from multiprocessing import TimeoutError as PoolTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from klyng_mp.deadline import Deadline
from klyng_mp.util import Finalize
from klyng_mp.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["WorldExecutor"]

_Result = TypeVar("_Result")

# So many calls for each worker are handed to the Pool, which sends them ahead; those behind them can be cancelled.
_HANDED_EACH = 8


class WorldExecutor(Executor):
    """Calls functions in the ranks of a World; see ``concurrent.futures.Executor``.

    A worker that dies fails only the call that it was at, with `WorkerDiedError`, and is replaced. Functions and
    arguments may be anything that a Pool takes: lambdas, things of a notebook's ``__main__``, large arrays.

    Args:
        max_workers: how many ranks work; by default all of the World, or the CPUs that this process may use.
        world: whose ranks; None: of a World of its own, which ends with the executor.
        initializer: each worker calls it when it starts, with `initargs`.
        initargs: its arguments.
        options: further ones of `klyng_mp.pool.Pool`: ``maxtasksperchild retries shared threads``.

    Raises:
        ValueError: an argument cannot be; nothing was started.
        LaunchError: ranks could not be brought to life.

    Threads: all may use it.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        world: World | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        if isinstance(max_workers, World):
            raise TypeError("max_workers must be a number; to use a World that is there, write WorldExecutor(world=w)")
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers}")
        self._own_world = World(max_workers) if world is None else None
        chosen = world or self._own_world
        assert chosen is not None  # noqa: S101 - one of the two is there
        workers = max_workers or chosen.size
        try:
            self._pool: Any = chosen.Pool(workers, initializer, initargs, **options)
        except BaseException:
            if self._own_world is not None:
                self._own_world.terminate()
            raise
        self._most_handed = workers * _HANDED_EACH
        self._running: set[Future[Any]] = set()  # those that the Pool has
        self._waiting: deque[tuple[Future[Any], Callable[..., Any]]] = deque()
        self._changed = threading.Condition()
        self._ending: threading.Thread | None = None
        _executors.add(self)
        _see_to_the_end(os.getpid())

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Have ``fn(*args, **kwargs)`` called in a worker, and return its future.

        The future's error is a CodecError where something cannot travel, a WorkerDiedError where the worker died.

        Raises:
            RuntimeError: the executor was shut down.
        """
        future: Future[_Result] = Future()
        with self._changed:
            self._check_open()
            self._waiting.append((future, partial(self._pool.apply_async, fn, args, kwargs)))
        self._hand_over()
        return future

    def map(
        self, fn: Callable[..., _Result], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[_Result]:
        """Return an iterator over the results of ``fn`` for the items of the iterables, in their order.

        All calls begin at once. What one raises, the iterator raises when it comes to it, and is over.

        Raises:
            ValueError: ``chunksize`` is less than 1.
            RuntimeError: the executor was shut down.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        deadline = Deadline(timeout)
        with self._changed:
            self._check_open()
            calls = list(zip(*iterables, strict=False))
            chunks = [calls[start : start + chunksize] for start in range(0, len(calls), chunksize)]
            results = self._pool.imap(partial(_call_all, fn), chunks)
        return _iterate(results, deadline)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; see ``concurrent.futures.Executor.shutdown``."""
        with self._changed:
            if self._ending is None:
                self._ending = threading.Thread(target=self._end, name="WorldExecutor.shutdown")
                self._ending.start()
            cancelled = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
                self._changed.notify_all()
        for future, _ in cancelled:
            future.cancel()
            future.set_running_or_notify_cancel()
        if wait:
            self._ending.join()

    @property
    def is_open(self) -> bool:
        """Whether it takes calls."""
        return self._ending is None

    def terminate(self) -> None:
        """End the workers at once; futures that are not done raise RuntimeError, or are cancelled."""
        self.shutdown(wait=False, cancel_futures=True)
        if (pool := self._pool) is not None:
            pool.terminate()
        with self._changed:
            left, self._running = self._running, set()
        for future in left:
            future.set_exception(RuntimeError("the executor was terminated"))

    def _check_open(self) -> None:
        if not self.is_open:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _end(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
        self._pool.close()
        self._pool.join()
        self._pool = None  # and with it the workers' descriptors
        if self._own_world is not None:
            self._own_world.close()
            self._own_world.join()

    def _hand_over(self) -> None:
        """Give the Pool what it may have."""
        while True:
            with self._changed:
                if not self._waiting or len(self._running) >= self._most_handed:
                    return
                future, start = self._waiting.popleft()
                if future.set_running_or_notify_cancel():
                    self._running.add(future)
                    succeed, fail = (
                        partial(self._settle, future, way) for way in (Future.set_result, Future.set_exception)
                    )
                    start(succeed, fail)
                if not self._waiting:
                    self._changed.notify_all()

    def _settle(self, future: Future[Any], settle: Callable[[Future[Any], Any], None], outcome: Any) -> None:
        with self._changed:
            if future not in self._running:  # it was terminated
                return
            self._running.remove(future)
        self._hand_over()
        settle(future, outcome)


def _call_all(fn: Callable[..., _Result], calls: list[tuple[Any, ...]]) -> list[_Result]:
    return [fn(*arguments) for arguments in calls]


def _iterate(results: Any, deadline: Deadline) -> Iterator[Any]:
    while True:
        try:
            chunk = results.next(deadline.left())
        except StopIteration:
            return
        except PoolTimeoutError as error:
            raise TimeoutError from error
        yield from chunk


_executors: WeakSet[WorldExecutor] = WeakSet()
_BEFORE_POOLS = 100  # of the finalizers of multiprocessing; a Pool's has 15


@cache
def _see_to_the_end(_pid: int) -> None:
    Finalize(None, _shut_all_down, exitpriority=_BEFORE_POOLS)


def _shut_all_down() -> None:
    """Let what was submitted be done before the interpreter ends, as concurrent.futures does."""
    for executor in list(_executors):
        executor.shutdown()
