"""Who runs: the ranks of one process take turns, and a rank that waits switches to one that can run.

Layer: green. Knows numbers and greenlets, neither messages nor runs.

The *hub* is the greenlet of whoever drives the ranks. Ranks switch to each other; the hub has a turn when none of them
can run, and now and then, for what is due at a time or comes from outside.

Threads: all of it belongs to one.
"""

from __future__ import annotations

import random
import time
from collections import deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Protocol

from greenlet import getcurrent, greenlet

from klyng_mp.communicator.room import Gate
from klyng_mp.errors import ForkedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.deadline import Deadline

__all__ = ["Alarm", "Around", "Outside", "Scheduler"]

_TURNS = 256  # switches between two turns of the hub
_SOON = 0.05  # seconds; who waits longer for what is outside says what for
_FEW = 64  # alarms that were called off, of which the heap is not freed


class Outside(Protocol):
    """What comes to the ranks of this process from elsewhere."""

    def look(self) -> bool:
        """Take what has come, without waiting; return whether there was anything."""

    def wait(self, seconds: float | None) -> bool:
        """Wait until something comes, and take it; return whether anything came."""


class Around(Protocol):
    """What is to be done before and after the turn of each rank."""

    def before(self, number: int) -> None:
        """A rank is going to have its turn."""

    def after(self, number: int) -> None:
        """It has had it."""


class Alarm:
    """A point in time at which a rank is woken.

    Attributes:
        at: by the monotonic clock.
        number: the rank's; -1 once it was called off.
    """

    __slots__ = ("at", "number", "serial")

    def __init__(self, at: float, serial: int, number: int) -> None:
        self.at = at
        self.serial = serial
        self.number = number

    def __lt__(self, other: Alarm) -> bool:
        return (self.at, self.serial) < (other.at, other.serial)


class _Shuffled:
    """Ranks that can run, of which chance chooses the next: what a schedule is."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - it is to be replayed
        self._numbers: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def append(self, number: int) -> None:
        self._numbers.append(number)

    def popleft(self) -> int:
        numbers = self._numbers
        index = self._chance.randrange(len(numbers))
        numbers[index], numbers[-1] = numbers[-1], numbers[index]
        return numbers.pop()

    def clear(self) -> None:
        self._numbers.clear()


class Scheduler:
    """The ranks of one process, by their numbers, and whose turn it is.

    Args:
        schedule: a seed, by which the next of those that can run is chosen; None: they take turns in order.

    Attributes:
        gate: the lock of all their endpoints: one thread has it, so it costs nothing.
        asleep: by number, 1 where the rank sleeps until it is woken.
        wake_soon: call it with the number of a rank that was asleep and is not any more.
        is_shuffled: chance chooses who is next.
        outside: what comes from other processes, or None.
        around: is told of each turn, or None.
        forked: this process is a child that one of the ranks has forked.
    """

    def __init__(self, schedule: int | None = None) -> None:
        self.gate = Gate()
        self.asleep = bytearray()
        self._ready: Any = deque() if schedule is None else _Shuffled(schedule)
        self.wake_soon = self._ready.append
        self.is_shuffled = schedule is not None
        self.forked = False
        self.outside: Outside | None = None
        self.around: Around | None = None
        # Ranks that have not begun: only the hub starts them, or each stack would begin where another one's ends.
        self._fresh: deque[int] = deque()
        self._greenlets: list[greenlet] = []
        self._hub: greenlet = getcurrent()
        self._turns = _TURNS
        self._alarms: list[Alarm] = []
        self._serial = self._called_off = 0
        self._vain = False
        self._is_napping: Callable[[int], bool] = lambda _number: False

    # -- the ranks

    def populate(self, greenlets: list[greenlet], numbers: list[int]) -> None:
        """Let greenlets begin, in this order.

        Args:
            greenlets: by number; those of other processes are never switched to.
            numbers: of those that are here.
        """
        self._greenlets = greenlets
        self.asleep[:] = bytes(len(greenlets))
        self._ready.clear()
        self._alarms.clear()
        self._called_off = 0
        self._vain = False
        self._fresh.clear()
        for number in numbers:
            (self.wake_soon if self.is_shuffled else self._fresh.append)(number)

    def clear(self) -> None:
        """Forget the ranks, all of which have ended."""
        self.populate([], [])

    # -- for ranks

    def sleep(self, number: int) -> None:
        """Let others run until this rank is woken."""
        self.asleep[number] = 1
        self._switch()

    def nap(self, number: int) -> bool:
        """As `sleep`; return False where nothing was going to wake it, as others wait too."""
        self.asleep[number] = 1
        self._switch()
        return not self._vain

    def wake(self, number: int) -> None:
        """Let a rank run soon, if it sleeps."""
        if self.asleep[number]:
            self.asleep[number] = 0
            self.wake_soon(number)

    def give_way(self, number: int) -> None:
        """Let the others that can run have their turn first."""
        self.wake_soon(number)
        self._switch()

    def mix(self, number: int) -> None:
        """Let chance decide who goes on, if it does and this rank is running: others may do things in its name."""
        if self.is_shuffled and getcurrent() is self._greenlets[number]:
            self.give_way(number)

    def set_alarm(self, number: int, at: float) -> Alarm:
        """Have a rank woken at a time, if it sleeps then."""
        self._serial += 1
        alarm = Alarm(at, self._serial, number)
        heappush(self._alarms, alarm)
        return alarm

    def call_off(self, alarm: Alarm) -> None:
        """Undo `set_alarm`."""
        if alarm.number < 0:
            return
        alarm.number = -1
        self._called_off += 1
        if self._called_off > _FEW and 2 * self._called_off > len(self._alarms):
            self._alarms = [alarm for alarm in self._alarms if alarm.number >= 0]
            heapify(self._alarms)
            self._called_off = 0

    def _switch(self) -> None:
        self._turns -= 1
        if self._turns > 0 and self._ready and not self._fresh:
            self._greenlets[self._ready.popleft()].switch()
        else:
            self._hub.switch()

    # -- for the hub

    def drive(self, is_over: Callable[[], bool], deadline: Deadline, on_stuck: Callable[[], None]) -> bool:
        """Let ranks run until ``is_over()``, or return False at the deadline.

        Args:
            is_over: looked at whenever the hub has its turn.
            deadline: when to return all the same; ranks go on when they are driven again.
            on_stuck: called when no rank can run, none will by itself, and nothing can come from outside; it changes
                that, or what ``is_over`` looks at.
        """
        self._hub = getcurrent()
        while not is_over():
            if self.forked:
                raise ForkedError(
                    "a child that was forked from a green rank came to the end of the rank's function: end it by "
                    "os._exit(), or start it by klyng_mp.Process"
                )
            if deadline.over():
                return False
            self._ring_alarms()
            if self.outside is not None:
                self.outside.look()
            if self._let_one_run():
                continue
            self._vain = False
            if self._alarms:
                self._pause(deadline)
            elif self.outside is not None:
                if not self.outside.wait(_least(_SOON, deadline.left())) and not self._wake_nappers():
                    self.outside.wait(deadline.left())
            elif not self._wake_nappers():
                on_stuck()
        return True

    def drain(self, until: float) -> None:
        """Let ranks run for as long as any can, but not beyond a time, and without waiting for anything."""
        self._hub = getcurrent()
        while time.monotonic() < until and self._let_one_run():
            pass

    def mind_nappers(self, is_napping: Callable[[int], bool]) -> None:
        """Take note of how to tell who only naps: they have not said yet what they wait for."""
        self._is_napping = is_napping

    def _let_one_run(self) -> bool:
        """Switch to the next rank, and by way of it to others; return whether there was one."""
        queue = self._fresh or self._ready
        if not queue:
            return False
        self._turns = 0 if self.is_shuffled or self.around is not None else _TURNS
        number = queue.popleft()
        if self.around is not None:
            self.around.before(number)
        self._greenlets[number].switch()
        if self.around is not None:
            self.around.after(number)
        return True

    def _ring_alarms(self) -> None:
        alarms = self._alarms
        while alarms and (alarms[0].number < 0 or alarms[0].at <= time.monotonic()):
            alarm = heappop(alarms)
            if alarm.number < 0:
                self._called_off -= 1
            else:
                self.wake(alarm.number)
                alarm.number = -1

    def _pause(self, deadline: Deadline) -> None:
        """Wait for the next alarm, or until something comes from outside, or the deadline."""
        left = _least(max(0.0, self._alarms[0].at - time.monotonic()), deadline.left())
        if self.outside is not None:
            self.outside.wait(left)
        else:
            time.sleep(left)

    def _wake_nappers(self) -> bool:
        """Have those that nap say what they wait for; return whether there are any."""
        nappers = [number for number, asleep in enumerate(self.asleep) if asleep and self._is_napping(number)]
        self._vain = bool(nappers)
        for number in nappers:
            self.wake(number)
        return self._vain


def _least(seconds: float, left: float | None) -> float:
    return seconds if left is None else min(seconds, left)
