"""What a process asks without waiting for the answer: callbacks when it comes, and what finalizers have to say.

Layer: objects; below the desk, above asking.

A finalizer may run between any two lines, also of a thread that is just changing what the endpoint's lock guards. So
what it says is only noted, and said by whoever serves the endpoint, whom a descriptor wakes.

Threads: public methods may be called by any; what needs the endpoint's lock says so.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from klyng_mp.objects.asking import Asking, Question
from klyng_mp.objects.orders import Order, Verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.objects.orders import Process

__all__ = ["Later"]

Numbers = tuple[int, int, int]


class Later(Asking):
    """The part of a desk that does not wait; see `klyng_mp.objects.desk.Desk` for its arguments and attributes."""

    def __init__(self, endpoint: Endpoint, directory: Process | None) -> None:
        super().__init__(endpoint, directory)
        self._deferred: deque[tuple[int, int, Numbers]] = deque()
        self._bell: int | None = None  # rung when something was deferred
        self._defers = False
        self._guard = threading.RLock()  # around ringing and closing it; re-entrant, as finalizers are

    def ask_later(self, target: int, what: int, numbers: Numbers, then: Callable[[], None]) -> Question:
        """Ask for something, and have ``then()`` called when it is answered, or nobody can answer any more.

        It is called with the lock held, maybe within this call; it must not wait.
        """
        with self.endpoint.lock:
            question = Question(target, Order(Verb.ASK, what, self._asker(self._number()), *numbers), None)
            question.then = then
            if self.endpoint.failure("") is None:
                self._requests[question.order.asker.request] = question
                self._send(question)
            else:
                then()
        return question

    def give_up(self, question: Question) -> None:
        """Call nothing when this is answered; needs the lock."""
        if question.answer is None and not question.orphaned:
            question.orphaned, question.then = True, None
            self._cancel(question)

    def defer(self, target: int, what: int, numbers: Numbers) -> None:
        """Ask for something soon whose answer nobody wants; for finalizers, also while the lock is held."""
        self._deferred.append((target, what, numbers))
        with self._guard:
            if self._bell is not None:
                os.eventfd_write(self._bell, 1)

    def expect_deferred(self) -> None:
        """Be ready for `defer`, before there is anything that needs it."""
        self._defers = True
        self.resume()

    def resume(self) -> None:
        """Hear of what is deferred at the present endpoint."""
        with self.endpoint.lock, self._guard:
            if self._defers and self._bell is None and (self.endpoint.failure("") is None or self.endpoint.aborted):
                self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self.endpoint.watch(self._bell, self._tell_deferred)

    def stop(self) -> None:
        """See `Objects.stop`."""
        for question in list(self._requests.values()):
            if question.then is not None:
                del self._requests[question.order.asker.request]
                question.then()
        with self._guard:
            bell, self._bell = self._bell, None
            if bell is not None:
                self.endpoint.unwatch(bell)
                os.close(bell)

    def _tell_deferred(self, _events: int) -> None:
        if self._bell is not None:
            os.eventfd_read(self._bell)
        while self._deferred:
            self.tell(*self._deferred.popleft())
