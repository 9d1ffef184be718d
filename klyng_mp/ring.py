"""Pipes of whole objects for any number of processes, in shared memory: what queues are made of.

Layer: above connection and segments, on the core's `Queue`; without the core nothing of this is used.

An object is pickled by whoever puts it. Up to some size it is copied into the ring and out again, without a system
call but to wake who sleeps; beyond it, it is in a segment (segments.py), which begins with the sizes of its parts.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
from typing import TYPE_CHECKING, Any

from klyng_mp.connection import Connection
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.native import core
from klyng_mp.reduction import DupFd, ForkingPickler, codec, loads
from klyng_mp.segments import SegmentPool, receive, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FULL", "NO_ROOM", "Content", "Ring", "RingReader", "RingWriter", "encode", "own", "rebuild_ring"]

Content = list[Any]
"""What is to be sent of an object: its pickle, then the buffers beside it."""

NO_ROOM, FULL = 1, 2  # why an object could not be put

# From here on a descriptor, a mapping and its end cost less than to copy twice; and the ring is for many objects.
_SMALLEST_SEGMENT = 1 << 15
_BUFFER_BYTES = 1 << 22  # asked for; the kernel gives what it allows

# These are the same with each pickler, and most of what is put.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})

_segments = SegmentPool()


def encode(obj: object) -> Content:
    """Return what is to be sent of an object.

    Raises:
        CodecError: it cannot travel; names which part.
    """
    if type(obj) in _PLAIN:
        return [pickle.dumps(obj, 5)]
    buffers: list[memoryview] = []
    data = codec().encode_pickle(obj, buffers)
    return [data, *buffers] if buffers else [data]


def own(content: Content) -> Content:
    """Return content that does not change with the object any more."""
    return [part if type(part) is bytes else bytes(part) for part in content]


class Ring:
    """One such pipe: its memory, a socket for the descriptors of segments, and a bell.

    Args:
        travels: whether processes may use it that are not forks of this one.

    Raises:
        OSError: no memory, or no descriptors, are left.

    Threads: all may use it.
    """

    def __init__(self, *, travels: bool) -> None:
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with receiver, sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._open(-1, travels, receiver.detach(), sender.detach(), bell)

    def _open(self, memory: int, travels: bool, receiver: int, sender: int, bell: int) -> None:
        # Numbers: a socket that is collected in one cycle with its ring may find out before it that nobody closed it.
        self._receiver, self._sender, self.bell = receiver, sender, bell
        self._queue = core.Queue(memory, travels, receiver, sender, bell)
        self.poll = self._queue.poll

    def __del__(self, close: Any = os.close) -> None:  # at the interpreter's end this module's names are gone
        if hasattr(self, "bell"):
            for fd in (self._receiver, self._sender, self.bell):
                close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._queue.fd < 0:
            raise RuntimeError(
                "A queue created in a fork context is being shared with a process in a spawn context. This is not "
                "supported. Please use the same context to create multiprocessing objects and Process."
            )
        fds = (self._queue.fd, self._receiver, self._sender, self.bell)
        return rebuild_ring, tuple(DupFd(fd) for fd in fds)

    def put(self, content: Content, limit: int = 0) -> int:
        """Put what `encode` has made, without waiting.

        Args:
            content: may be changed afterwards.
            limit: how many objects there may be; 0: any number.

        Returns:
            0, or why not: NO_ROOM or FULL.

        Raises:
            OSError: no memory, or no descriptors, are left; nothing was put.
        """
        data = content[0]
        if len(content) == 1 and len(data) < _SMALLEST_SEGMENT:
            return self._queue.put(data, limit)
        if sum(len(part) for part in content) < _SMALLEST_SEGMENT:
            return self._queue.put(pickle.dumps(_Opened(content), 5), limit)
        segment = _segments.fill([table_of(content), *content])
        refused = -1
        try:
            refused = self._queue.put_descriptor(segment.fd, limit)
        finally:
            if refused:
                segment.give_back()
            _segments.keep(segment)
        return refused

    def get(self, timeout: float | None = None) -> Any:
        """Return the next object; of those who wait for it, only one gets it.

        Raises:
            BlockingIOError: there was nothing within ``timeout`` seconds.
            Exception: whatever unpickling raises; the object is lost.
        """
        found = self._queue.get(timeout)
        if found is None:
            raise BlockingIOError
        if type(found) is bytes:
            return pickle.loads(found)  # noqa: S301 - from a process of the same program
        data, *buffers = receive(int(found))
        return loads(data, buffers)

    def insist(self, put: Callable[[], int], deadline: Deadline) -> int:
        """Call ``put`` until it has put something, or the time is over; return what it returned last."""
        while True:
            taken = self._queue.taken  # first, or the last one might be taken between the two
            refused = put()
            if not refused or not self._queue.wait_taken(taken, deadline.left()):
                return refused

    @property
    def size(self) -> int:
        """How many objects there are, also those that wait for room in some process."""
        return self._queue.size

    def buffer(self, change: int) -> None:
        """Say that more objects, or fewer, wait for room in this process."""
        self._queue.buffer(change)

    def watch(self) -> None:
        """Let the bell be readable from now on, while there is something."""
        self._queue.watch()


class _End(Connection):
    """One end of a ring, as programs and concurrent.futures know those of a pipe; closing it closes nothing else."""

    def __init__(self, ring: Ring, *, readable: bool) -> None:
        super().__init__(ring.bell, readable, not readable)
        self._ring = ring

    def _close(self) -> None:
        """Leave the descriptor to the ring."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("one end of a queue cannot be pickled; send the queue")


class RingReader(_End):
    """The end that is read; its descriptor is readable while there is something, once it was asked for."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(ring, readable=True)

    def fileno(self) -> int:
        """Return a descriptor that can be polled."""
        self._ring.watch()
        return super().fileno()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether there is something, after ``timeout`` seconds at the latest."""
        self._check_closed()  # type: ignore[attr-defined]
        return self._ring.poll(timeout)

    def recv(self) -> Any:
        """Return the next object."""
        self._check_closed()  # type: ignore[attr-defined]
        return self._ring.get()

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        del maxsize
        file = io.BytesIO()
        file.write(ForkingPickler.dumps(self._ring.get()))
        return file


class RingWriter(_End):
    """The end that is written."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(ring, readable=False)

    def send(self, obj: object) -> None:
        """Put an object; wait for room."""
        self._check_closed()  # type: ignore[attr-defined]
        self._send_content(encode(obj))

    def _send_bytes(self, buf: memoryview) -> None:
        self._send_content([bytes(buf)])

    def _send_content(self, content: Content) -> None:
        if self._ring.put(content):
            self._ring.insist(lambda: self._ring.put(content), NEVER)


def rebuild_ring(*handles: Any) -> Ring:
    """Return a ring from what has travelled of it; pickles call this."""
    memory, receiver, sender, bell = (handle.detach() for handle in handles)
    ring = Ring.__new__(Ring)
    ring._open(memory, True, receiver, sender, bell)
    return ring


class _Opened:
    """A small object with buffers beside it, in one pickle."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        data, *buffers = self._content
        return _open_parts, (data, *map(bytearray, buffers))


def _open_parts(data: bytes, *buffers: bytearray) -> Any:
    return loads(data, buffers)
