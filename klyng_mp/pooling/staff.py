"""The worker processes of a pool: started, watched, replaced when they end, ended.

Layer: pooling; imports books, dealing, seats and worker.

Invariants: everything but `end` is done with the desk's lock held. A worker that ended is replaced at its place, by one
with a higher incarnation, unless the pool is over; three in a row that are never ready end the pool.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from functools import partial
from select import EPOLLIN
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import LaunchError, describe_exitcode
from klyng_mp.pooling.books import CLOSE, TERMINATE
from klyng_mp.pooling.farways import FarWays
from klyng_mp.pooling.recruiting import Recruiter
from klyng_mp.pooling.seats import PARENT
from klyng_mp.pooling.tasks import ORDER, READY, STOP, UNFIT
from klyng_mp.pooling.threads import limit_forks
from klyng_mp.pooling.worker import worker_main
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from klyng_mp.pooling.books import Books, Hand
    from klyng_mp.pooling.dealing import Dealer
    from klyng_mp.pooling.seats import Ways

__all__ = ["Staff"]

_TRIES = 3  # to start a worker, in a row
_LAST_WORDS_SECONDS = 5.0  # in which a stream ends whose worker has ended: a child of its may hold it open
_END_SECONDS = 1.0  # that a worker has to end when it is told to, before it is killed


class Staff:
    """The processes of a crew.

    Raises:
        OSError: a process cannot be started; none is left.

    Attributes:
        processes: those of all places, in their order.
    """

    def __init__(self, books: Books, dealer: Dealer, ways: Ways | FarWays) -> None:
        self.processes: list[Any] = []
        self._books = books
        self._dealer = dealer
        self._ways = ways
        self._failed_starts = 0
        self._last_words = ""
        self._timers: dict[int, threading.Timer] = {}  # of workers that are dead and not buried
        self._recruiter: Recruiter | None = None
        if isinstance(ways, FarWays):
            self._recruiter = Recruiter(ways.has_place, self._recruit, self._give_up_later)
        try:
            with self._limits():
                for hand in books.hands:
                    self.processes.append(self._start(hand))
        except BaseException:
            self.signal()
            for process in self.processes:
                process.join()
            raise
        for hand in books.hands:
            self._watch(hand)

    def hear(self, message: Any) -> None:
        """Take a word of a worker about itself."""
        if message.tag == READY:
            self._books.hands[message.source - 1].is_ready = True
            self._failed_starts = 0
        elif message.tag == UNFIT:
            self._last_words = message.head.decode("utf-8", "replace")

    def lose(self, place: int) -> None:
        """Nothing more comes from a worker: either it has ended, or it is cut off, so that it is of no use."""
        hand = self._books.hands[place - 1]
        if hand.is_dead:
            self._bury(hand)
        elif self._ways.can_be_cut and hand.process is not None and not hand.is_gone:
            hand.is_gone = True
            hand.process.kill()

    def dismiss(self) -> None:
        """Let all workers leave."""
        self._books.leaving = True
        for hand in self._books.hands:
            if not hand.is_gone:
                message = Message(ORDER, PARENT, STOP, hand.incarnation, 0, b"", ())
                self._books.transport.send(hand.place, message, copy=False)

    def give_up(self, error: Exception) -> None:
        """There will be no workers any more: everybody who waits, or will wait, is told why."""
        self._books.broken = error
        self._dealer.forget_all()
        self.signal()
        self._books.fail_all(error, call_back=True)

    def stop_recruiting(self) -> None:
        """Start no successors any more; without the desk's lock."""
        if self._recruiter is not None:
            self._recruiter.stop()

    def signal(self) -> None:
        """Tell all workers to end at once."""
        for process in self.processes:
            if process.exitcode is None:
                process.terminate()

    def end(self) -> None:
        """Wait for the ends of workers that were told to, and kill who does not obey."""
        self.stop_recruiting()
        while self._timers:
            self._timers.popitem()[1].cancel()
        deadline = time.monotonic() + _END_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    # -- inside

    def _limits(self) -> AbstractContextManager[Any]:
        options = self._books.options
        return limit_forks(options.worker.threads if options.forks else None)

    def _start(self, hand: Hand) -> Any:
        process = self._launch(self._ways.seat(hand.place, hand.incarnation))
        hand.process = process
        self._ways.seated(hand.place, process)
        return process

    def _launch(self, seat: Any) -> Any:
        options = self._books.options
        process = options.make_process(target=worker_main, args=(seat, options.worker))
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        with _interrupts_later():
            process.start()
        return process

    def _recruit(self, place: int) -> Exception | None:
        """Start a worker for a place that has none, in the recruiter's thread; return why it could not be."""
        books, hand = self._books, self._books.hands[place - 1]
        with books.desk.lock:
            seat = self._ways.seat(place, hand.incarnation)
        try:
            process = self._launch(seat)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no worker
            return error
        with books.desk.lock:
            self.processes[place - 1] = hand.process = process
            if books.state == TERMINATE or books.leaving or books.broken:
                process.terminate()
                return None
            self._ways.seated(place, process)
            hand.is_gone = False
            self._watch(hand)
            self._dealer.feed()
        return None

    def _give_up_later(self, error: Exception) -> None:
        with self._books.desk.lock:
            if self._books.state != TERMINATE and not self._books.broken:
                self.give_up(error)
                self._books.desk.notify()
                self._books.desk.kick()
        if self._recruiter is not None:
            self._recruiter.stop()

    def _watch(self, hand: Hand) -> None:
        self._books.desk.deaths.register(hand.process.sentinel, EPOLLIN, partial(self._see_end, hand))

    def _see_end(self, hand: Hand, _events: int) -> None:
        """A worker has ended; what it has said before may be on its way."""
        books, process = self._books, hand.process
        books.desk.deaths.unregister(process.sentinel)
        if books.state == TERMINATE:
            return
        process.join()
        books.transport.drain(hand.place)
        if self._ways.is_open(hand.place):
            hand.is_gone = hand.is_dead = True
            self._wait_for_last_words(hand)
        else:
            self._bury(hand)

    def _wait_for_last_words(self, hand: Hand) -> None:
        """Bury a worker after a while, if its stream has not ended by then."""
        incarnation = hand.incarnation

        def act() -> None:
            with self._books.desk.lock:
                if hand.incarnation == incarnation and hand.is_dead and self._books.state != TERMINATE:
                    self._bury(hand)

        timer = self._timers[hand.place] = threading.Timer(_LAST_WORDS_SECONDS, act)
        timer.daemon = True
        timer.start()

    def _bury(self, hand: Hand) -> None:
        """Deal the tasks of a worker that has ended to others, and start its successor."""
        books, process = self._books, hand.process
        if (timer := self._timers.pop(hand.place, None)) is not None:
            timer.cancel()
        lost = self._ways.fate_of(hand.place)[1]
        self._dealer.disown(hand)
        books.transport.disconnect(hand.place, dead=True)
        was_ready, incarnation = hand.is_ready, hand.incarnation + 1
        hand.begin()
        hand.incarnation = incarnation
        hand.is_gone = True
        if not (books.leaving or books.broken or (books.state == CLOSE and not books.jobs)):
            self._failed_starts += not was_ready and not lost
            if self._failed_starts >= _TRIES:
                self.give_up(self._describe_failed_starts(process))
            elif self._recruiter is not None:
                self._recruiter.want(hand.place)
            else:
                self._replace(hand)
        books.desk.notify()

    def _replace(self, hand: Hand) -> None:
        try:
            with self._limits():
                self.processes[hand.place - 1] = self._start(hand)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no worker
            self.give_up(error)
            return
        hand.is_gone = False
        self._watch(hand)
        self._dealer.feed()

    def _describe_failed_starts(self, process: Any) -> LaunchError:
        words = f":\n\n{self._last_words.rstrip()}" if self._last_words else " (what it wrote to stderr tells more)"
        return LaunchError(
            f"{_TRIES} workers of this Pool in a row ended before they were ready, so no more are started; the last "
            f"one {describe_exitcode(process.exitcode)}{words}"
        )


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Block SIGINT here, and in what is started: a worker lets it come when it knows what to do with it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
