"""Calls of a Pool's methods, made into jobs.

Layer: pooling; imports crew, jobs and results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.jobs import Tally, chunks_of, start_reader
from klyng_mp.pooling.tasks import CALL, CALL_BOTH, CALL_STAR, MAP, Function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from klyng_mp.pooling.crew import Crew
    from klyng_mp.pooling.jobs import Job
    from klyng_mp.pooling.results import ApplyResult, IMapIterator, MapResult

__all__ = ["Calls"]

_READY_TYPES = (list, tuple, range)  # to take an item of these needs no time
_CHUNKS_PER_WORKER = 4  # by default, as in the standard module


class Calls:
    """Makes jobs for a crew.

    Args:
        crew: does them.
        bars: makes a progress bar of ``total=``, or None.
    """

    def __init__(self, crew: Crew, bars: Callable[..., Any] | None) -> None:
        self._crew = crew
        self._bars = bars

    def apply(self, func: Any, args: Any, kwds: Any, result: ApplyResult, *, wait: bool) -> ApplyResult:
        """Have one call made; return the result."""
        crew = self._crew
        crew.check()
        job = self._make_job(CALL_BOTH if kwds else CALL_STAR, func, result)
        if job is not None:
            job.tally = Tally(job.context, [None], 1)
            crew.submit_one(job, (tuple(args), dict(kwds)) if kwds else tuple(args), wait=wait)
        return result

    def map(
        self, func: Any, iterable: Any, how: tuple[int, int], chunksize: int | None, result: MapResult, *, wait: bool
    ) -> MapResult:
        """Have a call made for each item; ``how`` is how, for one item and for a chunk; return the result."""
        crew = self._crew
        crew.check()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        if chunksize is None:
            chunksize = max(1, -(-length // (len(crew.processes) * _CHUNKS_PER_WORKER)))
        elif chunksize < 1 and length:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        if not length:
            result._value = []
            result._callback = result._error_callback = None
            result._finish()
            return result
        job = self._make_job(how[chunksize > 1], func, result)
        if job is not None:
            job.chunksize = chunksize
            job.length = -(-length // chunksize)
            job.tally = Tally(job.context, [None] * job.length, job.length)
            job.bar = self._make_bar(length)
            self._give(job, iterable, wait=wait)
        return result

    def imap(
        self, result: IMapIterator, func: Any, iterable: Any, chunksize: int, buffersize: int | None
    ) -> IMapIterator | Iterator[Any]:
        """Have a call made for each item, by and by; return the iterator over the results."""
        self._crew.check()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize!r}")
        if buffersize is not None:
            if buffersize < 1:
                raise ValueError(f"buffersize must be 1+, not {buffersize!r}")
            chunksize = min(chunksize, buffersize)
        job = self._make_job(MAP if chunksize > 1 else CALL, func, result)
        if job is not None:
            job.chunksize = chunksize
            if buffersize is not None:
                job.window = buffersize // chunksize
                result._paced = job
            if hasattr(iterable, "__len__"):
                job.bar = self._make_bar(len(iterable))
            self._give(job, iterable, wait=False)
        return result if chunksize == 1 else (item for chunk in result for item in chunk)

    def _make_job(self, how: int, func: Any, result: Any) -> Job | None:
        crew = self._crew
        try:
            function = Function.of(func, crew.encoder)
        except Exception as error:  # noqa: BLE001 - as in the standard module, it is what `get` raises
            crew.fail(result, error)
            return None
        return crew.make_job(how, function, result)

    def _give(self, job: Job, iterable: Any, *, wait: bool) -> None:
        crew = self._crew
        try:
            iterator = iter(iterable)
        except Exception as error:  # noqa: BLE001 - as what it raises later
            job.take_from(_raising(error))
            crew.submit(job, wait=wait)
            return
        if job.chunksize > 1:
            iterator = chunks_of(iterator, job.chunksize)
        if type(iterable) in _READY_TYPES:
            job.take_from(iterator)
            crew.submit(job, wait=wait)
        else:
            job.prepare_reader()
            crew.submit(job, wait=wait)
            start_reader(job, iterator, crew.encoder, crew.change)

    def _make_bar(self, total: int) -> Any:
        return None if self._bars is None else self._bars(total=total)


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield
