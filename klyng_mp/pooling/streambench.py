"""The bench of a worker that is reached by a stream: its tasks ahead, and its tray.

Layer: pooling; imports tasks and trays.

Threads: one does tasks; another may add some, take some back, and see off the answers.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.tasks import TASK_HEADER
from klyng_mp.pooling.trays import HALF_BYTES, HEAD_BYTES

if TYPE_CHECKING:
    from klyng_mp.pooling.tasks import Work

__all__ = ["ERROR", "FLUSH", "NEWS", "RESULT", "TASK", "StreamBench"]

NEWS, TASK, ERROR, RESULT, FLUSH = range(1, 6)  # what a bench, this or the core's, leaves to be done

_PAIR = struct.Struct("<II")


class StreamBench:
    """Tasks ahead, each left to the caller, and the answers of those that were done.

    Args:
        tray: writable memory of TRAY_BYTES.

    Attributes:
        claims: how many tasks were begun.
    """

    def __init__(self, tray: Any) -> None:
        self.claims = 0
        self._tasks: deque[tuple[Any, ...]] = deque()
        self._tray = memoryview(tray)
        self._words = self._tray[:HEAD_BYTES].cast("Q")
        self._lock = threading.Lock()
        self._half = 0
        self._next = 0  # number of the next answer
        self._count = self._size = 0  # of the half that is written
        self._leaving = False

    @property
    def ahead(self) -> int:
        """How many tasks have not begun."""
        return len(self._tasks)

    @property
    def held(self) -> int:
        """How many answers could leave."""
        return self._count

    def add(self, work: Work, note: Any) -> None:
        """Have a batch of tasks ahead; the note is what the caller wants to know of its function."""
        offset, buffer = work.offset, work.buffer
        for index in range(work.first, work.first + work.number):
            size, own, code = TASK_HEADER.unpack_from(work.text, offset)
            offset += TASK_HEADER.size
            buffers = list(work.buffers[buffer : buffer + own])
            task = TASK, work.context, index, note, code, work.text[offset : offset + size], buffers
            offset += size
            buffer += own
            self._tasks.append(task)

    def withdraw(self, most: int) -> int:
        """Give back at most so many of the last tasks; return how many."""
        count = 0
        while count < most:
            try:
                self._tasks.pop()
            except IndexError:
                break
            count += 1
        return count

    def work(self, until_ns: int) -> tuple[Any, ...] | None:
        """Do tasks until the monotonic clock is there; return what is left to the caller, or None: there is no task."""
        if self._count and time.monotonic_ns() >= until_ns:
            return (FLUSH,)
        try:
            task = self._tasks.popleft()
        except IndexError:
            return None
        self.claims += 1
        self._words[0] = self.claims
        return task

    def put(self, code: int, head: bytes) -> bool:
        """Lay an answer on the tray; return False where there is no room for it."""
        with self._lock:
            end = self._size + TASK_HEADER.size + len(head)
            if end > HALF_BYTES:
                return False
            begin = HEAD_BYTES + self._half * HALF_BYTES
            self._tray[begin + self._size : begin + end] = TASK_HEADER.pack(len(head), 0, code) + head
            if not self._count:
                self._words[1 + 2 * self._half] = self._next
            self._count += 1
            self._size = end
            self._next += 1
            self._words[2 + 2 * self._half] = self._count << 32 | end
            return True

    def take(self) -> tuple[int, int, bytes] | None:
        """Return number of the first, count and text of the answers, which leave now; None: none, or some still do."""
        with self._lock:
            if self._leaving or not self._count:
                return None
            begin = HEAD_BYTES + self._half * HALF_BYTES
            taken = self._next - self._count, self._count, bytes(self._tray[begin : begin + self._size])
            self._half = 1 - self._half
            self._count = self._size = 0
            self._leaving = True
            return taken

    def gone(self) -> None:
        """What was taken has left."""
        with self._lock:
            self._leaving = False
            self._words[2 + 2 * (1 - self._half)] = 0

    def skip(self) -> int:
        """Return the number of the next answer, which leaves by itself; none is held."""
        self._next += 1
        return self._next - 1
