"""Pipes between processes on any host of a World, as multiprocessing's connections.

Layer: objects. What is sent lies in the driver until it is received.

Cost: each call is a message to the driver and one back; in the driver, none. So where much is to travel, or to go on
while it does, a queue or the communicator is better.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from functools import partial
from multiprocessing.connection import _ConnectionBase
from typing import TYPE_CHECKING, Any
from weakref import finalize

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.objects.asking import How
from klyng_mp.objects.leaving import LEAVING
from klyng_mp.objects.orders import Outcome, What
from klyng_mp.objects.passing import note_passing
from klyng_mp.objects.pipes import PipeState
from klyng_mp.objects.shared import find_desk
from klyng_mp.wire.packing import APART_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.objects.asking import Asking, Question
    from klyng_mp.objects.desk import Desk
    from klyng_mp.objects.orders import Content, Order, Process
    from klyng_mp.objects.shared import Numbers

__all__ = ["FarConnection", "keep_pipe", "make_pipe", "rebuild_end"]


def _give_back(desk: Asking, number: int, answer: Order, *, end: int) -> None:
    desk.tell(number, What.GIVE_BACK, (end, 0, 0), answer.content)


_SEND, _POLL = How("send() into a shared pipe"), How("poll() of a shared pipe")
_RECV = tuple(How("recv() from a shared pipe", undo=partial(_give_back, end=end)) for end in (0, 1))


def make_pipe(numbers: Numbers, *, duplex: bool) -> tuple[FarConnection, FarConnection]:
    """Return the ends of a new pipe of a World, of which this process is the driver."""
    desk = numbers.desk
    number = keep_pipe(numbers, (desk.process, desk.process))
    return FarConnection(desk, number, 0, writable=duplex), FarConnection(desk, number, 1, readable=duplex)


def keep_pipe(numbers: Numbers, holders: tuple[Process, Process]) -> int:
    """Let a pipe live here until nobody has any end; return its number."""
    desk, number = numbers.desk, numbers.new()
    desk.keep(number, partial(PipeState, holders=holders, over=partial(desk.drop, number)))
    return number


class _Bell:
    """A descriptor that can be read when it is worth looking.

    Attributes:
        fd: it, or -1 while nobody has asked for one.
        rung: it can be read.

    Threads: any may ring and close it, also in a finalizer; the rest with the endpoint's lock held.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.rung = False
        self._guard = threading.RLock()

    def hang(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        with self._guard:
            if self.fd >= 0:
                self.rung = True
                os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        self.rung = False
        os.eventfd_read(self.fd)

    def close(self) -> None:
        with self._guard:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)


def _let_go(desk: Desk, number: int, end: int, bell: _Bell) -> None:
    """Close an end that was forgotten."""
    bell.close()
    desk.defer(number, What.DROP, (end, 0, 0))


class FarConnection(_ConnectionBase):
    """One end of a pipe of a World with hosts; see ``multiprocessing.connection.Connection``.

    It may be pickled at any time, to any process of the World; the other end sees its end when all that have it have
    closed it, or ended. An end that is pickled once and rebuilt by several is that of those who have come.

    Raises:
        EOFError: from what receives: nobody has the other end any more.
        BrokenPipeError: from what sends: likewise. What has been sent is lost.
        KlyngError: the World is closed, or the run is being ended.
    """

    _handle: Any  # the pipe's number, or None
    _readable: bool
    _writable: bool
    _check_closed: Callable[[], None]
    _check_writable: Callable[[], None]

    def __init__(self, desk: Desk, number: int, end: int, *, readable: bool = True, writable: bool = True) -> None:
        super().__init__(number, readable, writable)
        self._desk = desk
        self._end = end
        self._bell = _Bell()
        self._looking: Question | None = None
        desk.expect_deferred()
        self._finalizer = finalize(self, _let_go, desk, number, end, self._bell)
        self._finalizer.atexit = False

    def __del__(self) -> None:
        """Do nothing: `_let_go` does it, and not while the interpreter is being taken apart."""

    def fileno(self) -> int:
        """Return a descriptor that can be read when there is something to receive, also the end; for `wait` and so on.

        To be ready it costs a message to the driver now, and one after each that is received.
        """
        self._check_closed()
        with self._desk.endpoint.lock:
            if self._bell.fd < 0:
                self._bell.hang()
                self._look()
            return self._bell.fd

    def send(self, obj: object) -> None:
        """Send an object; also lambdas, closures, local classes, and things of a notebook's ``__main__``.

        Returns when the driver has it, which is at once unless a MiB is on its way to the other end.

        Raises:
            CodecError: it cannot travel; names which part. Nothing was sent.
            BrokenPipeError, OSError: as in the standard library.
        """
        self._check_closed()
        self._check_writable()
        with LEAVING:
            data = self._desk.codec.encode_pickle(obj)
        self._send_bytes(data)

    def _send_bytes(self, buf: Any) -> None:
        data = bytes(buf)
        content: Content = (0, data, ()) if len(data) < APART_BYTES else (0, b"", [data])
        numbers = self._end, 0, 0
        if self._desk.ask(self._handle, What.SEND, numbers, content=content, how=_SEND).what != Outcome.YES:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        answer = self._desk.ask(self._handle, What.RECV, (self._end, 0, 0), how=_RECV[self._end])
        self._look_again()
        if answer.what != Outcome.YES:
            raise EOFError
        _, head, buffers = answer.content
        received = io.BytesIO()
        for part in (head, *buffers):
            received.write(part)
        return None if maxsize is not None and received.tell() > maxsize else received

    def _poll(self, timeout: float | None) -> bool:
        waits = timeout is None or timeout > 0
        deadline = Deadline(timeout) if waits and timeout is not None else NEVER
        numbers = self._end, int(waits), 0
        return self._desk.ask(self._handle, What.PEEK, numbers, deadline=deadline, how=_POLL).what == Outcome.YES

    def _close(self) -> None:
        self._finalizer.detach()
        with self._desk.endpoint.lock:
            self._bell.close()
            if self._looking is not None:
                self._desk.give_up(self._looking)
            self._desk.tell(self._handle, What.DROP, (self._end, 0, 0))

    def _look(self) -> None:
        self._looking = self._desk.ask_later(self._handle, What.PEEK, (self._end, 1, 0), self._bell.ring)

    def _look_again(self) -> None:
        """Have the bell rung by what is there now, or comes."""
        if self._bell.fd >= 0:
            with self._desk.endpoint.lock:
                if self._bell.rung:
                    self._bell.silence()
                    self._look()

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_closed()
        note_passing(self._desk, (self._handle, self._end))
        return rebuild_end, (self._handle, self._end, self._readable, self._writable)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of a World with hosts{', closed' if self.closed else ''}>"


def rebuild_end(number: int, end: int, readable: bool, writable: bool) -> FarConnection:
    """Return an end from what has travelled of it; pickles call this.

    Raises:
        NotAcrossHostsError: this process is not of its World.
    """
    desk = find_desk(number, "Pipe")
    with desk.endpoint.lock:
        desk.tell(number, What.HOLD, (end, 0, 0))
    return FarConnection(desk, number, end, readable=readable, writable=writable)
