"""What a Pool's methods return before the results are there.

Layer: pooling. Whoever waits for a result lets the pool's `Desk` make progress meanwhile.

Invariants: ``_put`` is called with the pool's lock held; ``_finish`` without it, by whoever runs callbacks.
"""

from __future__ import annotations

import multiprocessing.pool as standard
from collections import deque
from itertools import chain
from multiprocessing import TimeoutError  # noqa: A004 - what the standard classes raise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.pooling.crew import Crew
    from klyng_mp.pooling.jobs import Job

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult"]


class ApplyResult(standard.ApplyResult):  # type: ignore[type-arg]
    """The result of ``apply_async``; see ``multiprocessing.pool.AsyncResult``.

    Threads: all may wait.
    """

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._pool = pool  # which is not collected while this is awaited
        self._crew: Crew = pool._crew
        self._callback = callback
        self._error_callback = error_callback
        self._is_ready = False
        self._success = True
        self._value: Any = None
        self._bar: Any = None

    def ready(self) -> bool:
        """Return whether the call has completed."""
        return self._is_ready

    def successful(self) -> bool:
        """Return whether the call completed without raising.

        Raises:
            ValueError: it has not completed.
        """
        if not self._is_ready:
            raise ValueError(f"{self!r} not ready")
        return self._success

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or so many seconds are over."""
        if not self._is_ready:
            self._crew.wait(self.ready, timeout)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result when it is there.

        Raises:
            TimeoutError: it is not there within so many seconds; it may come later.
            Exception: what the call raised.
        """
        if not self._is_ready:
            self._crew.wait(self.ready, timeout)
            if not self._is_ready:
                raise TimeoutError
        if self._success:
            return self._value
        raise self._value

    @property
    def _has_callbacks(self) -> bool:
        return self._callback is not None or self._error_callback is not None

    def _put(self, job: Job, index: int, success: bool, value: Any) -> bool:
        """Take a result; return whether it was the last one."""
        del index
        if success:
            job.tally.results[0] = value
        else:
            self._success, self._value = False, value
        return True

    def _complete(self, job: Job) -> None:
        """All results are there."""
        if self._success:
            self._value = job.tally.results[0]

    def _finish(self) -> None:
        """Call back, and let who waits see it."""
        try:
            if self._success and self._callback is not None:
                self._callback(self._value)
            if not self._success and self._error_callback is not None:
                self._error_callback(self._value)
        finally:
            self._is_ready = True
            self._pool = None
            self._callback = self._error_callback = None

    def _fail(self, error: Exception) -> None:
        """There will be no more results."""
        self._success, self._value = False, error


AsyncResult = ApplyResult


class MapResult(ApplyResult, standard.MapResult):  # type: ignore[type-arg]
    """The result of ``map_async`` and ``starmap_async``."""

    def _put(self, job: Job, index: int, success: bool, value: Any) -> bool:
        tally = job.tally
        if success:
            tally.results[index] = value
        elif self._success:  # the first one counts
            self._success, self._value = False, value
        tally.left -= 1
        return bool(tally.left == 0)

    def _count(self, job: Job) -> int:
        return 0 if job.tally is None else job.length - job.tally.left

    def _complete(self, job: Job) -> None:
        if self._success:
            results = job.tally.results
            self._value = list(chain.from_iterable(results)) if job.chunksize > 1 else results


class IMapIterator(standard.IMapIterator):  # type: ignore[type-arg]
    """The results of ``imap``, in the order of the iterable.

    Threads: all may call ``next``; each result goes to one of them.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._crew: Crew = pool._crew
        self._ready_items: deque[tuple[bool, Any]] = deque()
        self._early: dict[int, tuple[bool, Any]] = {}
        self._due = 0  # index of what comes next
        self._number: int | None = None  # of all results, once it is known
        self._handed_out = 0
        self._paced: Job | None = None  # its tasks wait for results to be handed out
        self._error: Exception | None = None

    def __iter__(self) -> IMapIterator:
        return self

    def __next__(self, timeout: float | None = None) -> Any:
        return self.next(timeout)

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result when it is there.

        Raises:
            StopIteration: there are no more.
            TimeoutError: it is not there within so many seconds.
            Exception: what the call raised.
        """
        while True:
            try:
                success, value = self._ready_items.popleft()
                break
            except IndexError:
                pass
            if not self._is_due():
                self._crew.wait(self._is_due, timeout)
                if not self._is_due():
                    raise TimeoutError from None
            elif not self._ready_items:
                self._pool = None
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopIteration from None
        self._handed_out += 1
        if self._paced is not None:
            self._crew.hand_out(self._paced)
        if success:
            return value
        raise value

    def _is_due(self) -> bool:
        return bool(self._ready_items) or self._due == self._number

    @property
    def _has_callbacks(self) -> bool:
        return False

    def _put(self, job: Job, index: int, success: bool, value: Any) -> bool:
        del job
        if index != self._due:
            self._early[index] = success, value
            return False
        self._ready_items.append((success, value))
        self._due += 1
        while (item := self._early.pop(self._due, None)) is not None:
            self._ready_items.append(item)
            self._due += 1
        return self._due == self._number

    def _count(self, job: Job) -> int:
        del job
        return self._due

    def _set_length(self, length: int) -> bool:
        """Know how many results there will be; return whether all are there."""
        self._number = length
        return self._due == length

    def _complete(self, job: Job) -> None:
        pass

    def _finish(self) -> None:
        self._paced = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._number = self._due


class IMapUnorderedIterator(IMapIterator, standard.IMapUnorderedIterator):  # type: ignore[type-arg]
    """The results of ``imap_unordered``, as they come."""

    def _put(self, job: Job, index: int, success: bool, value: Any) -> bool:
        del job, index
        self._ready_items.append((success, value))
        self._due += 1
        return self._due == self._number
