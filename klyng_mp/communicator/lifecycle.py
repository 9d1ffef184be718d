"""The life of an endpoint: its lock, the wait that all of its threads share, and why nothing goes any more.

Layer: communicator; knows neither peers nor messages.

Invariants: a blocked call ends when it has what it waits for, at its deadline, or when the endpoint
refuses everything: during an abort, or for ever once it is closed, poisoned, or in a forked child.

Threads: every method may be called by any thread, but none from a signal handler.
"""

from __future__ import annotations

import os
from functools import cache
from select import EPOLLIN
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from klyng_mp.communicator.waiting import WaitingRoom
from klyng_mp.errors import ClosedError, ForkedError, KlyngError, PeerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from klyng_mp.communicator.room import Gate
    from klyng_mp.communicator.waiters import Chore, Waiter
    from klyng_mp.deadline import Deadline
    from klyng_mp.transports.contract import Poller

__all__ = ["Forked", "Lifecycle", "watch_forks"]


class Lifecycle:
    """What lies under an endpoint's peers and messages.

    Args:
        number: the endpoint's.

    Attributes:
        aborted: whether `abort` was called since the last `resume`.
        poisoned: whether an interruption spoilt it; nothing is left to be done but to end the process.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.aborted = False
        self.poisoned = False
        self._room = WaitingRoom(self._poison, self._catch_up)
        self._refusal: Callable[[str], KlyngError] | None = None  # makes the error of whoever wants anything
        self._over = False  # whether `resume` cannot help
        watch_forks(self)

    @property
    def lock(self) -> Gate:
        """The lock around everything here; re-entrant."""
        return self._room.lock

    @property
    def room(self) -> WaitingRoom:
        """Where its threads wait, and guests are welcome."""
        return self._room

    @property
    def poller(self) -> Poller:
        """The descriptors that this endpoint's threads wait for."""
        return self._room.poller

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)``, with the lock held, whenever there is something to read at ``fd``."""
        with self._room.lock:
            self._room.poller.register(fd, EPOLLIN, callback)

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; it stays open."""
        with self._room.lock:
            self._room.poller.unregister(fd)

    def wait(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str,
        on: int | Callable[[], Iterable[int]] | None = None,
    ) -> None:
        """Wait until ``ready()``, which is called often and with the lock held, by any thread; for ``on`` see `Waiter`.

        Raises:
            DeadlineError: the time ran out.
            PeerLostError: the run was ended by `abort`.
            ClosedError: the endpoint is closed or poisoned.
        """
        self.wait_within(ready, deadline, doing, on)

    def wait_within(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str,
        on: int | Callable[[], Iterable[int]] | None = None,
    ) -> None:
        """As `wait`, for a part of a call which is told of as a whole where there is a trace."""
        with self._room.lock:
            if not self._settle(ready, deadline, doing, on):
                raise deadline.error(doing)

    def add_chore(self, chore: Chore) -> None:
        """Let something go on whenever a thread waits here or makes progress."""
        with self._room.lock:
            self._room.chores.append(chore)

    @property
    def waiters(self) -> list[Waiter]:
        """The threads that wait now; read it with the lock held."""
        return self._room.waiters

    def progress(self) -> None:
        """Move what can be moved without waiting."""
        with self._room.lock:
            self._room.progress()
            self._catch_up()

    def failure(self, doing: str) -> KlyngError | None:
        """Return the error that any call would raise now, or None."""
        return None if self._refusal is None else self._refusal(doing)

    def abort(self, reason: str, rank: int | None) -> None:
        """End the run here: blocked and later calls raise PeerLostError, until `resume`.

        Args:
            reason: a phrase for the error: "raised ValueError".
            rank: who is to blame.
        """
        with self._room.lock:
            self.aborted = True
            if not self._over:
                self._refusal = lambda doing: PeerLostError(rank, reason, doing=doing)
                self._room.stopped = True
                self._room.notify()

    def resume(self) -> None:
        """Undo `abort`."""
        with self._room.lock:
            self.aborted = False
            if not self._over:
                self._refusal = None
                self._room.stopped = False

    def close(self) -> None:
        """Close all connections; every blocked and later call raises ClosedError. May be called again.

        What is still queued is dropped: `flush` first where that matters.
        """
        with self._room.lock:
            self._refuse(lambda doing: ClosedError(f"this rank has closed its communicator, so {doing} cannot be done"))
            attendant = self._room.attendant
            self._room.close()
        if attendant is not None and not self._room.lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            attendant.join()

    def abandon(self) -> None:
        """In a forked child: close its copies of the descriptors and refuse everything with ForkedError."""
        self._over = self._room.stopped = True  # also for the core's short way, which looks at the old lock
        self._refusal = lambda doing: ForkedError(
            f"{doing} was called in a child that was forked from rank {self.number}: a communicator belongs to one "
            "process. Send from the rank itself, or start the child from a World"
        )
        self._room.abandon()

    # -- inside, with the lock held

    def _settle(
        self,
        ready: Callable[[], bool],
        deadline: Deadline,
        doing: str,
        on: int | Callable[[], Iterable[int]] | None = None,
    ) -> bool:
        """Wait until ``ready()`` and return True, or False at the deadline; raise when nothing goes any more."""
        if not self._room.wait(ready, deadline, doing, on):
            return False
        if self._refusal is not None and not ready():
            raise self._refusal(doing)
        return True

    def _refuse(self, refusal: Callable[[str], KlyngError]) -> None:
        """Refuse everything from now on; the first reason stays."""
        if not self._over:
            self._over = self._room.stopped = True
            self._refusal = refusal
            self._disconnect()
            self._room.notify()

    def _poison(self) -> None:
        self.poisoned = True
        self._refuse(
            lambda doing: ClosedError(
                f"an exception interrupted this rank while it moved messages, so {doing} cannot be done safely: "
                "its connections are closed and its process must end"
            )
        )

    def _disconnect(self) -> None:
        """Close what leads to others; nothing follows."""

    def _catch_up(self) -> None:
        """Do what is due to what has arrived, and could not be done while it arrived."""


class Forked(Protocol):
    """What is of no use in a forked child."""

    def abandon(self) -> None:
        """Be of no use: this process is such a child."""


_LIVES: WeakSet[Forked] = WeakSet()


def watch_forks(one: Forked) -> None:
    """Have an object abandoned in each child that this process forks while it lives."""
    _watch_forks()
    _LIVES.add(one)


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_abandon_all)


def _abandon_all() -> None:
    for life in list(_LIVES):
        life.abandon()
