"""Queues on rings in shared memory, which no killed process stops.

Layer: above ring; only where there is a core. What `JoinableQueue` waits with comes from the context that makes it.

An object is pickled by whoever puts it, and written at once if there is room: then no thread is needed. Only what finds
no room waits in this process, for a thread that feeds it, as ``put`` must not wait for a reader.
"""

from __future__ import annotations

import multiprocessing.queues as standard
import os
import threading
import weakref
from functools import partial
from multiprocessing.context import assert_spawning
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.ring import FULL, NO_ROOM, Content, Ring, RingReader, RingWriter, encode, own
from klyng_mp.robust import travels
from klyng_mp.util import Finalize, debug, info, is_exiting, register_after_fork

if TYPE_CHECKING:
    from collections import deque

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class Queue(standard.Queue):  # type: ignore[type-arg]
    """A queue of objects for many putters and many getters; see ``multiprocessing.Queue``.

    Large buffers (NumPy arrays) are copied once, into memory that the getter's object then uses.

    Args:
        maxsize: how many objects it holds; 0: any number.
        ctx: the context whose processes use it.

    Threads: all may use it.
    """

    _buffer: Any
    _notempty: threading.Condition
    _closed: bool
    _thread: threading.Thread | None
    _joincancelled: bool
    _putting: bool

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._use(Ring(travels=travels(ctx)))
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._opid = os.getpid()
        self._ignore_epipe = False
        self._reset()
        register_after_fork(self, Queue._after_fork)  # type: ignore[attr-defined]

    def _use(self, ring: Ring) -> None:
        self._ring = ring
        self._reader, self._writer = RingReader(ring), RingWriter(ring)

    def __getstate__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        return self._ignore_epipe, self._maxsize, self._ring, self._opid

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._ignore_epipe, self._maxsize, ring, self._opid = state
        self._use(ring)
        self._reset()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue, as it is now.

        Raises:
            CodecError: it cannot travel; names which part.
            Full: there was no room for it, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.

        After any of these the queue is as it was.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        try:
            content = encode(obj)
        except Exception as error:
            if type(self)._on_queue_feeder_error is standard.Queue._on_queue_feeder_error:  # type: ignore[attr-defined]
                raise
            self._on_queue_feeder_error(error, obj)  # type: ignore[attr-defined]  # a subclass wants to know
            return
        if self._enqueue(content):
            self._wait_for_room(content, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an object out of the queue.

        Raises:
            Empty: there was none, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.
            Exception: whatever unpickling raises; the object is lost, and the queue goes on.
        """
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")
        try:
            return self._ring.get(timeout if block else 0)
        except BlockingIOError:
            raise Empty from None

    def qsize(self) -> int:
        """Return how many objects there are, about."""
        return self._ring.size

    def full(self) -> bool:
        """Tell whether there are as many objects as may be."""
        return self._ring.size >= self._maxsize

    def _enqueue(self, content: Content) -> int:
        """Put content, or keep it for the feeder; return FULL if it may be neither."""
        limit = 0 if self._maxsize == SEM_VALUE_MAX else self._maxsize
        with self._notempty:
            refused = FULL if limit and self.full() else NO_ROOM
            if not self._buffer:  # else what comes would overtake it
                refused = self._ring.put(content, limit)
            if refused == NO_ROOM:
                if self._thread is None:
                    self._start_thread()
                self._ring.buffer(1)
                self._buffer.append(own(content))
                self._notempty.notify()
                refused = 0
            self._putting = self._putting or not refused
        return refused

    def _wait_for_room(self, content: Content, block: bool, timeout: float | None) -> None:
        if not block or self._ring.insist(lambda: self._enqueue(content), Deadline(timeout)):
            raise Full

    def close(self) -> None:
        """Say that this process puts no more; what is buffered is still written."""
        self._closed = True
        if self._thread is not None:
            super().close()
        elif self._putting:
            self._reader.close()
            self._writer.close()

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        self._putting = False

    def _start_thread(self) -> None:
        debug("Queue._start_thread()")
        self._thread = thread = threading.Thread(
            target=Queue._feed_ring,
            args=(self._buffer, self._notempty, self._ring, (self._reader, self._writer)),
            name="QueueFeederThread",
            daemon=True,
        )
        thread.start()
        if not self._joincancelled:
            self._jointhread = Finalize(
                thread,
                standard.Queue._finalize_join,  # type: ignore[attr-defined]
                [weakref.ref(thread)],
                exitpriority=-5,
            )
        self._close = Finalize(self, Queue._finalize_close, [self._buffer, self._notempty], exitpriority=10)  # type: ignore[attr-defined]

    @staticmethod
    def _feed_ring(buffer: deque[Any], notempty: threading.Condition, ring: Ring, ends: tuple[Any, Any]) -> None:
        """Put what had to wait; it stays in the buffer until then, so that nothing overtakes it."""
        while True:
            with notempty:
                while not buffer:
                    notempty.wait()
                content = buffer[0]
            if content is standard._sentinel:  # type: ignore[attr-defined]
                for end in ends:
                    end.close()
                return
            try:
                ring.insist(partial(ring.put, content), NEVER)
            except Exception as error:  # noqa: BLE001 - nobody else can tell of it
                if is_exiting():  # what is used here may be gone already
                    info("error in queue thread: %s", error)
                    return
                standard.Queue._on_queue_feeder_error(error, content)  # type: ignore[attr-defined]
            ring.buffer(-1)
            buffer.popleft()


class JoinableQueue(Queue, standard.JoinableQueue):  # type: ignore[type-arg]
    """A queue that can be joined: until each object that was put is done. See ``multiprocessing.JoinableQueue``."""

    _cond: Any
    _unfinished_tasks: Any

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._unfinished_tasks = ctx.Semaphore(0)
        self._cond = ctx.Condition()

    def __getstate__(self) -> tuple[Any, ...]:
        return (*super().__getstate__(), self._cond, self._unfinished_tasks)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        super().__setstate__(state[:-2])
        self._cond, self._unfinished_tasks = state[-2:]

    def _enqueue(self, content: Content) -> int:
        with self._cond:
            refused = super()._enqueue(content)
            if not refused:
                self._unfinished_tasks.release()
        return refused


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a bound of its own: ``put`` waits while the pipe is full. See ``multiprocessing.SimpleQueue``.

    Args:
        ctx: the context whose processes use it.

    Threads: all may use it.
    """

    def __init__(self, *, ctx: Any) -> None:
        self.__setstate__(Ring(travels=travels(ctx)))

    def __getstate__(self) -> Ring:
        assert_spawning(self)
        return self._ring

    def __setstate__(self, ring: Ring) -> None:
        self._ring = ring
        self._reader, self._writer = RingReader(ring), RingWriter(ring)
        self._poll = self._reader.poll
        self._rlock = threading.Lock()  # the standard library's own Pool takes it when it terminates

    def get(self) -> Any:
        """Take an object out of the queue; wait until there is one."""
        return self._reader.recv()

    def put(self, obj: Any) -> None:
        """Put an object into the queue; see `Queue.put`."""
        self._writer.send(obj)
