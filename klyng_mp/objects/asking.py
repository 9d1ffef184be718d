"""What a process's threads ask of shared objects: questions, and what becomes of them until they are answered.

Layer: objects; below the desk, which sends them and takes the answers in.

A question is answered once. Where its deadline passes it is withdrawn, and the answer to that is awaited: it is either
that, or what was asked for. So nothing is lost, and nothing is given to who does not want it any more. Where a wait is
interrupted, nobody awaits that answer: what still comes is given back when it comes.

Threads: public methods without another word may be called by any; what needs the endpoint's lock says so.
"""

from __future__ import annotations

from _thread import get_ident
from functools import partial
from typing import TYPE_CHECKING

from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, DeadlineError
from klyng_mp.objects.orders import NOTHING, Asker, Order, Outcome, Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.deadline import Deadline
    from klyng_mp.objects.orders import Content, Process
    from klyng_mp.objects.queuing import Queuing

__all__ = ["Asking", "How", "Question"]


class How:
    """What kind of request it is.

    Args:
        doing: what errors say this process was doing.
        undo: gives back what was granted, where nobody wants it any more: is given the desk, the object's number and
            the answer.
        gives_back: it is sent also while a run is being ended, and then not waited for.
        insists: after an interruption the answer is waited for as well.
    """

    __slots__ = ("doing", "gives_back", "insists", "undo")

    def __init__(
        self,
        doing: str,
        *,
        undo: Callable[[Asking, int, Order], None] | None = None,
        gives_back: bool = False,
        insists: bool = False,
    ) -> None:
        self.doing = doing
        self.undo = undo
        self.gives_back = gives_back
        self.insists = insists


_ANY = How("using a shared object")


class Question:
    """Something that was asked for.

    Attributes:
        target: the object's number.
        order: what was asked.
        answer: what came, or None.
        undo: gives back what was granted, where nobody wants it any more.
        withdrawn: it was taken back, and the answer to that is awaited.
        orphaned: nobody awaits the answer.
        sent_to: whom it was sent to.
        then: called with the lock held when the answer has come, or nobody can answer any more; where nobody waits.
    """

    __slots__ = ("answer", "order", "orphaned", "sent_to", "target", "then", "undo", "withdrawn")

    def __init__(self, target: int, order: Order, undo: Callable[[Order], None] | None) -> None:
        self.target = target
        self.order = order
        self.answer: Order | None = None
        self.undo = undo
        self.orphaned = self.withdrawn = False
        self.sent_to: Process = (0, 0)
        self.then: Callable[[], None] | None = None


class Asking:
    """The asking part of a desk; see `klyng_mp.objects.desk.Desk` for its arguments and further attributes.

    Attributes:
        endpoint: this process's.
        process: the number of its place, and which occupant it is.
        directory: the process that keeps objects.
        waits: how many threads wait for an answer.
        queuing: its part in queues.
    """

    queuing: Queuing

    def __init__(self, endpoint: Endpoint, directory: Process | None) -> None:
        self.endpoint = endpoint
        self.process: Process = (endpoint.number, endpoint.incarnation)
        self.directory = directory or self.process
        self.waits = 0
        self._requests: dict[int, Question] = {}
        self._last = 0
        self._known: dict[Process, bool] = {}  # whether each process that was heard of lives

    def ask(
        self,
        target: int,
        what: int,
        numbers: tuple[int, int, int] = (0, 0, 0),
        *,
        content: Content = NOTHING,
        deadline: Deadline = NEVER,
        how: How | None = None,
    ) -> Order:
        """Ask for something and wait for the answer, which may be that it was withdrawn at the deadline.

        Args:
            target: the object's number.
            what: one of `What`.
            numbers: what the order says besides.
            content: likewise.
            deadline: when to give up.
            how: what kind of request it is.

        Raises:
            KlyngError: whatever the endpoint has against it: it is closed, the run was ended, this is a forked child.
            ClosedError: the object does not exist.
        """
        how = how or _ANY
        endpoint = self.endpoint
        with endpoint.lock:
            if (error := endpoint.failure(how.doing)) is not None:
                if how.gives_back and endpoint.aborted:
                    self._send(Question(target, Order(Verb.ASK, what, self._asker(0), *numbers), None))
                    return Order(Verb.ANSWER, Outcome.YES, self._asker(0))
                raise error
            order = Order(Verb.ASK, what, self._asker(self._number()), *numbers, content)
            undo = None if how.undo is None else partial(how.undo, self, target)
            request = Question(target, order, undo)
            self._requests[order.asker.request] = request
            self._send(request)
        return self._await(request, deadline, how)

    def put(self, target: int, content: Content, flags: int, deadline: Deadline, how: How) -> int:
        """Put an item into a bounded queue; return YES when there was room for it, else FULL or CANCELLED.

        Raises:
            KlyngError: as `ask`; nothing was put.
        """
        with self.endpoint.lock:
            if (error := self.endpoint.failure(how.doing)) is not None:
                raise error
            request = Question(target, Order(Verb.PUT, 0, self._asker(self._number()), 0, 0, flags), None)
            self._requests[request.order.asker.request] = request
            request.sent_to = self.queuing.put(target, request.order.asker, flags, content)
        outcome = self._await(request, deadline, how).what
        if outcome != Outcome.YES:
            with self.endpoint.lock:
                self.queuing.forget(target, request.order.asker)
        return outcome

    def put_at_once(self, target: int, content: Content, how: How) -> None:
        """Put an item into a queue without bounds; nobody answers."""
        with self.endpoint.lock:
            if (error := self.endpoint.failure(how.doing)) is not None:
                raise error
            self.queuing.put(target, self.new_asker(), 0, content)

    def _await(self, request: Question, deadline: Deadline, how: How) -> Order:
        """Wait for an answer; without the lock, which a wait must hold only once."""
        try:
            self._wait(request, deadline, how.doing)
        except BaseException:
            if how.insists and self.endpoint.failure("") is None:
                self._withdraw(request)
                self._wait(request, NEVER, how.doing)
            elif request.answer is not None:
                with self.endpoint.lock:
                    self._undo(request, request.answer)
            raise
        finally:
            with self.endpoint.lock:
                if request.answer is None:
                    request.orphaned = True
                    self._cancel(request)
                else:
                    self._requests.pop(request.order.asker.request, None)
        assert request.answer is not None  # noqa: S101 - the wait has seen it
        if request.answer.what == Outcome.UNKNOWN:
            raise ClosedError(f"{how.doing}: this World has no such object any more; make a new one")
        return request.answer

    def new_asker(self) -> Asker:
        """Return who says something that is not answered."""
        return self._asker(0)

    def tell(
        self, target: int, what: int, numbers: tuple[int, int, int] = (0, 0, 0), content: Content = NOTHING
    ) -> None:
        """Ask for something whose answer nobody wants; needs the lock."""
        self._send(Question(target, Order(Verb.ASK, what, self._asker(0), *numbers, content), None))

    def _wait(self, request: Question, deadline: Deadline, doing: str) -> None:
        def answered() -> bool:
            return request.answer is not None

        if answered():
            return
        with self.endpoint.lock:
            self.waits += 1
        try:
            self.endpoint.wait_within(answered, deadline, doing)
        except DeadlineError:
            self._withdraw(request)
            self.endpoint.wait_within(answered, NEVER, doing)
        finally:
            with self.endpoint.lock:
                self.waits -= 1

    def _undo(self, request: Question, answer: Order) -> None:
        """Give back what was granted, since nobody wants it any more."""
        if answer.what == Outcome.GOT:
            self.queuing.put_back(request.target, answer)
        elif request.undo is not None and answer.what in {Outcome.YES, Outcome.ACT}:
            request.undo(answer)

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _asker(self, number: int) -> Asker:
        return Asker(*self.process, get_ident(), number)

    def _send(self, request: Question) -> None:
        request.sent_to = self.queuing.home_of(request.target) or self.directory
        self.say(request.sent_to, request.target, request.order)

    def _withdraw(self, request: Question) -> None:
        with self.endpoint.lock:
            if request.answer is None:
                self._cancel(request)

    def _cancel(self, request: Question) -> None:
        request.withdrawn = True
        self.say(request.sent_to, request.target, Order(Verb.CANCEL, 0, request.order.asker))

    def ask_again(self, target: int, lost: Process | None) -> None:
        """Send what was asked about a queue once more; with ``lost``, only what was sent to that process."""
        for request in list(self._requests.values()):
            if request.target != target or request.answer is not None or lost not in {None, request.sent_to}:
                continue
            if request.orphaned:
                del self._requests[request.order.asker.request]
            elif request.order.verb == Verb.ASK:
                self._send(request)
                if request.withdrawn:
                    self._cancel(request)

    def has_put_again(self, asker: Asker, home: Process) -> None:
        """Take note that what is put by a request was sent to another home."""
        request = self._requests.get(asker.request)
        if request is not None:
            request.sent_to = home
            if request.withdrawn:
                self._cancel(request)

    def is_open(self, asker: Asker) -> bool:
        """Whether a request of this process waits for its answer."""
        request = self._requests.get(asker.request)
        return request is not None and request.answer is None

    def has_ended(self, process: Process) -> bool:
        """Whether a process is known to have ended."""
        return not self._known.get(process, True)

    def say(self, process: Process, target: int, order: Order) -> None:
        """Say something to a process; needs the lock."""
        raise NotImplementedError
