"""What ranks say about objects that they share, as the driver's desk hears it; see targets.py."""

from __future__ import annotations

import struct
import threading
from collections import defaultdict
from functools import partial

from targets import split, target

from klyng_mp.objects.barriers import BarrierState
from klyng_mp.objects.cells import CellState
from klyng_mp.objects.conditions import ConditionState, EventState
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.orders import Verb, read
from klyng_mp.objects.pipes import PipeState
from klyng_mp.objects.semaphores import LOCK, RECURSIVE, SEMAPHORE, SemaphoreState
from klyng_mp.transports.contract import SENT
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import OBJECTS, Message

__all__ = []

ORDER = struct.Struct("<BBIIQQqqq")  # as orders.py has it
KINDS = ("lock", "recursive", "semaphore", "condition", "event", "barrier", "cell", "pipe", "queue", "joinable")


class Quiet:
    """As much of an endpoint as a desk needs that only hears."""

    number, incarnation, aborted = 0, 0, False

    def __init__(self):
        self.lock = threading.RLock()
        self.room = self
        self.incarnations = defaultdict(int)
        self.answers = 0

    def notify(self):
        pass

    def failure(self, doing):
        return None

    def pass_on(self, peer, message):
        self.answers += read(message).verb == Verb.ANSWER
        return SENT


def desk_of_all_kinds(endpoint):
    desk = Desk(endpoint, Codec(main_by_reference=True))
    lock, *_ = (
        desk.keep(number, partial(SemaphoreState, kind=kind, value=1, maximum=1 + (kind == SEMAPHORE)))
        for number, kind in enumerate((LOCK, RECURSIVE, SEMAPHORE))
    )
    desk.keep(3, partial(ConditionState, lock=lock))
    desk.keep(4, EventState)
    desk.keep(5, partial(BarrierState, parties=2, acts=True))
    desk.keep(6, partial(CellState, data=bytes(64), lock=lock))
    desk.keep(7, partial(PipeState, holders=((1, 0), (2, 0)), over=partial(desk.drop, 7)))
    desk.queuing.make(8, 1, stays=False)
    desk.queuing.make(9, 0, stays=True)
    return desk


@target
def orders(data):
    """What ranks say to the driver about shared objects of each kind, and then end, one by itself."""
    endpoint = Quiet()
    desk = desk_of_all_kinds(endpoint)
    while len(data) >= 2 + ORDER.size:
        number, size, data = split(data, 2)
        source = data[2]  # of the asker, mostly
        head, data = data[: ORDER.size + size], data[ORDER.size + size :]
        desk.hear(Message(OBJECTS, source, number % len(KINDS), 0, 0, head, ()))
    for process in list(desk._known):
        desk.part(*process, orderly=process[0] % 2 == 1)
    return endpoint.answers > 0
