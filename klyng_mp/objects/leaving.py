"""What is pickled for other machines: it is refused there and then where it means nothing away from this one.

Layer: objects. multiprocessing asks the *spawning popen* of a thread, while that pickles, for what becomes of
descriptors; `LEAVING` is one that has none to give.
"""

from __future__ import annotations

import threading
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from typing import TYPE_CHECKING, Any, NoReturn, cast

from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.objects.passing import begin_passing, end_passing

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LEAVING", "check_stays", "refuse_descriptor"]


def refuse_descriptor() -> NoReturn:
    """Raise NotAcrossHostsError: something was to leave that has a descriptor."""
    raise NotAcrossHostsError(
        "a pipe, queue, lock or shared memory of this machine",
        "use what the World itself makes (world.Queue(), world.Lock(), world.Value(), …), or leave hosts= out",
    )


def check_stays(what: str, remedy: str) -> None:
    """Raise NotAcrossHostsError if what this thread pickles may go to another machine; for what cannot."""
    if getattr(get_spawning_popen(), "is_spread", False):
        raise NotAcrossHostsError(what, remedy)


class _Entered(threading.local):
    def __init__(self) -> None:
        self.before: list[tuple[Any, bool]] = []  # the popen until then, and whether ends are told of


class _Leaving:
    """A context in which a thread pickles for other machines; it may be entered again within."""

    is_spread = True

    def __init__(self) -> None:
        self._entered = _Entered()

    def __enter__(self) -> None:
        self._entered.before.append((get_spawning_popen(), begin_passing()))
        set_spawning_popen(cast("Any", self))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        popen, passes = self._entered.before.pop()
        set_spawning_popen(popen)
        if passes:
            end_passing(sent=kind is None)

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        """Refuse a descriptor."""
        del fd
        refuse_descriptor()

    @staticmethod
    def DupFd(fd: int) -> NoReturn:  # noqa: N802 - multiprocessing's name
        """Refuse a descriptor."""
        del fd
        refuse_descriptor()


LEAVING = _Leaving()
