"""Who gets which tasks, and when: sent ahead of each worker, and taken back for one that has none.

Layer: pooling; imports books, jobs and tasks.

Invariants: everything is done with the desk's lock held. A task is in exactly one place: not taken from its job yet, in
`returned`, ahead of one worker, or claimed by one.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import WorkerDiedError
from klyng_mp.pooling.books import TERMINATE
from klyng_mp.pooling.jobs import MOST_BUFFER_BYTES
from klyng_mp.pooling.seats import PARENT
from klyng_mp.pooling.tasks import WORK, Batch, pack_tasks, pack_work
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from klyng_mp.pooling.books import Books, Hand
    from klyng_mp.pooling.farways import FarWays
    from klyng_mp.pooling.jobs import Job
    from klyng_mp.pooling.seats import Ways
    from klyng_mp.transports.contract import Ticket

__all__ = ["Dealer"]

_AHEAD_NS = 4_000_000  # of work ahead of each worker: a few times what the parent may need to look
_MOST_AHEAD = 8192
_FIRST_TASKS = 8  # ahead of a worker while nothing is known of how long they take
_NUMBERS = 0xFFFFFFFF  # what tasks are counted modulo


class Dealer:
    """Deals the tasks of a crew's jobs to its workers."""

    def __init__(self, books: Books, ways: Ways | FarWays) -> None:
        self._books = books
        self._ways = ways
        self._returned: deque[Batch] = deque()
        self._retried: dict[tuple[int, int], int] = {}
        quota = books.options.worker.maxtasks
        self._quota = 1 << 62 if quota is None else quota

    def feed(self) -> None:
        """Send tasks to those who need some."""
        books = self._books
        if books.state == TERMINATE or books.broken is not None:
            return
        if books.supply or self._returned:
            for hand in books.hands:
                if hand.sent == hand.seen:
                    self._fill(hand)
            for hand in books.hands:
                if not (books.supply or self._returned):
                    break
                if hand.sent > hand.seen:
                    self._fill(hand)
        if books.jobs and not (books.supply or self._returned):
            self._level()

    def deal_at_once(self, job: Job, argument: Any) -> bool:
        """Send the only task of a job to a worker that has nothing to do; return False if there is none."""
        books = self._books
        if books.supply or self._returned:
            return False
        for hand in books.hands:
            if hand.sent == hand.seen and hand.is_ready and hand.sent < self._quota:
                text, count, _, _ = pack_tasks(iter((argument,)), 1, 1, books.encoder.main_by_reference)
                if count:
                    self._send(hand, Batch(job, 0, 1, text))
                return bool(count)
        return False

    def note_answers(self) -> int:
        """Take note of what has been answered; return how many there were."""
        count = 0
        for hand in self._books.hands:
            if hand.sent > hand.seen:
                count += self._note(hand)
        return count

    def disown(self, hand: Hand) -> None:
        """Send elsewhere what a dead worker had ahead, and say what it was at."""
        books = self._books
        books.transport.drain(hand.place)
        self._note(hand)
        claimed = self._count_begun(hand)
        rest: list[Batch] = []
        for start, batch in hand.spans:
            left = batch if start >= hand.seen else batch.split(hand.seen - start)[1]
            if claimed:
                task, left = left.split(1)
                claimed = 0
                self._lose(task, hand)
            if left.count:
                rest.append(left)
        self._returned.extendleft(reversed([batch for batch in rest if not batch.job.finished]))

    def forget_all(self) -> None:
        """There is nobody to deal to."""
        self._returned.clear()

    # -- inside

    def _fill(self, hand: Hand) -> None:
        while not (hand.is_gone or hand.blocked):
            most = self._wanted(hand)
            batch = self._next_batch(most) if most > 0 else None
            if batch is None:
                return
            self._send(hand, batch)

    def _wanted(self, hand: Hand) -> int:
        """Return how many more tasks a worker should have."""
        books = self._books
        left = self._quota - hand.sent
        job = self._first_job()
        if job is None:
            return 0
        ahead: int = books.ledger.ahead(hand.place)
        if ahead and hand.load > 4 * MOST_BUFFER_BYTES:
            return 0
        target = _FIRST_TASKS
        if job.task_ns:
            target = min(_MOST_AHEAD, max(1, int(_AHEAD_NS / job.task_ns)))
        if ahead > target // 2:
            return 0
        if job.length is not None:
            target = min(target, max(1, -(-(job.length - job.drawn) // len(books.hands))))
        return min(left, target - ahead)

    def _first_job(self) -> Job | None:
        """Return the job whose tasks are dealt next."""
        if self._returned:
            job: Job = self._returned[0].job
            return job
        return self._books.supply[0] if self._books.supply else None

    def _next_batch(self, most: int) -> Batch | None:
        if self._returned:
            batch = self._returned.popleft()
            if batch.count > most:
                batch, rest = batch.split(most)
                self._returned.appendleft(rest)
            return batch
        return self._take(most)

    def _take(self, most: int) -> Batch | None:
        """Take tasks of the first job that has some now."""
        books = self._books
        found: Batch | None = None
        over: list[Job] = []
        for job in books.supply:
            found = job.take(most, books.encoder)
            if job.finished or (job.ended and not job.read):
                over.append(job)
            if found is not None:
                break
        for job in over:
            job.taken = True
            if books.supply[0] is job:
                books.supply.popleft()
            else:
                books.supply.remove(job)
            if job.finished:
                books.finish(job)
        return found

    def _level(self) -> None:
        """There are no other tasks: let those who have none take half of what another has not begun."""
        hands = self._books.hands
        idle = [hand for hand in hands if hand.sent == hand.seen and hand.is_ready and not hand.is_gone]
        if not idle or len(idle) == len(hands):
            return
        for hand in idle:
            victim = max((other for other in hands if not other.blocked), key=self._spare, default=hand)
            most = min((self._spare(victim) + 1) // 2, self._quota - hand.sent)
            if victim is hand or most <= 0:
                return
            self._take_back(victim, most)
            while self._returned and not hand.blocked:
                self._send(hand, self._returned.popleft())

    def _spare(self, hand: Hand) -> int:
        """Return how many tasks a worker has that it will not begin next."""
        if hand.sent == hand.seen:
            return 0
        ahead: int = self._books.ledger.ahead(hand.place)
        begins = hand.is_ready and hand.sent - hand.seen == ahead  # the first of them, just now
        return ahead - begins

    def _take_back(self, hand: Hand, most: int) -> None:
        self._forget_last(hand, self._books.ledger.withdraw(hand.place, most))

    def _forget_last(self, hand: Hand, taken: int) -> None:
        """A worker does not have so many of its last tasks any more."""
        while taken:
            start, batch = hand.spans.pop()
            count = min(taken, batch.count)
            if count < batch.count:
                kept, batch = batch.split(batch.count - count)
                hand.spans.append((start, kept))
            hand.sent -= count
            hand.load -= batch.size_bytes
            taken -= count
            self._returned.appendleft(batch)

    def _send(self, hand: Hand, batch: Batch) -> None:
        books = self._books
        job = batch.job
        head, buffers = pack_work(batch, job.context, None if hand.known == job.context else job.function)
        message = Message(WORK, PARENT, hand.sent & _NUMBERS, hand.incarnation, job.how, head, buffers)
        ticket = books.transport.send(hand.place, message, copy=False)
        hand.known = job.context
        if hand.sent == hand.seen:
            hand.since = time.monotonic_ns()
        hand.spans.append((hand.sent, batch))
        hand.sent += batch.count
        hand.load += batch.size_bytes
        self._allow(hand, ticket, batch.count)

    def _allow(self, hand: Hand, ticket: Ticket, count: int) -> None:
        """Let a worker begin tasks that were sent, once they are in its ring."""
        if ticket.done:
            self._books.ledger.extend(hand.place, count)
        else:
            hand.blocked.append((ticket, count))

    def _count_begun(self, hand: Hand) -> int:
        """Return how many tasks a dead worker had begun and not answered: 0 or 1."""
        ledger = self._books.ledger
        claimed: int = (ledger.claimed(hand.place) - hand.seen) & _NUMBERS
        ledger.reset(hand.place)
        return claimed

    def _note(self, hand: Hand) -> int:
        ledger = self._books.ledger
        while hand.blocked and hand.blocked[0][0].done:
            ledger.extend(hand.place, hand.blocked.popleft()[1])
        answered: int = ledger.answered(hand.place)
        count = answered - hand.seen
        if count:
            now = time.monotonic_ns()
            job: Job = hand.spans[0][1].job
            sample = (now - hand.since) / count
            job.task_ns = (job.task_ns + sample) / 2 if job.task_ns else sample
            self._see(hand, answered, now)
        return count

    def _see(self, hand: Hand, answered: int, now: int) -> None:
        """Take note that a worker has answered so many tasks."""
        spans = hand.spans
        hand.since = now
        hand.seen = answered
        while spans and spans[0][0] + spans[0][1].count <= answered:
            hand.load -= spans.popleft()[1].size_bytes

    def _lose(self, task: Batch, hand: Hand) -> None:
        job: Job = task.job
        key = job.context, task.first
        tries = self._retried.pop(key, 0)
        if tries < self._books.options.retries:
            self._retried[key] = tries + 1
            self._returned.appendleft(task)
            return
        shown = job.describe(task, self._books.encoder.codec)
        process, (where, reason) = hand.process, self._ways.fate_of(hand.place)
        error = WorkerDiedError(shown, process.pid, process.exitcode, task.first, where=where, reason=reason)
        job.put(task.first, False, error)
        if job.finished:
            self._books.finish(job)
