"""What comes from a pool's workers, and how long to sleep until something does.

Layer: pooling; imports books, dealing and staff. It is the desk's work, and the sink of the transport.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from klyng_mp.machine import usable_cpus
from klyng_mp.pooling.answers import read_answer
from klyng_mp.pooling.books import CLOSE, TERMINATE
from klyng_mp.pooling.tasks import ANSWERS, GIVEN, ORDER
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from klyng_mp.pooling.books import Books
    from klyng_mp.pooling.dealing import Dealer
    from klyng_mp.pooling.staff import Staff
    from klyng_mp.pooling.streamdealing import StreamDealer

__all__ = ["Inbox"]

_BURST = 8  # so many results in one look: then the next look may wait for twice as many, or a millisecond
_MOST_EXPECTED = 4096  # a quarter of what the smallest results fill a ring with


class Inbox:
    """Takes what workers send.

    Attributes:
        staff: who is told what workers say of themselves; set before the first one is started.
        dealer: who is told what they have answered; set before that.
        streams: the same, where they are reached by streams.
    """

    staff: Staff | None = None
    dealer: Dealer
    streams: StreamDealer | None = None

    def __init__(self, books: Books) -> None:
        self._books = books
        self._fresh = 0
        self._cpus = usable_cpus()

    # -- what a transport's sink has

    def deliver(self, peer: int, message: Any) -> None:
        """Take a result, a tally that is complete, or a word of a worker."""
        del peer
        books = self._books
        job = books.jobs.get(message.context)
        if type(message) is not Message:
            if job is not None:
                books.finish(job)
            return
        if message.context == ANSWERS and self.streams is not None:
            self.streams.take_answers(message)
            return
        if message.context == ORDER and message.tag == GIVEN and self.streams is not None:
            self.streams.take_given(message)
            return
        if message.context == ORDER:
            if self.staff is not None:
                self.staff.hear(message)
            return
        if job is not None:
            answer = message.code, message.head, message.buffers
            job.put(int(message.tag), *read_answer(*answer, books.encoder.codec))
            if job.finished:
                books.finish(job)

    def lost(self, peer: int, reason: str) -> None:
        """A worker said goodbye, or is cut off; the end of its process tells the rest."""
        del reason
        if self.staff is not None and self._books.state != TERMINATE:
            self.staff.lose(peer)

    # -- what a desk's work has

    @property
    def is_active(self) -> bool:
        """See `Work`."""
        return bool(self._books.jobs) or (self._books.state == CLOSE and not self.is_over)

    @property
    def is_over(self) -> bool:
        """See `Work`."""
        books = self._books
        return books.state == TERMINATE or (books.leaving and all(hand.is_gone for hand in books.hands))

    @property
    def has_calls(self) -> bool:
        """See `Work`."""
        return bool(self._books.calls)

    def look(self) -> None:
        """See `Work`."""
        books = self._books
        if books.state == TERMINATE:
            return
        if books.ledger is not None:
            books.transport.look()
        self._fresh = self.dealer.note_answers()
        self.dealer.feed()
        if books.has_bars:
            for job in books.jobs.values():
                job.show_progress()
        self.dismiss()

    def dismiss(self) -> None:
        """Let the workers of a closed pool leave, once there is nothing to be done; with the desk's lock held."""
        books = self._books
        if books.state == CLOSE and not books.jobs and not books.leaving and self.staff is not None:
            self.staff.dismiss()

    def sleep(self, seconds: float | None) -> None:
        """See `Work`."""
        books = self._books
        poller = books.desk.poller
        if self.streams is not None:
            pause = self.streams.patience()
            if pause is not None:
                seconds = pause if seconds is None else min(seconds, pause)
            events = poller.wait(-1 if seconds is None else seconds)
        else:
            expected, milliseconds = 0, -1 if seconds is None else int(seconds * 1000) + 1
            if self._fresh >= _BURST:
                expected, milliseconds = min(2 * self._fresh, _MOST_EXPECTED), 1
            if books.ledger.sleep(poller.fileno(), self._whom_to_spin_for(), expected, milliseconds) != 2:
                return
            events = poller.wait(0)
        with books.desk.lock:
            for fd, event in events:
                callback = poller.callbacks.get(fd)
                if callback is not None:
                    callback(event)

    def call_back(self) -> None:
        """See `Work`."""
        calls = self._books.calls
        while calls:
            result = calls.popleft()
            try:
                result._finish()
            except Exception:  # noqa: BLE001 - it is told as any thread's, and stops no other
                _tell_exception()
            with self._books.desk.lock:
                self._books.desk.notify()

    def break_down(self, error: Exception) -> None:
        """See `Work`."""
        with self._books.desk.lock:
            if self.staff is not None:
                self.staff.give_up(error)
        self.call_back()

    def _whom_to_spin_for(self) -> int:
        """Return the only worker that is at work, where there is a core for it and for this process."""
        found = -1
        for hand in self._books.hands:
            if hand.sent > hand.seen:
                if found > 0 or self._cpus == 1:
                    return -1
                found = hand.place
        return found


def _tell_exception() -> None:
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
