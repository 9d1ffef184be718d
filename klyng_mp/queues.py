"""Queues between processes, which no killed process stops.

Layer: above packets; multiprocessing.queues' names. The locks come from the context that makes a queue.

An object is pickled by whoever puts it, and written at once if there is room: then no thread is needed. Only what finds
no room waits in this process, for a thread that feeds it, as ``put`` must not wait for a reader.
"""

from __future__ import annotations

import errno
import multiprocessing.queues as standard
import os
import threading
import traceback
import weakref
from multiprocessing.context import assert_spawning
from multiprocessing.synchronize import SEM_VALUE_MAX  # type: ignore[attr-defined]
from queue import Empty, Full
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.packets import Content, PacketConnection, PacketPipe, encode, own
from klyng_mp.util import Finalize, debug, info, is_exiting, register_after_fork

if TYPE_CHECKING:
    from collections import deque

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]

_AT_ONCE = Deadline(0)


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

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._reader, self._writer = PacketPipe()
        self._opid = os.getpid()
        self._sem = ctx.BoundedSemaphore(self._maxsize)
        self._ignore_epipe = False
        self._reset()
        register_after_fork(self, Queue._after_fork)  # type: ignore[attr-defined]

    def __getstate__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        return self._ignore_epipe, self._maxsize, self._reader, self._writer, self._sem, self._opid

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._ignore_epipe, self._maxsize, self._reader, self._writer, self._sem, self._opid = state
        self._reset()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an object into the queue, as it is now.

        Raises:
            CodecError: it cannot travel; names which part.
            Full: there was no room for it, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.

        After any of these the queue is as it was.
        """
        self._check_open()
        if not self._sem.acquire(block, timeout):
            raise Full
        try:
            content = self._encode(obj)
            if content is not None:
                self._enqueue(content)
                return
        except BaseException:
            self._sem.release()
            raise
        self._sem.release()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an object out of the queue.

        Raises:
            Empty: there was none, at once or within ``timeout`` seconds.
            ValueError: the queue was closed here.
            Exception: whatever unpickling raises; the object is lost, and the queue goes on.
        """
        self._check_open()
        deadline = _AT_ONCE if not block else NEVER if timeout is None else Deadline(timeout)
        try:
            return self._reader.receive_object(deadline, self._sem.release)
        except BlockingIOError:
            raise Empty from None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def _encode(self, obj: Any) -> Any:
        """Return what is to be sent, or None if it cannot travel and a subclass has taken care of that."""
        try:
            return encode(obj)
        except Exception as error:
            if type(self)._on_queue_feeder_error is standard.Queue._on_queue_feeder_error:  # type: ignore[attr-defined]
                raise
            self._on_queue_feeder_error(error, obj)  # type: ignore[attr-defined]
            return None

    def _enqueue(self, content: Content) -> None:
        with self._notempty:
            self._putting = True
            if not self._buffer and self._writer.send_content(content, wait=False):
                return
            if self._thread is None:
                self._start_thread()
            self._buffer.append(own(content))
            self._notempty.notify()

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
            target=Queue._feed_packets,
            args=(self._buffer, self._notempty, (self._reader, self._writer), self._sem, self._ignore_epipe),
            name="QueueFeederThread",
            daemon=True,
        )
        thread.start()
        if not self._joincancelled:
            self._jointhread = Finalize(
                thread,
                standard.Queue._finalize_join,
                [weakref.ref(thread)],
                exitpriority=-5,
            )
        self._close = Finalize(self, Queue._finalize_close, [self._buffer, self._notempty], exitpriority=10)  # type: ignore[attr-defined]

    @staticmethod
    def _feed_packets(
        buffer: deque[Any], notempty: threading.Condition, ends: tuple[Any, Any], sem: Any, ignore_epipe: bool
    ) -> None:
        """Write what had to wait; an object stays in the buffer until it is written, so that none overtakes it."""
        reader, writer = ends
        while True:
            with notempty:
                while not buffer:
                    notempty.wait()
                content = buffer[0]
            if content is standard._sentinel:  # type: ignore[attr-defined]
                reader.close()
                writer.close()
                return
            try:
                writer.send_content(content)
            except Exception as error:  # noqa: BLE001 - nobody else can tell of it
                sem.release()
                if ignore_epipe and getattr(error, "errno", 0) == errno.EPIPE:
                    return
                if is_exiting():  # what is used here may be gone already
                    info("error in queue thread: %s", error)
                    return
                traceback.print_exc()
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

    def _enqueue(self, content: Content) -> None:
        with self._cond:
            super()._enqueue(content)
            self._unfinished_tasks.release()


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a bound of its own: ``put`` waits while the pipe is full. See ``multiprocessing.SimpleQueue``.

    Args:
        ctx: the context whose processes use it.

    Threads: all may use it.
    """

    def __init__(self, *, ctx: Any) -> None:
        del ctx  # there is nothing to lock
        self.__setstate__(PacketPipe())

    def __getstate__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        return self._reader, self._writer

    def __setstate__(self, state: tuple[PacketConnection, PacketConnection]) -> None:
        self._reader, self._writer = state
        self._poll = self._reader.poll

    def get(self) -> Any:
        """Take an object out of the queue; wait until there is one."""
        return self._reader.recv()

    def put(self, obj: Any) -> None:
        """Put an object into the queue; see `Queue.put`."""
        self._writer.send(obj)
