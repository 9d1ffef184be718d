"""Ends of pipes that are on their way to another process.

Layer: objects. Pickling may be tried twice, first plainly and then by value, so what is pickled is noted, each
end once, and told when it is done. What is in a message between ranks is told of at once, and may be told of twice: who
waits for the end of such a pipe waits until its sender has ended, too.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from klyng_mp.objects.orders import What

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.objects.desk import Desk
    from klyng_mp.objects.orders import Process

__all__ = ["begin_passing", "end_passing", "gather_ends", "note_passing", "promise_ends"]

End = tuple[int, int]  # the pipe's number, and 0 or 1


class _Thread(threading.local):
    ends: dict[End, Desk] | None = None


_thread = _Thread()


@contextmanager
def gather_ends() -> Iterator[dict[End, Desk]]:
    """Have the ends noted that this thread pickles meanwhile, for `promise_ends`; each once, however often it tries."""
    before, _thread.ends = _thread.ends, {}
    try:
        yield _thread.ends
    finally:
        _thread.ends = before


def begin_passing() -> bool:
    """Have the ends noted that this thread pickles, for `end_passing`; return False where they are noted already."""
    if _thread.ends is not None:
        return False
    _thread.ends = {}
    return True


def end_passing(*, sent: bool) -> None:
    """Say that what was noted is on its way, if it was pickled."""
    ends, _thread.ends = _thread.ends, None
    for end, desk in ends.items() if ends and sent else ():
        _pass_end(desk, end)


def note_passing(desk: Desk, end: End) -> None:
    """Take note that an end is being pickled."""
    if _thread.ends is None:
        _pass_end(desk, end)
    else:
        _thread.ends[end] = desk


def _pass_end(desk: Desk, end: End) -> None:
    number, which = end
    with desk.endpoint.lock:
        desk.tell(number, What.PASS, (which, 0, 0))


@contextmanager
def promise_ends(ends: dict[End, Desk], formers: list[Process]) -> Iterator[None]:
    """Keep ends open until the next occupants of some places, after these, have come to them or ended.

    They are sent meanwhile; where that fails, nobody comes.
    """
    _promise(ends, formers)
    try:
        yield
    except BaseException:
        _promise(ends, formers, kept=False)
        raise


def _promise(ends: dict[End, Desk], formers: list[Process], *, kept: bool = True) -> None:
    if not ends:
        return
    from klyng_mp.objects.pipes import PipeState  # noqa: PLC0415 - most programs send none

    for (number, which), desk in ends.items():
        with desk.endpoint.lock:
            state = desk.state(number)
            if isinstance(state, PipeState):
                for former in formers:
                    state.promise(which, former, kept=kept)
