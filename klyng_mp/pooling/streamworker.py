"""A worker that is reached by a stream: tasks come ahead, and answers leave many at once.

Layer: pooling; imports doing, seats and streambench.

One thread does the tasks, another one reads what comes meanwhile: batches, and the order to give tasks back, which
cannot wait until a long task is over. Answers leave when there is nothing to do, or a millisecond has passed since
some left, or a part of the round trip that the parent has measured; while a long task goes on, the other thread sees to
that.

Invariants: the transport is used with the condition held. Answers leave in the order of the tasks.
"""

from __future__ import annotations

import os
import threading
import time
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.room import EpollPoller
from klyng_mp.pooling.doing import Note, answer_to, note_of
from klyng_mp.pooling.seats import PARENT, Seat
from klyng_mp.pooling.streambench import FLUSH
from klyng_mp.pooling.tasks import (
    ANSWERS,
    GIVEN,
    HOLD,
    ORDER,
    RECALL,
    STOP,
    TASK_HEADER,
    WORK,
    pack_answers,
    pack_count,
    unpack_count,
    unpack_work,
)
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.wire.codec import Codec

__all__ = ["StreamWorker"]

_HOLD_NS = 1_000_000  # that an answer waits for others, if the parent does not say otherwise
_PAUSE = 0.005  # between looks for answers that a long task would keep waiting
_SMALL = 1 << 13  # bytes of an answer that waits for others


class StreamWorker:
    """A worker with a stream to its parent, however far away that is."""

    def __init__(self, seat: Seat, decoder: Codec) -> None:
        self.poller = EpollPoller()
        self.stopping = False
        self._codec = decoder
        self._seat = seat
        self._changed = threading.Condition(threading.RLock())
        self._transport = seat.open(self, self.poller)
        self._bench = self._transport.bench
        self._note: Note | None = None
        self._is_leaving = False  # what was taken from the bench has not left yet
        self._is_idle = True
        self._mark = time.monotonic_ns()  # since then answers are held
        self._hold_ns = _HOLD_NS
        self._closed = False
        self._attendant = threading.Thread(target=self._attend, name="klyng_mp pool's worker", daemon=True)
        self._attendant.start()

    @property
    def claims(self) -> int:
        """How many tasks were begun."""
        return int(self._bench.claims)

    # -- what a transport's sink has; with the condition held

    def deliver(self, peer: int, message: Any) -> None:
        """Take an order, or a batch."""
        del peer
        if message.context == WORK:
            self._take(message)
        elif message.tag == STOP:
            self.stopping = True
        elif message.tag == HOLD:
            self._hold_ns = unpack_count(message.head) * 1000
        elif message.tag == RECALL:
            count = self._bench.withdraw(unpack_count(message.head))
            self._post(ORDER, GIVEN, 0, pack_count(count), ())

    def lost(self, peer: int, reason: str) -> None:
        """Leave: the parent has ended, or does not want this worker any more."""
        del peer, reason
        self.stopping = True

    # -- work

    def serve(self, maxtasks: int | None) -> None:
        """Do tasks until it is enough."""
        bench = self._bench
        self._mark = time.monotonic_ns()
        while not self.stopping:
            left = bench.work(self._mark + self._hold_ns)
            if left is None:
                if maxtasks is not None and self.claims >= maxtasks:
                    break
                self._rest()
            elif left[0] == FLUSH:
                self._flush()
            else:
                answer = answer_to(self._codec, *left)[2:]
                left = None  # nothing of the task is kept here
                self._answer(*answer)
                del answer
        self._clear()

    def _take(self, message: Any) -> None:
        work = unpack_work(message.head, message.buffers)
        self._note = note_of(work, message.code) or self._note
        self._bench.add(work, self._note)

    def _answer(self, code: int, head: bytes, buffers: Sequence[Any]) -> None:
        if not buffers and len(head) <= _SMALL:
            while not self._bench.put(code, head):
                self._flush()
                if self.stopping:
                    return
            return
        self._clear()
        text = TASK_HEADER.pack(len(head), len(buffers), code) + head
        with self._changed:
            now = time.monotonic_ns()
            self._post(ANSWERS, self._bench.skip(), 0, pack_answers(1, now - self._mark, text), buffers)
            self._mark = now
        self._wait_until_sent()

    def _rest(self) -> None:
        """There is no task: let all answers leave, and wait for one."""
        with self._changed:
            while not (self.stopping or self._bench.ahead):
                self._send_held()
                self._is_idle = True
                self._changed.wait()
                self._is_idle = False
            self._mark = time.monotonic_ns()

    def _flush(self) -> None:
        """Let the answers leave that are held; wait only where others still do."""
        with self._changed:
            while self._is_leaving and not self.stopping:
                self._changed.wait()
            self._send_held()

    def _clear(self) -> None:
        """Let all answers leave, and wait until they have."""
        self._flush()
        self._wait_until_sent()

    def _wait_until_sent(self) -> None:
        with self._changed:
            while self._transport.pending(PARENT) and not self.stopping:
                self._changed.wait()
            self._settle()

    # -- moving messages; with the condition held

    def _send_held(self) -> None:
        self._settle()
        taken = self._bench.take()
        if taken is None:
            return
        first, count, text = taken
        now = time.monotonic_ns()
        self._is_leaving = True
        self._post(ANSWERS, first, 0, pack_answers(count, now - self._mark, text), ())
        self._mark = now
        self._settle()

    def _settle(self) -> None:
        """Take note that answers are with the kernel, if they are."""
        if self._is_leaving and not self._transport.pending(PARENT):
            self._is_leaving = False
            self._bench.gone()

    def _post(self, context: int, tag: int, code: int, head: bytes, buffers: Sequence[Any]) -> None:
        # What can be changed is waited for: nothing is copied.
        message = Message(context, self._seat.place, tag, PARENT, code, head, buffers)
        self._transport.send(PARENT, message, copy=False)

    def send(self, context: int, tag: int, code: int, head: bytes, buffers: Sequence[Any]) -> None:
        """Send to the parent, and wait until it is with the kernel."""
        with self._changed:
            self._post(context, tag, code, head, buffers)
        self._wait_until_sent()

    def leave_with(self, sentinel: int) -> None:
        """Leave when a descriptor shows something."""

        def leave(_events: int) -> None:
            self.poller.unregister(sentinel)
            self.stopping = True

        with self._changed:
            self.poller.register(sentinel, EPOLLIN, leave)

    def _attend(self) -> None:
        """Read what comes while tasks are done; see to answers that were held for too long."""
        poller = self.poller
        pause: float | None = None
        while not self._closed:
            events = poller.wait(pause)
            with self._changed:
                for fd, event in events:
                    callback = poller.callbacks.get(fd)
                    if callback is not None:
                        callback(event)
                if self._bench.held and time.monotonic_ns() - self._mark > self._hold_ns:
                    self._send_held()
                self._settle()
                self._changed.notify_all()
                pause = None if self._is_idle and not self._bench.ahead else _PAUSE

    def close(self) -> None:
        """Read no more. The stream ends with the process, so that its end means that; a guest's ends here."""
        with self._changed:
            self._closed = True
        if self._seat.is_guest:
            bell = os.eventfd(1)
            self.poller.register(bell, EPOLLIN, lambda _: None)  # which wakes the thread
            self._attendant.join()
            self._transport.close()
            self.poller.close()
            os.close(bell)
