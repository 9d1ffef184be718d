"""Queues that processes on any host of a World use, under multiprocessing's names.

Layer: objects. Where a queue lives, and what becomes of it when that process ends, is told in `queuing`.

Cost: what is put travels to the process that reads first, and from there to other readers; so what one process reads
costs one message, and another one that says that it has come.
"""

from __future__ import annotations

from queue import Empty, Full
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.objects.asking import How
from klyng_mp.objects.leaving import LEAVING
from klyng_mp.objects.orders import Outcome, What, own_content
from klyng_mp.objects.shared import Shared
from klyng_mp.objects.stores import AT_ONCE

if TYPE_CHECKING:
    from klyng_mp.objects.shared import Numbers

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

_PUT = How("put() into a shared queue")
_GET = How("get() from a shared queue")
_JOIN = How("join() of a shared queue")


class _Store(Shared):
    """What all queues have in common."""

    _stays = False

    def __init__(self, numbers: Numbers, maxsize: int = 0) -> None:
        super().__init__(numbers)
        with self._desk.endpoint.lock:
            self._desk.queuing.make(self._number, maxsize, stays=self._stays)
        self._set_state(maxsize)

    def _state(self) -> tuple[Any, ...]:
        return (self._maxsize,)

    def _set_state(self, maxsize: int) -> None:  # type: ignore[override]
        self._maxsize = maxsize
        self._closed = False
        with self._desk.endpoint.lock:
            self._desk.queuing.use(self._number)

    def close(self) -> None:
        """Say that this object is used no more; others of the same queue are."""
        self._closed = True

    def empty(self) -> bool:
        """Tell whether there is nothing in it."""
        self._check()
        return not self._size()

    def _check(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def _size(self) -> int:
        return self._desk.ask(self._number, What.SIZE).first

    def _put(self, obj: Any, block: bool, timeout: float | None) -> bool:
        self._check()
        with LEAVING:
            content = own_content(self._desk.codec.encode(obj))
        if not self._maxsize:
            self._desk.put_at_once(self._number, content, _PUT)
            return True
        waits = block and (timeout is None or timeout > 0)
        deadline = Deadline(timeout) if waits and timeout is not None else NEVER
        return self._desk.put(self._number, content, 0 if waits else AT_ONCE, deadline, _PUT) == Outcome.YES

    def _get(self, block: bool, timeout: float | None) -> Any:
        self._check()
        waits = block and (timeout is None or timeout > 0)
        deadline = Deadline(timeout) if waits and timeout is not None else NEVER
        answer = self._desk.ask(self._number, What.GET, (int(waits), 0, 0), deadline=deadline, how=_GET)
        if answer.what != Outcome.GOT:
            raise Empty
        return self._desk.codec.decode(*answer.content)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of a World with hosts>"


class Queue(_Store):
    """A queue of objects for many putters and many getters; see ``multiprocessing.Queue``.

    Args:
        numbers: of its World.
        maxsize: how many objects it holds; 0: any number.

    Threads: all may use it.
    """

    def __init__(self, numbers: Numbers, maxsize: int = 0) -> None:
        super().__init__(numbers, max(0, maxsize))

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue, as it is now.

        Raises:
            CodecError: it cannot travel; names which part.
            Full: there was no room for it, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.

        After any of these the queue is as it was.
        """
        if not self._put(obj, block, timeout):
            raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an object out of the queue.

        Raises:
            Empty: there was none, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.
            CodecError: it cannot be rebuilt here; the object is lost, and the queue goes on.
        """
        return self._get(block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """Put an object into the queue if there is room now; see `put`."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Take an object out of the queue if there is one now; see `get`."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many objects there are, as of now."""
        return self._size()

    def full(self) -> bool:
        """Tell whether there are as many objects as may be."""
        return bool(self._maxsize) and self._size() >= self._maxsize

    def join_thread(self) -> None:
        """Do nothing: what was put has been sent, and no thread is needed for it."""

    def cancel_join_thread(self) -> None:
        """Do nothing; see `join_thread`."""


class JoinableQueue(Queue):
    """A queue that can be joined: until each object that was put is done. It lives in the driver."""

    _stays = True

    def task_done(self) -> None:
        """Say that an object that was taken is done.

        Raises:
            ValueError: it was said more often than objects were put.
        """
        if self._desk.ask(self._number, What.TASK_DONE).what == Outcome.TOO_OFTEN:
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until all objects are done that were put."""
        self._desk.ask(self._number, What.JOIN, how=_JOIN)


class SimpleQueue(_Store):
    """A queue without a bound; see ``multiprocessing.SimpleQueue``.

    Threads: all may use it.
    """

    def __init__(self, numbers: Numbers) -> None:
        super().__init__(numbers)

    def put(self, obj: Any) -> None:
        """Put an object into the queue; see `Queue.put`."""
        self._put(obj, True, None)

    def get(self) -> Any:
        """Take an object out of the queue; wait until there is one."""
        return self._get(True, None)
