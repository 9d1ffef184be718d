"""Jobs: what one call of a Pool's method comes to, and where its tasks come from.

Layer: pooling; imports tasks.

Tasks are taken from a list, tuple or range when a worker wants them. Any other iterable is the user's code, which may
take its time or wait for an earlier result: a thread of its own reads it.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from klyng_mp.native import core
from klyng_mp.pooling.tasks import AT_END, ITERATOR_RAISED, LONG_ITEM, Batch, pack_tasks
from klyng_mp.wire.explain import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from klyng_mp.pooling.encoding import Encoder
    from klyng_mp.pooling.tasks import Function
    from klyng_mp.wire.codec import Codec

__all__ = ["Job", "PureTally", "Tally", "chunks_of", "start_reader"]

MOST_BYTES = 1 << 17  # of small arguments in one batch; large buffers travel beside it
MOST_BUFFER_BYTES = 1 << 20
_MOST_READ = 256  # tasks that are read from the user's iterable before a worker wants them


class PureTally:
    """The results of one job, without the core."""

    def __init__(self, context: int, results: list[Any], left: int) -> None:
        self.context = context
        self.results = results
        self.left = left


Tally: Any = PureTally if core is None else core.Tally


def chunks_of(iterator: Iterator[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield the items in tuples."""
    while chunk := tuple(islice(iterator, size)):
        yield chunk


class Job:
    """One call of a Pool's method.

    Attributes:
        context: of its results; its number.
        function: what is called, and `how`: see tasks.
        result: what the user has of it.
        chunksize: of the tasks; results are lists of so many.
        tally: where the core enters results, or None.
        drawn: how many tasks were taken from the iterable.
        length: how many there are, where that is known.
        ended: there are no more to be taken.
        taken: it is not in the supply any more.
        finished: it has all its results.
        task_ns: how long one takes, as far as is known; 0: not at all.
        window: how many may be read before their results are handed out; None: any number.
        read: batches that a reader has made.
        bar: shows how many items are done, or None.
    """

    def __init__(self, context: int, how: int, function: Function, result: Any) -> None:
        self.context = context
        self.how = how
        self.function = function
        self.result = result

    # What most jobs have stands here: many are made.
    chunksize = 1
    tally: Any = None
    drawn = 0
    length: int | None = None
    ended = False
    task_ns = 0.0
    window: int | None = None
    read: deque[Batch] | None = None
    room: Condition | None = None
    stopped = False
    taken = False
    finished = False
    bar: Any = None
    _iterator: Iterator[Any] | None = None

    def take_from(self, iterator: Iterator[Any]) -> None:
        """Take the tasks from an iterator that needs no time."""
        self._iterator = iterator

    @property
    def allowance(self) -> int:
        """How many tasks may be read now."""
        return 1 << 30 if self.window is None else self.window - (self.drawn - self.result._handed_out)

    def take(self, most: int, encoder: Encoder) -> Batch | None:
        """Return at most so many tasks, or None where there are none now; an exception is one's result."""
        if self.read is not None:
            return self._take_read(most)
        while not self.ended and self._iterator is not None:
            most = min(most, self.allowance)
            if most <= 0:
                return None
            first = self.drawn
            batch = self._draw(self._iterator, most, encoder)
            if batch is not None:
                return batch
            if self.drawn == first:
                break
        return None

    def _draw(self, iterator: Iterator[Any], most: int, encoder: Encoder) -> Batch | None:
        first = self.drawn
        with encoder.going:  # the iterator runs no code of the program
            text, count, how, item = pack_tasks(iterator, most, MOST_BYTES, encoder.main_by_reference)
        self.drawn += count
        batch = Batch(self, first, count, text) if count else None
        if how == ITERATOR_RAISED:
            self.fail_at(self.drawn, item)
        elif how == AT_END or self.drawn == self.length:
            self.end()
        elif how == LONG_ITEM:
            last = self.encode(item, encoder)
            if self.drawn == self.length:
                self.end()
            if batch is None:
                return last
            if last is not None:
                batch.add(last)
        return batch

    def encode(self, item: Any, encoder: Encoder) -> Batch | None:
        """Return the next task, or None where it cannot travel, which is its result."""
        index = self.drawn
        self.drawn += 1
        try:
            return Batch.single(self, index, encoder.encode(item, name=f"the argument of task {index}"))
        except Exception as error:  # noqa: BLE001 - it is the task's result
            self.put(index, False, error)
            return None

    def _take_read(self, most: int) -> Batch | None:
        assert self.read is not None  # noqa: S101 - who asks has looked
        if not self.read:
            return None
        batch = self.read.popleft()
        while self.read and batch.count < most and not batch.buffers:
            if self.read[0].first != batch.first + batch.count:
                break  # one between them could not travel
            batch.add(self.read.popleft())
        if self.room is not None:
            with self.room:
                self.room.notify()
        return batch

    def fail_at(self, index: int, error: Exception) -> None:
        """The iterable raised: that is the result of one task, and there are no more."""
        self.drawn += 1
        if self.length is not None and self.tally is not None:
            self.tally.left -= self.length - self.drawn  # which will never be
            self.length = self.drawn
        self.put(index, False, error)
        self.end()

    def end(self) -> None:
        """There are no more tasks."""
        self.ended = True
        self._iterator = None
        set_length = getattr(self.result, "_set_length", None)
        if set_length is not None:
            if set_length(self.drawn):
                self.finished = True
        elif self.length is not None and self.drawn < self.length:
            # It is shorter than it said.
            self.tally.left -= self.length - self.drawn
            self.length = self.drawn
            self.finished = self.finished or self.tally.left == 0

    def put(self, index: int, success: bool, value: Any) -> None:
        """Take a result; `finished` says whether that was the last one."""
        if not self.finished and self.result._put(self, index, success, value):
            self.finished = True

    def describe(self, task: Batch, codec: Codec) -> str:
        """Say which task the first one of a batch is, as a phrase."""
        try:
            shown = describe(codec.decode(*task.task()))
        except Exception:  # noqa: BLE001 - it is only shown
            shown = "an argument that cannot be shown here"
        return f"task {task.first} of {self.function.name} (with {shown})"

    def prepare_reader(self) -> None:
        """Tasks will be what a reader makes; see `start_reader`."""
        self.read = deque()
        self.room = Condition()

    def show_progress(self) -> None:
        """Let the bar show how many items are done."""
        if self.bar is not None:
            done = self.result._count(self) * self.chunksize
            self.bar.update(min(done, self.bar.total) - self.bar.n)

    def stop(self) -> None:
        """Read no more, and show no more."""
        if self.bar is not None:
            self.show_progress()
            self.bar.close()
            self.bar = None
        self.stopped = True
        if self.room is not None:
            with self.room:
                self.room.notify()

    def allow(self) -> None:
        """Let a reader look whether it may go on."""
        if self.room is not None:
            with self.room:
                self.room.notify()


def start_reader(
    job: Job, iterator: Iterator[Any], encoder: Encoder, change: Callable[[Callable[[Job], None], Job], None]
) -> None:
    """Let a thread read the tasks of a job.

    Args:
        job: whose tasks they are; it was prepared and submitted.
        iterator: the user's.
        encoder: for the tasks.
        change: does a step with a job, with the pool's lock held, then goes on with what has changed.
    """
    arguments = job, iterator, encoder, change
    Thread(target=_read, args=arguments, name="klyng_mp pool's reader", daemon=True).start()


def _read(
    job: Job, iterator: Iterator[Any], encoder: Encoder, change: Callable[[Callable[[Job], None], Job], None]
) -> None:
    while _await_room(job):
        try:
            item = next(iterator)
        except StopIteration:
            change(Job.end, job)
            return
        except Exception as error:  # noqa: BLE001 - it is the result of a task
            change(partial(_fail, error), job)
            return
        change(partial(_add, item, encoder), job)
        del item


def _fail(error: Exception, job: Job) -> None:
    job.fail_at(job.drawn, error)


def _add(item: Any, encoder: Encoder, job: Job) -> None:
    batch = job.encode(item, encoder)
    if batch is not None and job.read is not None:
        job.read.append(batch)


def _await_room(job: Job) -> bool:
    room, read = job.room, job.read
    assert room is not None  # noqa: S101 - `start_reader` has made both
    assert read is not None  # noqa: S101
    with room:
        while not job.stopped and (len(read) >= _MOST_READ or job.allowance <= 0):
            room.wait()
    return not job.stopped
