"""A process's part in queues: what it has put and nobody has taken, which queues live here, and where others live.

Layer: objects; below the desk, by which it speaks.

A queue begins in the driver, which is the directory, and moves once: to the process that reads from it first, with
what that asks for; so who has got an item of it, and may end, knows that it is there. What comes to the driver
afterwards is passed on, and its sender told of the new home. What comes to who is not the home any more goes back by
way of the driver. When the home ends as it should, it hands what is left back to the driver; when it is killed, the
driver makes an empty one with a new *epoch*, and putters put again what they keep.

A putter keeps each item until its reader has said that it has it, which a reader does as the item arrives. Before items
are put again, all members that live have said that they heard of the loss, and of those that do not the end has been
heard: so all that they have ever said of items that they have has been heard before. So an item is given once: none
twice, and what a killed reader had is gone with it.

Threads: called with the endpoint's lock held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.objects.orders import Asker, Order, Outcome, Verb, What
from klyng_mp.objects.settling import HANDED_BACK, NOTICE, WELCOME, Kept, KnownQueue, Settling
from klyng_mp.objects.stores import FIRST, StoreState, split_stamp

if TYPE_CHECKING:
    from klyng_mp.objects.orders import Content, Process

__all__ = ["Queuing"]


class Queuing(Settling):
    """One process's part in queues; see the module.

    Args:
        desk: of the same process.
    """

    # -- for the desk

    def make(self, target: int, maxsize: int, *, stays: bool) -> None:
        """Let a new queue begin here."""
        queue = self._queues[target] = KnownQueue(self._desk.process)
        queue.maxsize, queue.stays = maxsize, stays
        queue.store = StoreState(self._desk.answering(target), maxsize)

    def drop(self, target: int) -> None:
        """Forget a queue."""
        self._queues.pop(target, None)

    def awaits(self, source: int, target: int) -> bool:
        """Whether what comes from there about a queue is a part of what it was elsewhere."""
        queue = self._queues.get(target)
        return queue is not None and queue.coming is not None and queue.coming[1] == source

    def forget_members(self) -> None:
        """Forget who has used the queues: all others are gone, and what they have said was heard."""
        for queue in self._queues.values():
            queue.members.clear()
            queue.former.clear()

    def home_of(self, target: int) -> Process | None:
        """Return where a queue lives; None if it is no queue that is known here."""
        queue = self._queues.get(target)
        return None if queue is None else queue.home

    def use(self, target: int) -> None:
        """Take note that a queue is used here."""
        if target not in self._queues and not self._keeps:
            self._queues[target] = KnownQueue(self._desk.directory)

    def put(self, target: int, asker: Asker, flags: int, content: Content) -> Process:
        """Put an item whose content is its own; return where it was sent."""
        self.use(target)
        queue = self._queues.get(target)
        if queue is None:
            self._desk.answering(target)(asker, Outcome.UNKNOWN)
            return self._desk.directory
        sequence, queue.next = queue.next, queue.next + 1
        queue.kept[sequence] = kept = Kept(asker, flags, content)
        if queue.settling is None:
            self._send(target, queue, sequence, kept)
        return queue.home

    def forget(self, target: int, asker: Asker) -> None:
        """Keep no longer what was put by a request that was withdrawn or refused."""
        queue = self._queues.get(target)
        if queue is not None:
            for sequence in [sequence for sequence, kept in queue.kept.items() if kept.asker == asker]:
                del queue.kept[sequence]

    def retire(self) -> None:
        """Hand the queues that live here back, as this process is going to end, and those that still come."""
        self._retires = not self._keeps
        for target, queue in self._queues.items():
            if queue.store is not None and self._retires:
                queue.leaving = True
                if queue.coming is None:  # else when it has come whole
                    self._move(target, queue, self._desk.directory)

    @property
    def has_retired(self) -> bool:
        """Whether the directory has what was handed back, so that nothing that it has sent here is lost."""
        return not any(queue.leaving for queue in self._queues.values())

    def is_stale(self, target: int, answer: Order) -> bool:
        """Whether an item comes from a home that was lost: its putter puts it again."""
        queue = self._queues.get(target)
        return queue is not None and _is_item(answer) and split_stamp(answer.second)[1] < queue.epoch

    def take_note(self, target: int, answer: Order) -> None:
        """Tell the putter of an item that has been got that it is taken."""
        if target in self._queues and _is_item(answer):
            incarnation, epoch = split_stamp(answer.second)
            order = Order(Verb.TAKEN, 0, Asker(answer.first, incarnation, 0, 0), epoch, answer.third)
            self._desk.say((answer.first, incarnation), target, order)

    def put_back(self, target: int, answer: Order) -> None:
        """Put an item that nobody here wants before all others."""
        if target in self._queues and _is_item(answer):
            self.take_note(target, answer)
            self.put(target, self._desk.new_asker(), FIRST, answer.content)

    # -- what is heard

    def obey(self, source: int, target: int, order: Order) -> bool:
        """Do what an order asks for, if it is about a queue."""
        if not self._keeps:
            self.use(target)
        queue = self._queues.get(target)
        if queue is None:
            return order.verb not in {Verb.ASK, Verb.CANCEL}
        if order.verb in {Verb.TAKEN, Verb.HOME, Verb.SETTLED}:
            self._take_note_of(target, queue, order)
        elif order.verb == Verb.ADOPT:
            self._adopt(source, target, queue, order)
        elif queue.coming is not None and queue.store is not None:
            self._take_in(source, target, queue, order)
        elif queue.store is not None:
            self._serve(target, queue, order)
        elif order.verb in {Verb.ASK, Verb.CANCEL, Verb.PUT}:
            self._pass_on(target, queue, order)
        return True

    def _take_note_of(self, target: int, queue: KnownQueue, order: Order) -> None:
        if order.verb == Verb.TAKEN:
            if order.asker.process != self._desk.process:  # its reader has ended, and had no connection there
                self._desk.say(order.asker.process, target, order)
            elif order.first == queue.put_epoch:
                queue.kept.pop(order.second, None)
        elif order.verb == Verb.HOME:
            self._hear_home(target, queue, order)
        else:
            self._hear_settled(target, queue, order)

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended."""
        for target, queue in list(self._queues.items()):
            queue.told.pop(process, None)
            queue.held = [one for one in queue.held if one[1].verb == Verb.PUT or one[1].asker.process != process]
            broken_off = queue.coming is not None and queue.coming[1] == process[0]
            if queue.settling is not None:
                queue.settling.discard(process)
                self._put_again_if_settled(target, queue)
            if queue.store is not None and not broken_off:
                queue.store.part(process, orderly=orderly)
            if self._keeps and (queue.home == process or broken_off):
                self._rebuild(target, queue)
            elif process in queue.former:
                queue.former.discard(process)
                # One that was killed as it left may have had what was sent on to it, from whomever.
                self._tell_members(target, queue, HANDED_BACK, lost=process if orderly else None)

    # -- where it lives

    def _serve(self, target: int, queue: KnownQueue, order: Order) -> None:
        store = queue.store
        assert store is not None  # noqa: S101 - the caller has looked
        asker = order.asker
        if self._keeps:
            self._admit(target, queue, asker.process)
        if order.verb == Verb.PUT:
            store.put(order)
        elif order.verb == Verb.CANCEL:
            store.cancel(asker)
        elif order.verb == Verb.ASK:
            if order.what == What.GET and self._keeps and not queue.stays and not store.has_answered(asker):
                if asker.process != self._desk.process:
                    # It answers itself: who has got something may end, and is to know then that the queue is there.
                    self._move(target, queue, asker.process, order)
                    return
                queue.stays = True
            store.ask(order)
        if asker.process == self._desk.process:
            self._desk.endpoint.room.notify()

    def _pass_on(self, target: int, queue: KnownQueue, order: Order) -> None:
        """Send on what has come to where the queue is not, or is no more."""
        home = queue.home if self._keeps else self._desk.directory
        self._desk.say(home, target, order)
        client = order.asker.process
        if self._keeps:
            self._admit(target, queue, client)
            if queue.told.get(client) != home and client != home:
                queue.told[client] = home
                self._desk.say(client, target, self._home_order(queue, NOTICE))

    def _admit(self, target: int, queue: KnownQueue, process: Process) -> None:
        """Take note of who uses the queue; who comes late learns the epoch: nobody has got anything of it yet."""
        if process not in queue.members:
            queue.members.add(process)
            if queue.epoch and process != self._desk.process:
                self._desk.say(process, target, self._home_order(queue, WELCOME))

    # -- moving

    def _move(self, target: int, queue: KnownQueue, home: Process, *asked: Order) -> None:
        assert queue.store is not None  # noqa: S101 - the callers have looked
        orders = [*queue.store.dump(), *asked]
        queue.store, queue.home = None, home
        nobody = Asker(*self._desk.process, 0, 0)
        self._desk.say(home, target, Order(Verb.ADOPT, 0, nobody, queue.epoch, len(orders), queue.maxsize))
        for order in orders:
            self._desk.say(home, target, order)

    def _adopt(self, source: int, target: int, queue: KnownQueue, order: Order) -> None:
        if order.first < queue.epoch:
            return
        queue.home, queue.epoch, queue.maxsize = self._desk.process, order.first, order.third
        queue.store = StoreState(self._desk.answering(target), order.third, order.first)
        queue.coming = order.second, source
        queue.leaving = self._retires
        if self._keeps:
            queue.former.add(order.asker.process)
        self._finish_moving(target, queue)

    def _take_in(self, source: int, target: int, queue: KnownQueue, order: Order) -> None:
        assert queue.coming is not None and queue.store is not None  # noqa: S101, PT018 - the caller has looked
        left, sender = queue.coming
        if source != sender:
            queue.held.append((source, order))
            return
        if order.verb != Verb.ASK or not self._desk.has_ended(order.asker.process):
            queue.store.load(order)
        queue.coming = left - 1, sender
        self._finish_moving(target, queue)

    def _finish_moving(self, target: int, queue: KnownQueue) -> None:
        if queue.coming is not None and queue.coming[0] <= 0:
            queue.coming = None
            if self._keeps:
                for process in queue.former:
                    self._desk.say(process, target, self._home_order(queue, NOTICE))
            held, queue.held = queue.held, []
            for source, order in held:
                self.obey(source, target, order)
            if queue.leaving:
                self._move(target, queue, self._desk.directory)
            self._desk.endpoint.room.notify()


def _is_item(answer: Order) -> bool:
    return answer.what == Outcome.GOT
