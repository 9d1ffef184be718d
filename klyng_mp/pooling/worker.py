"""What a worker of a pool does: it takes tasks, calls functions, sends results.

Layer: pooling; imports doing, seats and streamworker. The common case never comes by here: the core's Bench does it.

Invariants: a task's result is with the parent, or in its ring, or in its tray, before the next task begins.
"""

from __future__ import annotations

import gc
import signal
from contextlib import nullcontext
from multiprocessing import util
from select import EPOLLIN
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.buffers import give_unshared
from klyng_mp.communicator.room import EpollPoller
from klyng_mp.pooling.doing import Note, answer_to, describe_error, note_of
from klyng_mp.pooling.seats import OPEN_WAYS, PARENT, Seat
from klyng_mp.pooling.sharing import Shared, install_shared
from klyng_mp.pooling.streambench import NEWS
from klyng_mp.pooling.streamworker import StreamWorker
from klyng_mp.pooling.tasks import CALL, ORDER, READY, STOP, UNFIT, WORK, unpack_work
from klyng_mp.pooling.threads import limit_threads
from klyng_mp.process import parent_process
from klyng_mp.reduction import codec
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from klyng_mp.wire.codec import Codec

__all__ = ["WorkerOptions", "worker_main"]

_QUIET = 1 << 30  # batches do not ring: what lets the worker begin them does


class WorkerOptions(NamedTuple):
    """What a worker is told when it starts.

    Attributes:
        initializer, initargs: called first.
        maxtasks: after so many tasks it leaves; None: never.
        threads: that BLAS and OpenMP may use; None leaves them alone.
        shared: what all workers share, or None.
    """

    initializer: Callable[..., object] | None
    initargs: Sequence[Any]
    maxtasks: int | None
    threads: int | None
    shared: Shared | None


class _Worker:
    """A worker that shares memory with its parent."""

    def __init__(self, seat: Seat, decoder: Codec) -> None:
        self.poller = EpollPoller()
        self.stopping = False
        self._codec = decoder
        self._seat = seat
        self._transport = seat.open(self, self.poller)
        self._bench = self._transport.bench
        self._note: Note | None = None

    @property
    def claims(self) -> int:
        """How many tasks were begun."""
        return int(self._bench.claims)

    # -- what a transport's sink has

    def deliver(self, peer: int, message: Any) -> None:
        """Take an order, or a batch."""
        del peer
        if message.context == WORK:
            self._take(message)
        elif message.tag == STOP:
            self.stopping = True

    def lost(self, peer: int, reason: str) -> None:
        """Leave: the parent has ended, or does not want this worker any more."""
        del peer, reason
        self.stopping = True

    # -- work

    def serve(self, maxtasks: int | None) -> None:
        """Do tasks until it is enough."""
        bench = self._bench
        while not self.stopping:
            left = bench.work()
            if left is None:
                if maxtasks is not None and self.claims >= maxtasks:
                    return
                self._sleep()
            elif left[0] == NEWS:
                self._transport.drain(PARENT)
            else:
                answer = answer_to(self._codec, *left)
                left = None  # nothing of the task is kept here
                self._send_answer(*answer)
                del answer

    def _take(self, message: Any) -> None:
        work = unpack_work(message.head, message.buffers)
        note = self._note = note_of(work, message.code) or self._note
        function = None if note is None else note.shortcut(self._codec)
        self._bench.add(
            message.tag, work.number, work.context, work.first, note.how if note else CALL, function, note,
            work.text, work.offset, work.buffers, work.buffer,
        )  # fmt: skip

    def _send_answer(self, context: int, index: int, code: int, head: bytes, buffers: list[Any]) -> None:
        if buffers:
            buffers = give_unshared(self._transport.port, buffers)
        self.send(context, index, code, head, buffers)

    # -- moving messages

    def send(self, context: int, tag: int, code: int, head: bytes, buffers: Sequence[Any]) -> None:
        """Send to the parent, and wait until it is with it or in its ring."""
        message = Message(context, self._seat.place, tag, PARENT, code, head, buffers)
        ticket = self._transport.send(PARENT, message, copy=False)
        while not ticket.done and ticket.error is None and not self.stopping:
            self._sleep()

    def leave_with(self, sentinel: int) -> None:
        """Leave when a descriptor shows something."""

        def leave(_events: int) -> None:
            self.poller.unregister(sentinel)
            self.stopping = True

        self.poller.register(sentinel, EPOLLIN, leave)

    def _sleep(self) -> None:
        poller = self.poller
        if self._bench.sleep(poller.fileno(), PARENT, _QUIET, -1) == 1:
            self._transport.look()
            return
        for fd, event in poller.wait(0):
            callback = poller.callbacks.get(fd)
            if callback is not None:
                callback(event)

    def close(self) -> None:
        """Say goodbye."""
        self._transport.close()


def worker_main(seat: Seat, options: WorkerOptions) -> None:
    """Be a worker, in a process that was started for it."""
    is_fork = bool(OPEN_WAYS) and not seat.is_guest
    if is_fork:
        # What the parent made stays as it is: a collection would write to, and so copy, all its pages.
        gc.freeze()
        for ways in list(OPEN_WAYS):
            ways.abandon(seat)  # a fork has its parent's descriptors, and those of its parent's other pools
    limits = _prepare(options, is_fork=is_fork)
    kind = _Worker if seat.shares_memory else StreamWorker
    if not seat.is_guest:
        worker = kind(seat, codec(by_reference=True))
        _work(worker, options)
        worker.close()
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # which would leave a worker half made
    worker = kind(seat, codec(by_reference=True))
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        with limits:
            _work(worker, options)
    finally:
        worker.close()
        install_shared(None)


def _work(worker: _Worker | StreamWorker, options: WorkerOptions) -> None:
    parent = parent_process()
    if parent is not None:  # also where nothing else tells: a sibling may hold the other end of what it held
        worker.leave_with(parent.sentinel)
    install_shared(options.shared)
    if options.initializer is not None:
        try:
            options.initializer(*options.initargs)
        except Exception as error:  # noqa: BLE001 - it is told to the parent, which tells whoever waits
            worker.send(ORDER, UNFIT, 0, describe_error(error).encode("utf-8", "backslashreplace"), ())
            raise SystemExit(1) from None
    worker.send(ORDER, READY, 0, b"", ())
    worker.serve(options.maxtasks)
    util.debug(f"worker exiting after {worker.claims} tasks")


def _prepare(options: WorkerOptions, *, is_fork: bool) -> AbstractContextManager[Any]:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not ignored: what a task starts must have it as it is by default.
        signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # it was blocked while the process started
    return nullcontext() if options.threads is None else limit_threads(options.threads, is_fork=is_fork)
