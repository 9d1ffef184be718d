"""What becomes of queues whose home is lost or gives them back: who is told, and when what is kept is put again.

Layer: objects; below queuing, which has the story.

Threads: called with the endpoint's lock held.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.objects.orders import NOTHING, Asker, Order, Verb
from klyng_mp.objects.stores import FIRST, StoreState

if TYPE_CHECKING:
    from klyng_mp.objects.desk import Desk
    from klyng_mp.objects.orders import Content, Process

__all__ = ["HANDED_BACK", "NOTICE", "REBUILT", "WELCOME", "Kept", "KnownQueue", "Settling"]

NOTICE, REBUILT, HANDED_BACK, WELCOME = range(4)  # why the home of a queue is told
_MEMBER = struct.Struct("<II")


class Kept(NamedTuple):
    """What was put here, until it is taken."""

    asker: Asker
    flags: int
    content: Content


class KnownQueue:
    """What a process knows of a queue.

    Attributes:
        home: where it lives, as far as is known.
        epoch: how many homes it has lost.
        put_epoch: in which one what is kept was put.
        next: the number of what is put next.
        kept: what was put here and not taken, by number.
        settling: who has to say that the loss of a home was heard, before items are put again; None: nobody.
        settled: who has said so before this process heard of it, and of which epoch.
        store: what is in it, if it lives here.
        coming: how many orders are missing of the store that is being moved here, and who sends them.
        held: what has come before they have.
        leaving: whether it was handed back, and the directory has not said that it has it.
        members: who has ever used it; in the directory.
        former: homes that have handed it back; likewise.
        told: what home each of them was told; likewise.
        maxsize: how many items it may hold; likewise.
        stays: whether it moves no more; likewise.
    """

    def __init__(self, home: Process) -> None:
        self.home = home
        self.epoch = self.put_epoch = self.next = 0
        self.kept: dict[int, Kept] = {}
        self.settling: set[Process] | None = None
        self.settled: set[tuple[Process, int]] = set()
        self.store: StoreState | None = None
        self.coming: tuple[int, int] | None = None
        self.held: list[tuple[int, Order]] = []
        self.members: set[Process] = set()
        self.former: set[Process] = set()
        self.told: dict[Process, Process] = {}
        self.leaving = False
        self.maxsize = 0
        self.stays = False


class Settling:
    """One process's part in losses; see the module.

    Args:
        desk: of the same process.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._queues: dict[int, KnownQueue] = {}
        self._retires = False

    @property
    def _keeps(self) -> bool:
        """Whether this process is the directory."""
        return self._desk.directory == self._desk.process

    def _rebuild(self, target: int, queue: KnownQueue) -> None:
        """The home is lost: this one, the directory, is home now, and empty."""
        queue.epoch += 1
        queue.home, queue.coming = self._desk.process, None
        queue.store = StoreState(self._desk.answering(target), queue.maxsize, queue.epoch)
        queue.told.clear()
        queue.held = []  # their senders put and ask again
        self._tell_members(target, queue, REBUILT)

    def _tell_members(self, target: int, queue: KnownQueue, why: int, lost: Process | None = None) -> None:
        queue.members.add(self._desk.process)
        order = self._home_order(queue, why)
        if lost is not None:
            order = order._replace(asker=Asker(*lost, 0, 0))
        for member in list(queue.members):
            self._desk.say(member, target, order)

    def _hear_home(self, target: int, queue: KnownQueue, order: Order) -> None:
        if order.third < queue.epoch or (order.third == queue.epoch and order.what == REBUILT and not self._keeps):
            return
        home = order.first, order.second
        # One that names this process was said before the directory had what this one has handed back.
        if not self._keeps and queue.store is None and home != self._desk.process:
            queue.home, queue.leaving = home, False
        if order.what == REBUILT:
            self._settle(target, queue, order)
        elif order.what == WELCOME:
            queue.epoch = order.third
            self._put_again(target, queue)
        elif order.what == HANDED_BACK and queue.settling is None:
            lost = order.asker.process
            self._desk.ask_again(target, lost if lost[1] else None)
            self._send_again(target, queue)

    def _settle(self, target: int, queue: KnownQueue, order: Order) -> None:
        """Tell all others that nothing that comes of the old home counts any more, and wait until all have."""
        queue.epoch = order.third
        own = self._desk.process
        _, named, _ = order.content
        whole = len(named) // _MEMBER.size * _MEMBER.size
        members = {member for member in _MEMBER.iter_unpack(named[:whole]) if member != own}
        for member in members:
            self._desk.say(member, target, Order(Verb.SETTLED, 0, Asker(*own, 0, 0), queue.epoch))
        queue.settling = {one for one in members if (one, queue.epoch) not in queue.settled and self._lives(one)}
        queue.settled.clear()
        self._desk.ask_again(target, None)
        self._put_again_if_settled(target, queue)

    def _lives(self, process: Process) -> bool:
        place, incarnation = process
        return self._desk.endpoint.incarnations.get(place, 0) == incarnation and not self._desk.has_ended(process)

    def _hear_settled(self, target: int, queue: KnownQueue, order: Order) -> None:
        member = order.asker.process
        if queue.settling is not None and order.first == queue.epoch:
            queue.settling.discard(member)
            self._put_again_if_settled(target, queue)
        elif order.first > queue.epoch:
            queue.settled.add((member, order.first))

    def _put_again_if_settled(self, target: int, queue: KnownQueue) -> None:
        if queue.settling is not None and not queue.settling:
            self._put_again(target, queue)

    def _put_again(self, target: int, queue: KnownQueue) -> None:
        """Put what is kept again, in the present epoch."""
        queue.settling = None
        queue.put_epoch = queue.epoch
        queue.kept = dict(enumerate(queue.kept.values()))
        queue.next = len(queue.kept)
        self._send_again(target, queue)

    def _send(self, target: int, queue: KnownQueue, sequence: int, kept: Kept) -> None:
        order = Order(Verb.PUT, 0, kept.asker, queue.put_epoch, sequence, kept.flags, kept.content)
        self._desk.say(queue.home, target, order)

    def _send_again(self, target: int, queue: KnownQueue) -> None:
        for sequence, kept in list(queue.kept.items()):
            again = kept
            if not self._desk.is_open(kept.asker):  # it had found room before
                again = Kept(kept.asker._replace(request=0), kept.flags & FIRST, kept.content)
            queue.kept[sequence] = again
            self._send(target, queue, sequence, again)
            self._desk.has_put_again(again.asker, queue.home)

    def _home_order(self, queue: KnownQueue, why: int) -> Order:
        members = b"".join(_MEMBER.pack(*member) for member in queue.members)
        content: Content = (0, members, ()) if why == REBUILT else NOTHING
        return Order(Verb.HOME, why, Asker(0, 0, 0, 0), *queue.home, queue.epoch, content)
