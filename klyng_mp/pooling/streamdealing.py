"""Dealing to workers that are reached by streams: far enough ahead, and back again where another one has nothing.

Layer: pooling; imports dealing, answers and tasks.

What such a worker has is known as it was half a round trip ago. It gets so many tasks that it has some when the answer
to the first of them is here (`Pace`), so a slow one gets less. When there are no others, those who have none get what
others have not begun: these are asked, and say how many they give back; until then they get nothing.

Invariants: as those of `Dealer`. Answers come in the order of the tasks, so their numbers need not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from klyng_mp.pooling.answers import read_answer
from klyng_mp.pooling.dealing import Dealer
from klyng_mp.pooling.jobs import MOST_BUFFER_BYTES
from klyng_mp.pooling.seats import PARENT
from klyng_mp.pooling.tasks import HOLD, ORDER, RECALL, TASK_HEADER, pack_count, unpack_answers, unpack_count
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.pooling.books import Hand
    from klyng_mp.pooling.jobs import Job
    from klyng_mp.pooling.trays import TrayContent
    from klyng_mp.transports.contract import Ticket

__all__ = ["StreamDealer"]

_REFILL = 4  # of what a worker should have, so much of it is sent at once
_LEAST_PAUSE = 0.002


class StreamDealer(Dealer):
    """See `Dealer`."""

    _fresh = 0  # answers since they were asked for
    _left: TrayContent | None = None  # by the worker that is disowned

    def take_answers(self, message: Message) -> None:
        """Take what came in one message."""
        hand = self._books.hands[message.source - 1]
        count, busy_ns, offset = unpack_answers(message.head)
        if message.incarnation != PARENT or not hand.spans:
            return
        first = hand.answered
        now = time.monotonic_ns()
        job = self._enter(hand, count, message.head, offset, message.buffers)
        hand.pace.note(first, count, busy_ns, job.context, now)
        job.task_ns = (job.task_ns + hand.pace.task_ns) / 2 if job.task_ns else hand.pace.task_ns
        self._fresh += count
        if hold := hand.pace.news_of_hold():
            self._order(hand, HOLD, hold)
        self._see(hand, hand.answered, now)

    def take_given(self, message: Message) -> None:
        """A worker has given tasks back, as it was told to."""
        hand = self._books.hands[message.source - 1]
        hand.is_recalled = False
        self._forget_last(hand, unpack_count(message.head))

    def note_answers(self) -> int:
        """See `Dealer.note_answers`."""
        fresh, self._fresh = self._fresh, 0
        return fresh

    def disown(self, hand: Hand) -> None:
        """See `Dealer.disown`; what is on its tray counts as answered."""
        self._books.transport.drain(hand.place)
        self._left = self._ways.left_by(hand.place)
        for first, count, text in self._left.answers if self._left is not None else ():
            self._enter_left(hand, first, count, text)
        super().disown(hand)

    def patience(self) -> float | None:
        """Return after how many seconds somebody may have tasks to be taken back although nothing is heard of him."""
        books = self._books
        if not books.jobs or books.supply or self._returned:
            return None
        if not any(self._is_idle(hand) for hand in books.hands):
            return None
        waits = [hand.pace.last_call() for hand in books.hands if hand.sent - hand.seen > 1 and not hand.is_recalled]
        return max(_LEAST_PAUSE, min(waits) / 1e9) if waits else None

    # -- answers

    def _enter(self, hand: Hand, count: int, text: bytes, offset: int, buffers: Sequence[Any]) -> Job:
        """Enter the next answers of a worker; return the last one's job."""
        buffer = 0
        for start, batch in hand.spans:
            skipped = hand.answered - start
            here = min(count, batch.count - skipped)
            if here <= 0:
                continue
            job: Job = batch.job
            first = batch.first + skipped
            hand.answered += here
            count -= here
            for index in range(first, first + here):
                offset, own = self._enter_one(job, index, text, offset, buffers[buffer:])
                buffer += own
            if not count:
                return job
        raise RuntimeError(f"worker {hand.place} of a Pool has answered {count} tasks that it was not given")

    def _enter_one(self, job: Job, index: int, text: bytes, offset: int, buffers: Sequence[Any]) -> tuple[int, int]:
        """Enter an answer; return where the next one begins, and how many buffers it had."""
        size, own, code = TASK_HEADER.unpack_from(text, offset)
        offset += TASK_HEADER.size
        if not job.finished:
            answer = code, text[offset : offset + size], list(buffers[:own])
            job.put(index, *read_answer(*answer, self._books.encoder.codec))
            if job.finished:
                self._books.finish(job)
        return offset + size, own

    def _enter_left(self, hand: Hand, first: int, count: int, text: bytes) -> None:
        """Enter what was on a tray, but for what had come."""
        known = hand.answered - first
        if not 0 <= known < count or hand.answered + count - known > hand.sent:
            return
        offset = 0
        for _ in range(known):
            offset += TASK_HEADER.size + TASK_HEADER.unpack_from(text, offset)[0]
        self._enter(hand, count - known, text, offset, ())

    # -- tasks

    def _wanted(self, hand: Hand) -> int:
        """See `Dealer._wanted`."""
        job = self._first_job()
        if job is None or hand.is_recalled or not hand.is_ready:
            return 0
        ahead = hand.sent - hand.seen
        if ahead and hand.load > 4 * MOST_BUFFER_BYTES:
            return 0
        target = hand.pace.target(job.context, job.task_ns)
        if ahead and ahead > target - max(1, target // _REFILL):
            return 0
        if job.length is not None:
            rest = job.length - job.drawn + sum(batch.count for batch in self._returned)
            hands = sum(not other.is_gone for other in self._books.hands)
            target = min(target, ahead + max(1, -(-rest // hands)))
        return min(self._quota - hand.sent, target - ahead)

    def _allow(self, hand: Hand, ticket: Ticket, count: int) -> None:
        del ticket  # what has come may begin
        if hand.sent == count + hand.seen:
            hand.pace.ask(hand.seen, hand.since)

    def _count_begun(self, hand: Hand) -> int:
        left, self._left = self._left, None
        if left is None:
            return int(hand.is_ready and hand.sent > hand.seen)
        return min(1, max(0, left.begun - hand.seen), hand.sent - hand.seen)

    def _note(self, hand: Hand) -> int:
        del hand  # answers are taken note of when they come
        return 0

    def _level(self) -> None:
        """See `Dealer._level`: they are asked for, and come later."""
        hands = self._books.hands
        idle = sum(self._is_idle(hand) for hand in hands)
        asked = sum(hand.is_recalled for hand in hands)
        if idle <= asked:
            return
        victim = max(hands, key=self._spare)
        most = self._spare(victim) * idle // (idle + 1) or 1
        if self._spare(victim) > 0:
            victim.is_recalled = True
            self._order(victim, RECALL, most)

    def _order(self, hand: Hand, tag: int, number: int) -> None:
        message = Message(ORDER, PARENT, tag, hand.incarnation, 0, pack_count(number), ())
        self._books.transport.send(hand.place, message, copy=False)

    def _is_idle(self, hand: Hand) -> bool:
        return hand.is_ready and not hand.is_gone and hand.sent == hand.seen and hand.sent < self._quota

    def _spare(self, hand: Hand) -> int:
        """Return how many tasks it would pay to ask a worker for."""
        spare = hand.sent - hand.seen - 1
        if spare <= 0 or hand.is_recalled or hand.is_gone:
            return 0
        pace = hand.pace
        job = hand.spans[0][1].job
        each = max(pace.task_of(job.context, job.task_ns), time.monotonic_ns() - hand.since)
        if each and each * (spare + 1) < pace.last_call() + pace.round_trip_ns:
            return 0
        return spare
