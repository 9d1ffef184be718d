"""What a worker of a pool does: it takes tasks, calls functions, sends results.

Layer: pooling; imports tasks and seats. The common case never comes by here: the core's Bench does it.

Invariants: a task's result is with the parent, or in its ring, before the next task begins. Whatever a task raises, or
returns, becomes an answer; only what is no Exception ends the worker.
"""

from __future__ import annotations

import gc
import signal
from itertools import starmap
from multiprocessing import util
from select import EPOLLIN
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.buffers import give_unshared
from klyng_mp.communicator.room import EpollPoller
from klyng_mp.pooling.seats import OPEN_WAYS, PARENT, Seat
from klyng_mp.pooling.sharing import Shared, install_shared
from klyng_mp.pooling.tasks import (
    CALL,
    CALL_BOTH,
    CALL_STAR,
    CANNOT_TRAVEL,
    FAILURE,
    MAP,
    ORDER,
    READY,
    STOP,
    UNFIT,
    WORK,
    pack_failure,
    pack_refusal,
    unpack_work,
)
from klyng_mp.pooling.threads import limit_threads
from klyng_mp.process import parent_process
from klyng_mp.reduction import codec
from klyng_mp.wire.explain import describe
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.pooling.tasks import Work
    from klyng_mp.wire.codec import Codec, Encoded

    _Answer = tuple[int, int, int, bytes, list[Any]]  # context, index, code, head, buffers

__all__ = ["PureBench", "WorkerOptions", "call_function", "worker_main"]

NEWS, TASK, ERROR, RESULT = range(1, 5)  # what a Bench leaves to be done here

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


class _Note:
    """What is known of the function of a batch."""

    __slots__ = ("_function", "encoded", "how", "is_plain")

    def __init__(self, how: int, encoded: Encoded, *, is_plain: bool) -> None:
        self.how = how
        self.encoded = encoded
        self.is_plain = is_plain
        self._function: Any = None

    def function(self, decoder: Codec) -> Any:
        """Return the function: a fresh one for each task, if tasks could change it."""
        if self._function is not None:
            return self._function
        function = decoder.decode(*self.encoded)
        if self.is_plain:
            self._function = function
        return function


def call_function(how: int, function: Any, argument: Any) -> Any:
    """Return what a task comes to."""
    if how == CALL:
        return function(argument)
    if how == CALL_STAR:
        return function(*argument)
    if how == CALL_BOTH:
        args, kwargs = argument
        return function(*args, **kwargs)
    return list(map(function, argument) if how == MAP else starmap(function, argument))


class PureBench:
    """The core's Bench without the core: one task at a time, all of it left to the caller."""

    def __init__(self) -> None:
        self._left: list[tuple[Any, ...]] = []
        self.claims = 0

    def add(self, work: Work, note: Any) -> None:
        """Know the task of a batch."""
        size = int.from_bytes(work.text[work.offset : work.offset + 4], "little")
        code, begin = work.text[work.offset + 6], work.offset + 8
        head, buffers = work.text[begin : begin + size], work.buffers[work.buffer :]
        self._left.append((TASK, work.context, work.first, note, code, head, buffers))

    def work(self) -> tuple[Any, ...] | None:
        """Return what is left to the caller, or None."""
        if not self._left:
            return None
        self.claims += 1
        return self._left.pop(0)


class _Worker:
    def __init__(self, seat: Seat, decoder: Codec) -> None:
        self.codec = decoder
        self.poller = EpollPoller()
        self.stopping = False
        self._seat = seat
        self._transport = seat.open(self, self.poller)
        self._shared = getattr(self._transport, "bench", None)
        self._pure = PureBench()
        self._bench: Any = self._pure if self._shared is None else self._shared
        self._note: _Note | None = None
        self._context = 0

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
                answer = self._do(*left)
                left = None  # nothing of the task is kept here
                self._send_answer(*answer)
                del answer

    def _take(self, message: Any) -> None:
        work = unpack_work(message.head, message.buffers)
        if work.function is not None:
            self._note = _Note(message.code, work.function, is_plain=work.is_plain)
        note = self._note
        if self._shared is None:
            self._pure.add(work, note)
            return
        function = None
        if note is not None and note.is_plain and note.how in (CALL, CALL_STAR):
            try:
                function = note.function(self.codec)
            except Exception:  # noqa: BLE001 - each task finds out for itself
                function = None
        self._shared.add(
            message.tag, work.number, work.context, work.first, note.how if note else CALL, function, note,
            work.text, work.offset, work.buffers, work.buffer,
        )  # fmt: skip

    def _do(self, kind: int, context: int, index: int, note: _Note, *content: Any) -> _Answer:
        """Return what is left of a task to be sent: all else that belongs to it has gone when this has returned."""
        first, second, third = content
        argument: Any = first
        if kind == TASK:
            try:
                argument = "?"
                function = note.function(self.codec)
                argument = self.codec.decode(first, second, third)
                value = call_function(note.how, function, argument)
            except Exception as error:  # noqa: BLE001 - it is the task's answer
                return (context, index, *self._encode_error(index, note, argument, error))
        elif kind == ERROR:
            return (context, index, *self._encode_error(index, note, argument, second))
        else:
            value = second
        try:
            return (context, index, *self.codec.encode(value, name="the result"))
        except Exception as refusal:  # noqa: BLE001 - it is the task's answer
            return (context, index, *_refuse(refusal, value))

    def _encode_error(self, index: int, note: _Note, argument: Any, error: Exception) -> Encoded:
        text = _describe_error(error) + _describe_task(index, note, argument, self.codec)
        trace, error.__traceback__ = error.__traceback__, None
        try:
            code, head, buffers = self.codec.encode(error)
        except Exception as refusal:  # noqa: BLE001 - it is the task's answer
            return _refuse(refusal, error)
        finally:
            del trace
        return code | FAILURE, pack_failure(text, head), buffers

    def _send_answer(self, context: int, index: int, code: int, head: bytes, buffers: list[Any]) -> None:
        if buffers and self._shared is not None:
            buffers = give_unshared(self._transport.port, buffers)
        self.send(context, index, code, head, buffers)

    # -- moving messages

    def send(self, context: int, tag: int, code: int, head: bytes, buffers: Sequence[Any]) -> None:
        """Send to the parent, and wait until it is with it or in its ring."""
        message = Message(context, self._seat.place, tag, PARENT, code, head, buffers)
        ticket = self._transport.send(PARENT, message, copy=False)
        while not ticket.done and ticket.error is None and not self.stopping:
            self._sleep()

    def _sleep(self) -> None:
        poller = self.poller
        if self._shared is not None:
            if self._shared.sleep(poller.fileno(), PARENT, _QUIET, -1) == 1:
                self._transport.look()
                return
            events = poller.wait(0)
        else:
            events = poller.wait(None)
        for fd, event in events:
            callback = poller.callbacks.get(fd)
            if callback is not None:
                callback(event)

    def close(self) -> None:
        """Say goodbye."""
        self._transport.close()


def _refuse(refusal: Exception, value: Any) -> Encoded:
    try:
        shown = repr(value)
    except Exception as error:  # noqa: BLE001 - whatever it says of itself, this is about something else
        shown = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return CANNOT_TRAVEL, pack_refusal(refusal, shown), []


def _describe_error(error: Exception) -> str:
    import traceback  # noqa: PLC0415 - only who has an error needs it

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _describe_task(index: int, note: _Note, argument: Any, decoder: Codec) -> str:
    try:
        function: Any = note.function(decoder)
        name = getattr(function, "__qualname__", None) or type(function).__name__
    except Exception:  # noqa: BLE001 - that is what the error is about
        name = "a function that cannot be rebuilt here"
    try:
        shown = describe(argument)
    except Exception:  # noqa: BLE001 - it is only shown
        shown = type(argument).__name__
    return f"(in task {index} of {name}, with {shown})\n"


def worker_main(seat: Seat, options: WorkerOptions) -> None:
    """Be a worker, in a process that was started for it."""
    is_fork = bool(OPEN_WAYS)
    if is_fork:
        # What the parent made stays as it is: a collection would write to, and so copy, all its pages.
        gc.freeze()
    for ways in list(OPEN_WAYS):
        ways.abandon(seat)  # a fork has its parent's descriptors, and those of its parent's other pools
    _prepare(options, is_fork=is_fork)
    worker = _Worker(seat, codec(by_reference=True))
    _watch_parent(worker)
    install_shared(options.shared)
    if options.initializer is not None:
        try:
            options.initializer(*options.initargs)
        except Exception as error:  # noqa: BLE001 - it is told to the parent, which tells whoever waits
            worker.send(ORDER, UNFIT, 0, _describe_error(error).encode("utf-8", "backslashreplace"), ())
            raise SystemExit(1) from None
    worker.send(ORDER, READY, 0, b"", ())
    worker.serve(options.maxtasks)
    util.debug(f"worker exiting after {worker.claims} tasks")
    worker.close()


def _prepare(options: WorkerOptions, *, is_fork: bool) -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not ignored: what a task starts must have it as it is by default.
        signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # it was blocked while the process started
    if options.threads is not None:
        limit_threads(options.threads, is_fork=is_fork)


def _watch_parent(worker: _Worker) -> None:
    """Leave when the parent ends, also where nothing else tells: a sibling may hold the other end of what it held."""
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def leave(_events: int) -> None:
            worker.poller.unregister(sentinel)
            worker.stopping = True

        worker.poller.register(sentinel, EPOLLIN, leave)
