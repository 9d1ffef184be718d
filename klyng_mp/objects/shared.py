"""What all shared objects have in common: a number in their World, and the desk of the process that they are in.

Layer: objects. An object is no more than that, so it may be pickled at any time, also into another one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, finalize

from klyng_mp.errors import BrokenLockError, NotAcrossHostsError
from klyng_mp.objects.orders import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.objects.desk import Desk, State
    from klyng_mp.objects.orders import Order
    from klyng_mp.objects.semaphores import Answer

__all__ = ["Numbers", "Shared", "check_broken", "find_desk", "own_desk", "rebuild", "set_desk"]

_NUMBER_BITS = 24  # of a World's objects; the rest says which World it is
_worlds: WeakValueDictionary[int, Desk] = WeakValueDictionary()  # of which this process is the driver
_own: Desk | None = None


def set_desk(desk: Desk) -> None:
    """Let this process, a rank, use the objects of its World by this desk."""
    global _own  # noqa: PLW0603 - a process is in one World at a time
    _own = desk


class Numbers:
    """Numbers of the objects of one World, which no other World's objects have.

    Args:
        desk: its driver's.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._world = int.from_bytes(os.urandom(4), "little") or 1
        self._last = 0
        _worlds[self._world] = desk

    def new(self) -> int:
        """Return the next one."""
        self._last += 1
        return self._world << _NUMBER_BITS | self._last


def find_desk(number: int, kind: str) -> Desk:
    """Return the desk by which this process uses an object.

    Raises:
        NotAcrossHostsError: this process is not of its World.
    """
    desk = _worlds.get(number >> _NUMBER_BITS, _own)
    if desk is None:
        raise NotAcrossHostsError(
            f"the {kind} of a World with hosts", "give it to this World's processes and functions only"
        )
    return desk


def own_desk() -> Desk | None:
    """Return the desk that this process has as a rank, or None."""
    return _own


def rebuild(kind: type[Shared], number: int, state: tuple[Any, ...]) -> Shared:
    """Return the object of a pickle; raises as `find_desk`."""
    made = kind.__new__(kind)
    made._desk, made._number, made._sent = find_desk(number, kind.__name__), number, [True]
    made._set_state(*state)
    return made


class Shared:
    """An object that lives elsewhere, or here.

    Args:
        numbers: of the World that it is of; this process is its driver.
        make: makes its state.
    """

    _desk: Desk
    _number: int
    _sent: list[bool]  # whether another process may know it

    def __init__(self, numbers: Numbers, make: Callable[[Answer], State] | None = None) -> None:
        self._desk, self._number, self._sent = numbers.desk, numbers.new(), [False]
        if make is not None:
            self._desk.keep(self._number, make)
        finalize(self, _forget, self._desk, self._number, self._sent).atexit = False

    def _state(self) -> tuple[Any, ...]:
        """Return what it is rebuilt of besides its number."""
        return ()

    def _set_state(self) -> None:
        """Take what `_state` has returned."""

    def __reduce__(self) -> tuple[Any, ...]:
        self._sent[0] = True
        return rebuild, (type(self), self._number, self._state())


def _forget(desk: Desk, number: int, sent: list[bool]) -> None:
    """Let an object that no other process knows be no more."""
    if not sent[0]:
        desk.drop(number)


def check_broken(answer: Order, label: str) -> None:
    """Raise BrokenLockError if that was the answer."""
    if answer.what in {Outcome.BROKEN, Outcome.ENDED}:
        raise BrokenLockError(label, 0, answer.what == Outcome.ENDED, rank=answer.first)
