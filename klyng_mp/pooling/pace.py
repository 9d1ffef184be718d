"""How fast one worker is, and how far away: so many tasks it needs ahead.

Layer: pooling. No clocks: whoever knows the time says it, in nanoseconds.
"""

from __future__ import annotations

__all__ = ["Pace"]

_MOST_AHEAD = 8192
_FIRST_TASKS = 8  # ahead of a worker while nothing is known of how long they take
_MARGIN_NS = 8_000_000  # what the parent, or the network, may be late
_SHORTEST_HOLD_US, _LONGEST_HOLD_US = 1000, 10_000  # that an answer waits for others: each costs a message
_UNFELT = 20  # times shorter than a task: then nothing needs to wait beside the one that is done


class Pace:
    """What was measured of one worker.

    Attributes:
        round_trip_ns: from a task on its way to one that has nothing, until its answer, without the task; 0: unknown.
        task_ns: how long a task of the job `context` takes; 0: unknown.
    """

    __slots__ = ("_asked", "_asked_ns", "_hold", "context", "round_trip_ns", "task_ns")

    def __init__(self) -> None:
        self.round_trip_ns = 0
        self.task_ns = 0.0
        self.context = 0
        self._asked = -1
        self._asked_ns = 0
        self._hold = _SHORTEST_HOLD_US

    def ask(self, number: int, now: int) -> None:
        """Take note that a task leaves now for a worker that has nothing to do."""
        self._asked, self._asked_ns = number, now

    def note(self, first: int, count: int, busy_ns: int, context: int, now: int) -> None:
        """Take note of answers that came in one message.

        Args:
            first: the number of the first one.
            count: how many.
            busy_ns: what the worker has needed for them.
            context: the job of the last one.
            now: when they came.
        """
        if self._asked >= 0 and first <= self._asked < first + count:
            sample = max(0, now - self._asked_ns - busy_ns)
            self.round_trip_ns = (3 * self.round_trip_ns + sample) // 4 if self.round_trip_ns else sample
            self._asked = -1
        each = max(1.0, busy_ns / count)
        self.task_ns = (self.task_ns + each) / 2 if self.context == context else each
        self.context = context

    def task_of(self, context: int, others_ns: float) -> float:
        """Return how long a task of a job takes here; else what others need for one; 0: nobody knows."""
        return self.task_ns if self.context == context else others_ns

    def target(self, context: int, others_ns: float) -> int:
        """Return how many tasks the worker should have, with those that are on their way."""
        each = self.task_of(context, others_ns)
        if not each:
            return _FIRST_TASKS
        cover = self.round_trip_ns * 3 // 2 + _MARGIN_NS
        if each > cover * _UNFELT:
            return 1
        return min(_MOST_AHEAD, 2 + int(cover / each))

    def news_of_hold(self) -> int:
        """Return how many microseconds an answer may wait for others, if that is news; else 0."""
        hold = min(_LONGEST_HOLD_US, max(_SHORTEST_HOLD_US, self.round_trip_ns // 5000))
        if self._hold * 3 // 4 <= hold <= self._hold * 4 // 3:
            return 0
        self._hold = hold
        return hold

    def last_call(self) -> int:
        """Return within how many nanoseconds what it has ahead will be done before it could be told otherwise."""
        return self.round_trip_ns + _MARGIN_NS // 4
