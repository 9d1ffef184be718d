"""The state of a queue where it lives: what is in it, who waits for it, and what was put by whom.

Layer: objects; sans-IO.

Each putter counts what it puts, and the store takes a putter's items in that order, whatever way they have come, and
each once. An *epoch* begins when a store is made after another one was lost; what was put in an earlier one is put
again by its putters, so what still comes of it is dropped.

Invariants: nobody waits for an item while there is one; nobody waits for room while there is some; items of one putter
are given in the order in which they were put.

Threads: not safe by itself; whoever keeps it has one lock around every call.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.objects.orders import NOTHING, Asker, Order, Outcome, Verb, What

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.objects.orders import Content, Process
    from klyng_mp.objects.semaphores import Answer

__all__ = ["AT_ONCE", "FIRST", "StoreState", "split_stamp"]

AT_ONCE, FIRST = 1, 2  # bits of a put: it does not wait for room; it goes before all others and needs no room
_VOID = 4  # it was withdrawn, and only its number is used up
_ITEM, _PARKED, _COUNT, _ANSWERED = range(4)  # what an order about a store that moves is
_EPOCH_SHIFT = 32


class _Item(NamedTuple):
    asker: Asker  # who put it
    sequence: int
    content: Content


def split_stamp(stamp: int) -> tuple[int, int]:
    """Return the incarnation and the epoch of the putter of what was got."""
    return stamp & (1 << _EPOCH_SHIFT) - 1, stamp >> _EPOCH_SHIFT


class StoreState:
    """The items of a queue.

    Args:
        answer: takes the answers. What was got comes with its putter's place, its incarnation and epoch in one number,
            and its own number among that one's.
        maxsize: how many there may be; 0: any number.
        epoch: of the queue.

    Attributes:
        epoch: the same.
    """

    def __init__(self, answer: Answer, maxsize: int, epoch: int = 0) -> None:
        self._answer = answer
        self._maxsize = maxsize
        self.epoch = epoch
        self._items: deque[_Item] = deque()
        self._parked: deque[_Item] = deque()  # for which there is no room yet
        self._getting: deque[Order] = deque()
        self._peeking: list[Asker] = []
        self._joining: list[Asker] = []
        self._expected: dict[Process, int] = {}
        self._early: dict[Process, dict[int, Order]] = {}  # what came before what was put before it
        self._withdrawn: dict[tuple[int, int, int], int] = {}  # what each thread has withdrawn that may still come
        self._answered: dict[tuple[int, int, int], int] = {}  # what each thread was answered last, and may ask again
        self._unfinished = 0

    # -- what is asked for

    def put(self, order: Order) -> None:
        """Take what was put, once its turn has come."""
        putter, sequence = order.asker.process, order.second
        if order.first != self.epoch:
            return
        expected = self._expected.get(putter, 0)
        if sequence == expected and putter not in self._early:
            self._expected[putter] = expected + 1
            if order.third != _VOID:
                self._accept(order)
            return
        if sequence < expected:  # it has come before, by another way
            if order.asker.request and not any(item.asker == order.asker for item in self._parked):
                self._answer(order.asker, Outcome.YES)
            return
        early = self._early.setdefault(putter, {})
        early[sequence] = order
        # What is answered may make its process put more, within this call.
        while (following := early.pop(expected := self._expected.get(putter, 0), None)) is not None:
            self._expected[putter] = expected + 1
            if following.third != _VOID:
                self._accept(following)
        if not early:
            self._early.pop(putter, None)

    def ask(self, order: Order) -> None:
        """Do what a client asks for, unless that was done before."""
        if not self.has_answered(order.asker):
            self._do(order)

    def has_answered(self, asker: Asker) -> bool:
        """Whether it was answered what it asks for: it asks again while that is on its way from a former home."""
        return bool(asker.request) and self._answered.get(asker.owner) == asker.request

    def cancel(self, asker: Asker) -> None:
        """Take back what was asked for, or put, if it waits; or when it comes, as it may by another way."""
        if self._withdraw(asker):
            self._answer(asker, Outcome.CANCELLED)
        else:
            self._withdrawn[asker.owner] = asker.request

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended: what it has put stays, what it waited for is forgotten."""
        del orderly
        self._getting = deque(order for order in self._getting if order.asker.process != process)
        self._peeking = [asker for asker in self._peeking if asker.process != process]
        self._joining = [asker for asker in self._joining if asker.process != process]
        self._parked = deque(item for item in self._parked if item.asker.process != process)
        self._withdrawn = {one: request for one, request in self._withdrawn.items() if one[:2] != process}
        self._answered = {one: request for one, request in self._answered.items() if one[:2] != process}

    # -- moving

    def dump(self) -> Iterator[Order]:
        """Yield all that is here as orders that make another store the same; this one is over."""
        nobody = Asker(0, 0, 0, 0)
        for (place, incarnation), count in self._expected.items():
            yield Order(Verb.ITEM, _COUNT, nobody._replace(place=place, incarnation=incarnation), second=count)
        for what, items in ((_ITEM, self._items), (_PARKED, self._parked)):
            for item in items:
                yield Order(Verb.ITEM, what, item.asker, self.epoch, item.sequence, 0, item.content)
        for early in self._early.values():
            yield from early.values()
        for owner, request in self._answered.items():
            yield Order(Verb.ITEM, _ANSWERED, Asker(*owner, request))
        for owner, request in self._withdrawn.items():
            yield Order(Verb.CANCEL, 0, Asker(*owner, request))
        yield from self._getting
        for asker in self._peeking:
            yield Order(Verb.ASK, What.PEEK, asker, 1)

    def load(self, order: Order) -> None:
        """Take in one thing that another store was made of."""
        if order.verb == Verb.PUT:
            self.put(order)
        elif order.verb == Verb.ASK:
            self.ask(order)
        elif order.verb == Verb.CANCEL:
            self.cancel(order.asker)
        elif order.what == _COUNT:
            self._expected[order.asker.process] = order.second
        elif order.what == _ANSWERED:
            self._answered[order.asker.owner] = order.asker.request
        else:
            line = self._items if order.what == _ITEM else self._parked
            line.append(_Item(order.asker, order.second, order.content))

    # -- inside

    def _do(self, order: Order) -> None:
        asker = order.asker
        if self._was_withdrawn(asker):
            self._answer(asker, Outcome.CANCELLED)
        elif order.what == What.GET:
            if self._items or not order.first:
                self._give(asker)
            elif not any(one.asker == asker for one in self._getting):
                self._getting.append(order)
        elif order.what == What.PEEK:
            if self._items or not order.first:
                self._reply(asker, Outcome.YES if self._items else Outcome.NO)
            else:
                self._peeking.append(asker)
        elif order.what == What.SIZE:
            self._reply(asker, Outcome.YES, len(self._items), self._maxsize)
        elif order.what == What.TASK_DONE:
            self._finish(asker)
        elif order.what == What.JOIN and self._unfinished:
            self._joining.append(asker)
        elif order.what == What.JOIN:
            self._reply(asker, Outcome.YES)
        else:
            self._reply(asker, Outcome.UNKNOWN)

    def _accept(self, order: Order) -> None:
        item = _Item(order.asker, order.second, order.content)
        if self._was_withdrawn(order.asker):
            self._answer(order.asker, Outcome.CANCELLED)
            return
        if order.third & FIRST:
            self._items.appendleft(item)
        elif self._maxsize and len(self._items) >= self._maxsize:
            if order.third & AT_ONCE:
                self._answer(order.asker, Outcome.FULL)
            else:
                self._parked.append(item)
            return
        else:
            self._items.append(item)
            self._unfinished += 1
        self._answer(order.asker, Outcome.YES)
        self._serve()

    def _was_withdrawn(self, asker: Asker) -> bool:
        return bool(asker.request) and self._withdrawn.get(asker.owner) == asker.request

    def _reply(  # noqa: PLR0917 - as `Answer` has it
        self, asker: Asker, outcome: int, first: int = 0, second: int = 0, third: int = 0, content: Content = NOTHING
    ) -> None:
        """Answer what was asked for, and take note of that."""
        if asker.request:
            self._answered[asker.owner] = asker.request
        self._answer(asker, outcome, first, second, third, content)

    def _serve(self) -> None:
        while self._items and self._getting:
            self._give(self._getting.popleft().asker)
        if self._items:
            peeking, self._peeking = self._peeking, []
            for asker in peeking:
                self._reply(asker, Outcome.YES)

    def _give(self, asker: Asker) -> None:
        if not self._items:
            self._reply(asker, Outcome.NO)
            return
        item = self._items.popleft()
        stamp = item.asker.incarnation | self.epoch << _EPOCH_SHIFT
        self._reply(asker, Outcome.GOT, item.asker.place, stamp, item.sequence, item.content)
        if self._parked:
            self._items.append(parked := self._parked.popleft())
            self._unfinished += 1
            self._answer(parked.asker, Outcome.YES)

    def _withdraw(self, asker: Asker) -> bool:
        for order in self._getting:
            if order.asker == asker:
                self._getting.remove(order)
                return True
        for item in self._parked:
            if item.asker == asker:
                self._parked.remove(item)
                return True
        for waiting in (self._peeking, self._joining):
            if asker in waiting:
                waiting.remove(asker)
                return True
        for early in self._early.values():
            for sequence, order in early.items():
                if order.asker == asker:
                    early[sequence] = order._replace(third=_VOID)
                    return True
        return False

    def _finish(self, asker: Asker) -> None:
        if not self._unfinished:
            self._reply(asker, Outcome.TOO_OFTEN)
            return
        self._unfinished -= 1
        self._reply(asker, Outcome.YES)
        if not self._unfinished:
            joining, self._joining = self._joining, []
            for one in joining:
                self._reply(one, Outcome.YES)
