"""Desks of several processes in one, whose messages lie on their ways until a test delivers them."""

from __future__ import annotations

import threading
from collections import defaultdict

from klyng_mp.objects.asking import Question
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.orders import Order, Outcome, Verb, What, own_content, read
from klyng_mp.transports.contract import SENT
from klyng_mp.wire.codec import Codec

__all__ = ["DRIVER", "Processes"]

DRIVER = 0
QUEUE = 77


class _Room:
    def notify(self):
        pass


class _Endpoint:
    """As much of an endpoint as a desk needs that never waits."""

    def __init__(self, processes, number):
        self.number, self.incarnation = number, 1
        self.lock = threading.RLock()
        self.room = _Room()
        self.incarnations = dict.fromkeys(range(processes.size), 1)
        self.aborted = False
        self._processes = processes

    def failure(self, doing):
        return None

    def pass_on(self, peer, message):
        self._processes.ways[self.number, peer].append(message)
        return SENT


class Processes:
    """A driver and ranks that share one queue."""

    def __init__(self, size, maxsize=0):
        self.size = size
        self.ways = defaultdict(list)
        self.alive = set(range(size))
        self.codec = Codec(main_by_reference=True)
        self.desks = [
            Desk(_Endpoint(self, number), self.codec, directory=(DRIVER, 1) if number else None)
            for number in range(size)
        ]
        self.desks[DRIVER].queuing.make(QUEUE, maxsize, stays=False)
        self.maxsize = maxsize
        self.requests = defaultdict(list)
        self.put_by = defaultdict(list)
        self.got = []  # (reader, item)
        self.refused = set()
        self.leaving = set()  # who has handed back what it had, and waits for that to have arrived
        self.lost = set()  # with a reader that has ended

    # -- what programs do

    def put(self, number):
        desk, item = self.desks[number], (number, len(self.put_by[number]))
        content = own_content(self.codec.encode(item))
        self.put_by[number].append(item)
        if not self.maxsize:
            desk.queuing.put(QUEUE, desk.new_asker(), 0, content)
            self.look()
            return
        request = Question(QUEUE, Order(Verb.PUT, 0, desk._asker(desk._number())), None)
        desk._requests[request.order.asker.request] = request
        request.sent_to = desk.queuing.put(QUEUE, request.order.asker, 0, content)
        self.requests[number].append((request, item))
        self.look()

    def get(self, number, what=What.GET, block=1):
        desk = self.desks[number]
        request = Question(QUEUE, Order(Verb.ASK, what, desk._asker(desk._number()), block), None)
        desk.queuing.use(QUEUE)
        desk._requests[request.order.asker.request] = request
        desk._send(request)
        self.requests[number].append((request, None))
        self.look()
        return request

    def cancel(self, number):
        """Let the oldest request's deadline pass."""
        for request, _ in self.requests[number]:
            if not request.withdrawn:
                self.desks[number]._cancel(request)
                break
        self.look()

    def interrupt(self, number):
        """Let the oldest wait for an item be interrupted."""
        for index, (request, item) in enumerate(self.requests[number]):
            if item is None:
                del self.requests[number][index]
                if request.answer is None:
                    request.orphaned = True
                    self.desks[number]._cancel(request)
                else:
                    self.desks[number]._undo(request, request.answer)
                    self.desks[number]._requests.pop(request.order.asker.request)
                break
        self.look()

    # -- what becomes of it

    def deliver(self, index):
        """Deliver the first message of one of the ways on which there is any."""
        ways = sorted(way for way, messages in self.ways.items() if messages)
        if not ways:
            return False
        source, receiver = ways[index % len(ways)]
        message = self.ways[source, receiver].pop(0)
        desk = self.desks[receiver]
        if receiver in self.alive:
            if isinstance(message, bool):
                desk.part(source, 1, orderly=message)
            else:
                desk.hear(message)
        elif not isinstance(message, bool) and (order := read(message)).what == Outcome.GOT:
            self.lost.add(self.codec.decode(*order.content))
        self.look()
        self._see_off()
        return True

    def end(self, number, *, orderly):
        """Let a process end; the others hear of it after what it said last."""
        if orderly:
            self.desks[number].begin_to_retire()
            self.leaving.add(number)
            self.requests.pop(number, None)
            self._see_off()
        else:
            self._bury(number, orderly=False)

    def _see_off(self):
        for number in [number for number in self.leaving if self.desks[number].has_retired]:
            self._bury(number, orderly=True)

    def _bury(self, number, *, orderly):
        self.leaving.discard(number)
        queue = self.desks[number].queuing._queues.get(QUEUE)
        for kept in () if queue is None else queue.kept.values():  # what it did not want may be gone with it, too
            self.lost.add(self.codec.decode(*kept.content))
        self.alive.discard(number)
        self.requests.pop(number, None)
        for other in self.alive:
            self.ways[number, other].append(orderly)

    def settle(self):
        for _ in range(5000):
            if not self.deliver(0):
                return
        raise AssertionError("messages go around for ever")

    def look(self):
        """Take note of what was answered, as threads that wait would."""
        for number in self.alive:
            left = []
            for request, item in self.requests[number]:
                if request.answer is None:
                    left.append((request, item))
                    continue
                self.desks[number]._requests.pop(request.order.asker.request)
                if request.answer.what == Outcome.GOT:
                    self.got.append((number, self.codec.decode(*request.answer.content)))
                elif item is not None and request.answer.what != Outcome.YES:
                    self.desks[number].queuing.forget(QUEUE, request.order.asker)
                    self.refused.add(item)
            self.requests[number] = left
