"""A process's desk for shared objects: it asks for the process's threads, and keeps the objects that live here.

Layer: objects; the only part of it that knows an endpoint. Objects live in the driver of their World, whose desk
outlives its jobs; queues may live elsewhere (`queuing`).

Threads: all of the public methods may be called by any; what is called by the endpoint has its lock already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from klyng_mp.deadline import NEVER
from klyng_mp.errors import RemoteProtocolError
from klyng_mp.objects.later import Later
from klyng_mp.objects.orders import NOTHING, Asker, Order, Outcome, Verb, pack, read
from klyng_mp.objects.pipes import PipeState
from klyng_mp.objects.queuing import Queuing

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.objects.asking import Question
    from klyng_mp.objects.orders import Content, Process
    from klyng_mp.objects.semaphores import Answer
    from klyng_mp.transports.contract import Ticket
    from klyng_mp.wire.codec import Codec
    from klyng_mp.wire.frames import Message

__all__ = ["Desk", "State"]

_PASSED_ON = {Verb.ASK, Verb.CANCEL, Verb.PUT, Verb.ANSWER, Verb.TAKEN}  # by the directory, to whom it is for
_MOST_LEAVING = 256  # messages that are kept before it is looked which have left


class State(Protocol):
    """An object, where it lives."""

    def ask(self, order: Order) -> None:
        """Do what a client asks for; it is answered now or later."""

    def cancel(self, asker: Asker) -> None:
        """Take back what was asked for, if it waits."""

    def part(self, process: Process, *, orderly: bool) -> None:
        """Take note that a process has ended, by itself or not."""


class Desk(Later):
    """One process's; see the module.

    Args:
        endpoint: this process's.
        codec: of what is put into objects.
        directory: the process that keeps objects; None: this one does.
    """

    def __init__(self, endpoint: Endpoint, codec: Codec, *, directory: Process | None = None) -> None:
        super().__init__(endpoint, directory)
        self.codec = codec
        self.queuing = Queuing(self)
        self._states: dict[int, State] = {}
        self._leaving: list[tuple[Ticket, int, Order]] = []  # what may not have left yet
        self._most_leaving = _MOST_LEAVING  # until it is looked through
        self.attach(endpoint)

    def attach(self, endpoint: Endpoint) -> None:
        """Serve at this endpoint from now on; all that were there at another one are gone."""
        self.endpoint = endpoint
        with endpoint.lock:
            for process, lives in list(self._known.items()):
                if lives and process != self.process:
                    self._part(process, orderly=False)
            self._known.clear()
            self.queuing.forget_members()
            for state in list(self._states.values()):
                if isinstance(state, PipeState):
                    state.forget_passing()
            endpoint.objects = self
            self.resume()

    def retire(self) -> None:
        """Hand what lives here back to the driver, as this process is going to end."""
        with self.endpoint.lock:
            self.begin_to_retire()
        self.endpoint.wait_within(lambda: self.has_retired, NEVER, "handing shared queues back")

    def begin_to_retire(self) -> None:
        """Hand back what lives here, and what other threads may still be given; needs the lock."""
        for request in self._open_requests():
            if not request.orphaned:
                request.orphaned = True
                self._cancel(request)
        self.queuing.retire()
        for ticket, target, order in self._leaving:
            if not ticket.done and ticket.withdraw():
                self.say(self.directory, target, order)

    @property
    def has_retired(self) -> bool:
        """Whether all of it has arrived."""
        return self.queuing.has_retired and not self._open_requests()

    def _open_requests(self) -> list[Question]:
        """Return those about queues that are not answered."""
        return [
            request
            for request in self._requests.values()
            if request.answer is None and self.queuing.home_of(request.target) is not None
        ]

    # -- keeping

    def keep(self, target: int, make: Callable[[Answer], State]) -> State:
        """Let an object live here."""
        with self.endpoint.lock:
            state = self._states[target] = make(self.answering(target))
            return state

    def state(self, target: int) -> State | None:
        """Return an object that lives here."""
        return self._states.get(target)

    def drop(self, target: int) -> None:
        """Let an object be no more."""
        self._states.pop(target, None)
        self.queuing.drop(target)

    def answering(self, target: int) -> Answer:
        """Return what takes the answers of an object's state."""

        def answer(  # noqa: PLR0917 - as `Answer` has it
            asker: Asker, outcome: int, first: int = 0, second: int = 0, third: int = 0, content: Content = NOTHING
        ) -> None:
            if not asker.request:
                return
            order = Order(Verb.ANSWER, outcome, asker, first, second, third, content)
            if asker[:2] == self.process:
                self._take_answer(target, order)
            else:
                self.say(asker.process, target, order)

        return answer

    # -- saying and hearing; with the endpoint's lock held

    def say(self, process: Process, target: int, order: Order) -> None:
        """Say something to a process, which may be this one; what a process that has ended is told is forgotten.

        One that has come, and the news of that has not, is told by way of the directory, which passes it on.
        """
        if process == self.process:
            self._obey(process[0], target, order)
            return
        incarnations = self.endpoint.incarnations
        if incarnations.get(process[0], 0) < process[1] and order.verb in _PASSED_ON and self.process != self.directory:
            process = self.directory
        if incarnations.get(process[0], 0) == process[1]:
            ticket = self.endpoint.pass_on(process[0], pack(self.process[0], target, order, process[1]))
            if order.verb in {Verb.PUT, Verb.TAKEN} and ticket is not None and not ticket.done:
                self._take_note(ticket, target, order)

    def _take_note(self, ticket: Ticket, target: int, order: Order) -> None:
        """Keep what has not left: the connection may never be made, since that process ends, too."""
        if len(self._leaving) >= self._most_leaving:
            self._leaving = [one for one in self._leaving if not one[0].done]
            self._most_leaving = max(_MOST_LEAVING, 2 * len(self._leaving))
        self._leaving.append((ticket, target, order))

    def hear(self, message: Message) -> None:
        """See `Objects.hear`; what is no order, as nobody of this World would send it, is dropped."""
        try:
            order = read(message)
        except RemoteProtocolError:
            return
        self._obey(message.source, message.tag, order)  # type: ignore[arg-type] # `read` has looked

    def part(self, peer: int, incarnation: int, *, orderly: bool) -> None:
        """See `Objects.part`."""
        if self._known.get((peer, incarnation), True):
            self._part((peer, incarnation), orderly=orderly)

    def _part(self, process: Process, *, orderly: bool) -> None:
        self._known[process] = False
        for state in list(self._states.values()):
            state.part(process, orderly=orderly)
        self.queuing.part(process, orderly=orderly)
        self.endpoint.room.notify()

    def _obey(self, source: int, target: int, order: Order) -> None:
        process = order.asker.process
        if order.verb == Verb.ANSWER:
            if process == self.process:
                self._take_answer(target, order)
            elif self.process == self.directory:
                self.say(process, target, order)
            return
        lives = order.verb not in {Verb.ASK, Verb.CANCEL, Verb.PUT} or self._known.setdefault(process, True)
        if not lives and not self.queuing.awaits(source, target):
            return  # it has ended, and what it has said comes late
        if self.queuing.obey(source, target, order):
            return
        state = self._states.get(target)
        if state is None:
            if order.verb == Verb.ASK:
                self.answering(target)(order.asker, Outcome.UNKNOWN)
        elif order.verb == Verb.ASK:
            state.ask(order)
        elif order.verb == Verb.CANCEL:
            state.cancel(order.asker)
        if process == self.process:
            self.endpoint.room.notify()  # another thread may have got what it waits for

    def _take_answer(self, target: int, order: Order) -> None:
        if self.queuing.is_stale(target, order):
            return
        request = self._requests.get(order.asker.request)
        if request is None:
            self.queuing.put_back(target, order)
        elif request.orphaned:
            del self._requests[order.asker.request]
            self._undo(request, order)
        else:
            self.queuing.take_note(target, order)
            request.answer = order
            if request.then is not None:
                del self._requests[order.asker.request]
                request.then()
