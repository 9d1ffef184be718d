"""The state of a pipe: what is on its way to each end, who waits there, and which processes have which end.

Layer: objects; sans-IO.

An end is open as long as a process has it, or is going to: it is *on its way* from when it is pickled until it is
rebuilt. Where it is known who is to get it, it is promised to the next occupant of a place, whose end ends that, too.

Invariants: nobody waits for a message while there is one; what is sent is received in that order, once; who waits for
an end that nobody has any more is told.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.objects.orders import Outcome, What

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.objects.orders import Asker, Content, Order, Process
    from klyng_mp.objects.semaphores import Answer

__all__ = ["MOST_WAITING", "PipeState"]

MOST_WAITING = 1 << 20  # bytes on their way to an end before who sends more has to wait


def _size_of(content: Content) -> int:
    _, head, buffers = content
    return len(head) + sum(len(buffer) for buffer in buffers)


def _keep_promise(promised: list[Process], process: Process) -> bool:
    """Remove one promise that is kept with this process, or never will be, as it has ended."""
    for place, incarnation in promised:
        if place == process[0] and incarnation < process[1]:
            promised.remove((place, incarnation))
            return True
    return False


def _take_one(counts: Counter[Process], process: Process) -> None:
    counts[process] -= 1
    if counts[process] <= 0:
        del counts[process]


class _Sent(NamedTuple):
    asker: Asker
    content: Content


class _End:
    """One end.

    Attributes:
        holders: which processes have it, and how often.
        promised: to the next occupants of which places it is on its way, and which incarnations those had before.
        passing: who has sent it to nobody knows whom, and how often.
        messages: what is to be received here.
        waiting: the bytes of that.
        parked: what is to be sent here, once there is room.
        receiving, looking: who waits for a message.
    """

    def __init__(self, holder: Process) -> None:
        self.holders: Counter[Process] = Counter([holder])
        self.promised: list[Process] = []
        self.passing: Counter[Process] = Counter()
        self.messages: deque[Content] = deque()
        self.waiting = 0
        self.parked: deque[_Sent] = deque()
        self.receiving: deque[Asker] = deque()
        self.looking: list[Asker] = []

    @property
    def is_open(self) -> bool:
        return bool(self.holders or self.promised or self.passing)


class PipeState:
    """A pipe of two ends, 0 and 1, which are the ``first`` of each order.

    Args:
        answer: takes the answers: YES with the message to who receives; ENDED to who receives, and BROKEN to who
            sends, when nobody has the other end.
        holders: the processes that have its ends at first.
        over: called when nobody has any end.
    """

    def __init__(self, answer: Answer, holders: tuple[Process, Process], over: Callable[[], None]) -> None:
        self._answer = answer
        self._over = over
        self._ends = _End(holders[0]), _End(holders[1])

    # -- what is asked for

    def ask(self, order: Order) -> None:
        """Do what a client asks for."""
        asker, number = order.asker, order.first & 1
        end = self._ends[number]
        if order.what == What.SEND:
            self._send(self._ends[1 - number], asker, order.content)
        elif order.what == What.RECV:
            end.receiving.append(asker)
            self._serve(number)
        elif order.what == What.PEEK:
            end.looking.append(asker)
            self._serve(number)
            if not order.second and self._forget(end, asker):
                self._answer(asker, Outcome.NO)
        elif order.what == What.GIVE_BACK:
            end.messages.appendleft(order.content)
            end.waiting += _size_of(order.content)
            self._serve(number)
        elif order.what == What.HOLD:
            self._hold(end, asker.process)
        elif order.what == What.PASS:
            end.passing[asker.process] += 1
        elif order.what == What.DROP:
            _take_one(end.holders, asker.process)
            self._close_if_left(number)
        else:
            self._answer(asker, Outcome.UNKNOWN)

    def cancel(self, asker: Asker) -> None:
        """Take back what was asked for, if it waits."""
        for end in self._ends:
            if self._forget(end, asker):
                self._answer(asker, Outcome.CANCELLED)
                return
            for sent in end.parked:
                if sent.asker == asker:
                    end.parked.remove(sent)
                    self._answer(asker, Outcome.CANCELLED)
                    return

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended: what it has sent stays, its ends are closed."""
        del orderly
        for number, end in enumerate(self._ends):
            end.receiving = deque(asker for asker in end.receiving if asker.process != process)
            end.looking = [asker for asker in end.looking if asker.process != process]
            end.parked = deque(sent for sent in end.parked if sent.asker.process != process)
            had = end.holders.pop(process, 0) + end.passing.pop(process, 0)
            while _keep_promise(end.promised, process):
                had += 1
            if had:
                self._close_if_left(number)

    # -- what its driver does

    def promise(self, number: int, former: Process, *, kept: bool) -> None:
        """Take note that an end is on its way to the next occupant of a place after this one; or not, after all."""
        if kept:
            self._ends[number].promised.append(former)
        elif former in self._ends[number].promised:
            self._ends[number].promised.remove(former)
            self._close_if_left(number)

    def forget_passing(self) -> None:
        """Take note that nobody is left to come to an end that was on its way."""
        for number, end in enumerate(self._ends):
            if end.passing:
                end.passing.clear()
                self._close_if_left(number)

    # -- inside

    def _hold(self, end: _End, process: Process) -> None:
        if not _keep_promise(end.promised, process) and end.passing:
            _take_one(end.passing, next(iter(end.passing)))
        end.holders[process] += 1

    def _send(self, target: _End, asker: Asker, content: Content) -> None:
        if not target.is_open:
            self._answer(asker, Outcome.BROKEN)
        elif target.waiting >= MOST_WAITING:
            target.parked.append(_Sent(asker, content))
        else:
            self._take(target, asker, content)

    def _take(self, target: _End, asker: Asker, content: Content) -> None:
        target.messages.append(content)
        target.waiting += _size_of(content)
        self._answer(asker, Outcome.YES)
        self._serve(self._ends.index(target))

    def _serve(self, number: int) -> None:
        end = self._ends[number]
        while end.receiving and end.messages:
            content = end.messages.popleft()
            end.waiting -= _size_of(content)
            self._answer(end.receiving.popleft(), Outcome.YES, content=content)
            while end.parked and end.waiting < MOST_WAITING:
                self._take(end, *end.parked.popleft())
        over = not self._ends[1 - number].is_open and not end.messages
        if over:
            receiving, end.receiving = end.receiving, deque()
            for asker in receiving:
                self._answer(asker, Outcome.ENDED)
        if over or end.messages:
            looking, end.looking = end.looking, []
            for asker in looking:
                self._answer(asker, Outcome.YES)

    def _close_if_left(self, number: int) -> None:
        end = self._ends[number]
        if end.is_open:
            return
        end.messages.clear()
        end.waiting = 0
        for asker in (*end.receiving, *end.looking):  # of threads that had it, which another one has closed
            self._answer(asker, Outcome.ENDED)
        end.receiving.clear()
        end.looking.clear()
        parked, end.parked = end.parked, deque()
        for sent in parked:
            self._answer(sent.asker, Outcome.BROKEN)
        self._serve(1 - number)
        if not self._ends[1 - number].is_open:
            self._over()

    @staticmethod
    def _forget(end: _End, asker: Asker) -> bool:
        for waiting in (end.receiving, end.looking):
            if asker in waiting:
                waiting.remove(asker)
                return True
        return False
