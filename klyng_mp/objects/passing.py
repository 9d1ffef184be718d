"""Ends of pipes that are pickled for a process of which it is known which one it will be.

Layer: objects.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from klyng_mp.objects.pipes import PipeState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.objects.desk import Desk
    from klyng_mp.objects.orders import Process

__all__ = ["gather_ends", "note_passing", "promise_ends"]

End = tuple[int, int]  # the pipe's number, and 0 or 1
_thread = threading.local()


@contextmanager
def gather_ends() -> Iterator[list[End]]:
    """Have the ends noted that this thread pickles meanwhile, for `promise_ends`."""
    _thread.ends = ends = list[End]()
    try:
        yield ends
    finally:
        _thread.ends = None


def note_passing(number: int, end: int) -> bool:
    """Note an end if somebody has asked for that, and so will see to it."""
    ends: list[End] | None = getattr(_thread, "ends", None)
    if ends is None:
        return False
    ends.append((number, end))
    return True


@contextmanager
def promise_ends(desk: Desk, ends: list[End], formers: list[Process]) -> Iterator[None]:
    """Keep ends open until the next occupants of some places, after these, have come to them or ended.

    They are sent meanwhile; where that fails, nobody comes.
    """
    _promise(desk, ends, formers)
    try:
        yield
    except BaseException:
        _promise(desk, ends, formers, kept=False)
        raise


def _promise(desk: Desk, ends: list[End], formers: list[Process], *, kept: bool = True) -> None:
    with desk.endpoint.lock:
        for number, end in ends:
            state = desk.state(number)
            if isinstance(state, PipeState):
                for former in formers:
                    state.promise(end, former, kept=kept)
