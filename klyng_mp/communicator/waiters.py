"""Who waits for what happens at an endpoint: threads, event loops, and calls that go on by themselves.

Layer: communicator.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Iterable

    from klyng_mp.deadline import Deadline

__all__ = ["Chore", "Guest", "Guests", "Waiter"]


class Chore(Protocol):
    """Something that goes on by itself while a thread waits for anything."""

    @property
    def due(self) -> bool:
        """Whether it can go on now. Called with the lock held."""

    def advance(self) -> bool:
        """Do what can be done without waiting; return whether nothing is left. Called with the lock held."""


class Waiter:
    """One thread that waits.

    Args:
        ready: tells whether it has nothing to wait for.
        deadline: when it gives up.
        doing: its call as text; or a function and its arguments, which make that text when somebody asks.
        on: the peer that it needs; or a function that returns several, all of which it needs; None where any may
            help, or it is not known who.

    Attributes:
        since: when it began, by the monotonic clock; no two waits of a thread have the same.
        thread: the thread's number; 0 where there was only one.
    """

    __slots__ = ("alarm", "called", "deadline", "doing", "on", "ready", "since", "thread")

    def __init__(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str | tuple[Any, ...],
        on: int | Callable[[], Iterable[int]] | None,
    ) -> None:
        self.ready = ready
        self.deadline = deadline
        self.doing = doing
        self.on = on
        self.since = monotonic()
        self.thread = 0
        self.alarm: LockType | None = None  # held by the thread while it sleeps on it
        self.called = False

    @property
    def call(self) -> str:
        """What it does, as text."""
        if isinstance(self.doing, str):
            return self.doing
        make, *arguments = self.doing
        return str(make(*arguments))

    @property
    def peers(self) -> tuple[int, ...] | None:
        """Whom it needs; None where any may help, or it is not known who."""
        if self.on is None or isinstance(self.on, int):
            return None if self.on is None else (self.on,)
        return tuple(self.on()) or None

    def is_ready(self) -> bool:
        """Whether it has nothing to wait for; an exception is for the thread itself to meet."""
        try:
            return self.ready()
        except Exception:  # noqa: BLE001
            return True


class Guest(Protocol):
    """Who waits elsewhere, in an event loop that watches the room's poller, for what happens here.

    Attributes:
        called: it was woken and has not looked yet; it says so itself.
    """

    called: bool

    def is_ready(self) -> bool:
        """Whether it has something to do; called with the lock held, often, by any thread."""

    def wake(self) -> None:
        """Let it look: at what it waits for, and whether it may sleep. Called with the lock held, by any thread."""


class Guests(list[Guest]):
    """The guests of one room."""

    def notify(self, *, everybody: bool) -> None:
        """Wake those that have something to do, or all."""
        for guest in tuple(self):
            if not guest.called and (everybody or guest.is_ready()):
                guest.called = True
                guest.wake()
