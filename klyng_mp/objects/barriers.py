"""The state of a barrier.

Layer: objects; sans-IO.

Invariants: a round ends for all who came to it in the same way; who comes while an action runs belongs to the next
round; a party that gives up, or whose process ends, breaks the round that it had come to.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.objects.orders import Outcome, What

if TYPE_CHECKING:
    from klyng_mp.objects.orders import Asker, Order, Process
    from klyng_mp.objects.semaphores import Answer

__all__ = ["BarrierState"]


class BarrierState:
    """Who has come.

    Args:
        answer: takes the answers: YES with the number of the party, ACT to the last one where there is an action to be
            done before the others go on, BROKEN.
        parties: how many are to come.
        acts: whether there is an action.
    """

    def __init__(self, answer: Answer, parties: int, *, acts: bool) -> None:
        self._answer = answer
        self._parties = parties
        self._acts = acts
        self._come: list[Asker] = []
        self._acting: Asker | None = None  # who does the action of a round that is full
        self._next: list[Asker] = []  # who came meanwhile
        self._broken = False

    def ask(self, order: Order) -> None:
        """Do what a client asks for."""
        asker = order.asker
        if order.what == What.WAIT:
            self._arrive(asker)
        elif order.what == What.LOOK:
            self._answer(asker, Outcome.YES, 0 if self._acting else len(self._come), int(self._broken))
        elif order.what == What.DONE:
            if self._acting is not None and self._acting.owner == asker.owner:
                self._acting = None
                if order.first:
                    self._end_round()
                else:
                    self._break()
            self._answer(asker, Outcome.YES)
        elif order.what in {What.RESET, What.ABORT}:
            self._break()
            self._broken = order.what == What.ABORT
            self._answer(asker, Outcome.YES)
        else:
            self._answer(asker, Outcome.UNKNOWN)

    def cancel(self, asker: Asker) -> None:
        """Let one give up, which breaks its round."""
        if asker in self._come or asker in self._next:
            self._break()

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended."""
        del orderly
        if any(asker.process == process for asker in (*self._come, *self._next)):
            self._break()

    def _arrive(self, asker: Asker) -> None:
        if self._broken:
            self._answer(asker, Outcome.BROKEN)
        elif self._acting is not None:
            self._next.append(asker)
        else:
            self._come.append(asker)
            if len(self._come) >= self._parties:
                self._fill()

    def _fill(self) -> None:
        if self._acts:
            self._acting = self._come.pop()
            self._answer(self._acting, Outcome.ACT, self._parties - 1)
        else:
            self._end_round()

    def _end_round(self) -> None:
        come, self._come = self._come, []
        following, self._next = self._next, []
        for index, asker in enumerate(come):
            self._answer(asker, Outcome.YES, index)
        for asker in following:
            self._arrive(asker)

    def _break(self) -> None:
        self._broken = True
        gone, self._come, self._next, self._acting = [*self._come, *self._next], [], [], None
        for asker in gone:
            self._answer(asker, Outcome.BROKEN)
