"""The workers of a pool, and all that belongs to them, as one object.

Layer: pooling; imports all of it but pool. Knows no Pool, so a Pool that nobody needs can be collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.books import CLOSE, RUN, TERMINATE, Books, CrewOptions, closed_error
from klyng_mp.pooling.dealing import Dealer
from klyng_mp.pooling.desk import Desk
from klyng_mp.pooling.farways import FarWays
from klyng_mp.pooling.inbox import Inbox
from klyng_mp.pooling.jobs import Job
from klyng_mp.pooling.seats import make_ways
from klyng_mp.pooling.staff import Staff
from klyng_mp.pooling.streamdealing import StreamDealer
from klyng_mp.pooling.tasks import FIRST_JOB

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.pooling.encoding import Encoder
    from klyng_mp.pooling.seats import Ways
    from klyng_mp.pooling.tasks import Function

__all__ = ["Crew"]


class Crew:
    """The workers of one pool.

    Raises:
        OSError: no processes, memory or descriptors are left; what was made has been undone.

    Attributes:
        books: what is known of it.
    """

    def __init__(self, options: CrewOptions) -> None:
        self._desk = Desk()
        self.books = Books(options, self._desk)
        self._inbox = Inbox(self.books)
        self._next_context = FIRST_JOB
        self._released = False
        self._ways = self._make_ways()
        if self._ways.ledger is None:
            self._inbox.streams = StreamDealer(self.books, self._ways)
        self._dealer = self._inbox.dealer = self._inbox.streams or Dealer(self.books, self._ways)
        self.books.transport = self._ways.transport
        self.books.ledger = self._ways.ledger
        try:
            self._staff = self._inbox.staff = Staff(self.books, self._dealer, self._ways)
            self._desk.start(self._inbox)
        except BaseException:
            self._release()
            raise

    def _make_ways(self) -> Ways | FarWays:
        options = self.books.options
        if options.world is not None:
            return FarWays(self._inbox, self._desk, options.world)
        return make_ways(options.processes, self._inbox, self._desk.poller)

    @property
    def encoder(self) -> Encoder:
        """Encodes functions and arguments."""
        return self.books.encoder

    @property
    def processes(self) -> list[Any]:
        """The workers."""
        return self._staff.processes

    # -- jobs

    def check(self) -> None:
        """Raise unless new tasks may be given.

        Raises:
            ValueError: the pool was closed or terminated, or is another process's.
        """
        if self.books.state != RUN or not self.books.is_ours:
            raise ValueError("Pool not running")

    def make_job(self, how: int, function: Function, result: Any) -> Job:
        """Return a job without tasks."""
        with self._desk.lock:
            self._next_context += 2
            return Job(self._next_context, how, function, result)

    def submit(self, job: Job, *, wait: bool = False) -> None:
        """Let a job's tasks be done.

        Args:
            job: whose tasks they are.
            wait: the caller waits for it at once.
        """
        with self._desk.lock:
            books = self.books
            if books.broken is not None or books.state == TERMINATE:
                self.fail(job.result, books.broken or closed_error())
                return
            books.open(job)
            self._dealer.feed()
            if not wait:
                self._desk.attend()

    def submit_one(self, job: Job, argument: Any, *, wait: bool) -> None:
        """Let a job's only task be done; see `submit`."""
        with self._desk.lock:
            books = self.books
            job.length = 1
            if books.broken is None and books.state == RUN:
                job.ended = True
                books.open(job)
                if self._dealer.deal_at_once(job, argument):
                    if not wait:
                        self._desk.attend()
                    return
                job.ended = job.taken = False
            job.take_from(iter((argument,)))
            self.submit(job, wait=wait)

    def fail(self, result: Any, error: Exception) -> None:
        """A result is there before there were any tasks."""
        result._fail(error)
        with self._desk.lock:
            self.books.deliver(result)

    def change(self, step: Callable[[Job], None], job: Job) -> None:
        """Do a step that changes a job, and go on."""
        with self._desk.lock:
            step(job)
            if job.finished:
                self.books.finish(job)
            self._dealer.feed()
            self._desk.notify()

    def hand_out(self, job: Job) -> None:
        """A result of a job was handed out, so more of its tasks may be read."""
        if job.room is not None:
            job.allow()
        elif self.books.is_ours:
            with self._desk.lock:
                self._dealer.feed()

    def wait(self, is_done: Callable[[], bool], timeout: float | None) -> None:
        """Wait for something; see `Desk.wait`.

        Raises:
            ValueError: this is a forked child, to which nothing comes.
        """
        if not self.books.is_ours:
            raise ValueError("Pool not running in this process: its workers are its parent's")
        self._desk.wait(is_done, timeout)

    # -- the end

    def close(self) -> None:
        """Take no more tasks; workers leave when all are done."""
        if not self.books.is_ours:
            return
        with self._desk.lock:
            if self.books.state == RUN:
                self.books.state = CLOSE
                self._inbox.dismiss()
                self._desk.kick()

    def terminate(self) -> None:
        """End the workers at once; what was not done never will be."""
        if not self.books.is_ours:
            return
        with self._desk.lock:
            if self._released or self.books.state == TERMINATE:
                return
            self.books.state = TERMINATE
            self._dealer.forget_all()
            self._staff.signal()
            self.books.fail_all(closed_error(), call_back=False)
            self._desk.alarm()
        self._staff.end()
        if self._desk.end():
            self._inbox.call_back()
            self._release()

    def join(self) -> None:
        """Wait for the workers' ends."""
        ended = self._desk.end()
        self._staff.stop_recruiting()
        for process in self.processes:
            process.join()
        if ended and self.books.is_ours:
            self._release()

    def maintain(self) -> None:
        """Replace workers that have ended."""
        with self._desk.lock:
            self._desk.see_deaths()

    def _release(self) -> None:
        """Give everything back, once."""
        with self._desk.lock:
            if self._released:
                return
            self._released = True
            self._ways.close()
            self._desk.close()
            if self.books.options.worker.shared is not None:
                self.books.options.worker.shared.close()
