"""What a rank does at a moment, as it says itself when its supervisor asks.

Layer: launch. A rank is asked over its channel and answers from the callback, so while it waits or moves messages;
one that computes does not answer. Nothing is prepared for the answer while nobody asks.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.launch.program import is_ours
from klyng_mp.wire.frames import DRIVER, make_context

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.communicator.waiters import Waiter

__all__ = [
    "ENDED",
    "IDLE",
    "RUNNING",
    "SILENT",
    "WAITING",
    "RankState",
    "describe_begin",
    "describe_idle",
    "describe_rank",
    "note_surroundings",
    "users_line",
]

WAITING = "waiting"  # in a call that others must help to end
RUNNING = "running"  # it answered, so it is between two moves of its messages
SILENT = "computing"  # it has not answered
ENDED = "ended"  # it has returned from the function of this run, or its program has come to its end
IDLE = "idle"  # it waits for the next run

_MOST_UNCLAIMED = 3
_own_threads = 1  # as the kernel counts them
_own_handlers: dict[int, object] = {}
_OURS = ("klyng_mp attendant", "klyng_mp connection")  # threads that only move messages


class RankState(NamedTuple):
    """What one rank does.

    Attributes:
        rank, pid: who it is.
        phase: one of the words above.
        call: what it waits in, as text: "recv(source=1, tag='x')".
        peers: the ranks that it waits for, all of them; None where any may help.
        since: when the wait began, by the monotonic clock, which is the host's.
        seconds: that the wait may last, or None for ever.
        where: the line of the user's file that made the call: "app.py:12 in main".
        wait: tells this wait from others of the rank.
        doubts: why it cannot be told whether the wait could end by something other than a message.
        steps: how many steps the collective calls have taken that it started, which go on while it waits.
        sent: how many messages of this run it sent to whom, those of collectives left out.
        received: how many it took or has in its mailbox.
        pending_bytes: what it has sent and nobody has taken yet.
        unclaimed: (source, tag) of the first messages in its mailbox that nobody asked for.
        unclaimed_count: how many there are.
        stack: where it computes, as far as it could be seen.
        holder: the name of the process that holds the place, where it is not a rank that serves runs.
        exchanged: how many messages went to each rank of another host, and came from it.
        begun: how many collectives of its transport's own it has begun.
        meets: the number of the one that it waits in, or 0.
    """

    rank: int
    pid: int
    phase: str
    call: str = ""
    peers: tuple[int, ...] | None = None
    since: float = 0.0
    seconds: float | None = None
    where: str = ""
    wait: float = 0.0
    doubts: tuple[str, ...] = ()
    steps: int = 0
    sent: dict[int, int] = {}  # noqa: RUF012 - nobody changes it
    received: int = 0
    pending_bytes: int = 0
    unclaimed: tuple[tuple[int, int | str], ...] = ()
    unclaimed_count: int = 0
    stack: str = ""
    holder: str = ""
    exchanged: dict[int, tuple[int, int]] = {}  # noqa: RUF012 - nobody changes it
    begun: int = 0
    meets: int = 0

    @property
    def is_stuck(self) -> bool:
        """Whether only a message can end its wait, and none of its own is on the way."""
        return self.phase == WAITING and self.seconds is None and not self.doubts and not self.pending_bytes


def describe_begin(rank: int) -> RankState:
    """Return the state of a rank that begins a run, or of one whose supervisor does not know yet which it is in."""
    return RankState(rank, os.getpid(), RUNNING)


def describe_idle(rank: int, sent: dict[int, int], pending_bytes: int, *, ended: bool) -> RankState:
    """Return the state of a rank that is in no run; ``ended`` if it was in the one that is asked for."""
    state = RankState(rank, os.getpid(), ENDED if ended else IDLE, sent=sent, pending_bytes=pending_bytes)
    threads = sys._current_frames()  # noqa: SLF001 - also those that module threading does not know
    return state._replace(doubts=_doubts(threads))  # a thread that the run has left can still send


def describe_rank(endpoint: Endpoint, run: int) -> RankState:
    """Return what this rank does in its run; called with the endpoint's lock held.

    All that has arrived is taken in first, so that a wait which it ends is none any more.
    """
    endpoint.take_in()
    sent = _between_ranks(endpoint.sent_counts())
    state = RankState(endpoint.number, os.getpid(), RUNNING, sent=sent, pending_bytes=endpoint.pending())
    waiter = _waiter_of(endpoint)
    frames = sys._current_frames()  # noqa: SLF001 - the only way to see another thread's
    if waiter is None or waiter.is_ready() or endpoint.has_duties:
        main = threading.main_thread().ident
        return state._replace(where=users_line(frames.get(main or 0))[0], doubts=_doubts(frames))
    where, name = users_line(frames.get(waiter.thread or threading.main_thread().ident or 0))
    deadline = waiter.deadline
    doubts = _doubts(frames)
    if endpoint.objects is not None and endpoint.objects.waits:
        doubts = (*doubts, "it waits for a shared object, which the driver may use, too")
    waiting = endpoint.unreceived(make_context(run), make_context(run + 1))
    return state._replace(
        phase=WAITING,
        call=waiter.call or f"{name}()",
        peers=waiter.peers,
        since=waiter.since,
        seconds=None if deadline.at == math.inf else deadline.seconds,
        where=where,
        wait=waiter.since,
        doubts=doubts,
        steps=endpoint.room.steps,
        received=endpoint.mailbox.taken(run) + len(waiting),
        unclaimed=tuple((message.source, message.tag) for message in waiting[:_MOST_UNCLAIMED]),
        unclaimed_count=len(waiting),
    )


def _between_ranks(sent: dict[int, int]) -> dict[int, int]:
    sent.pop(DRIVER, None)
    return sent


def _waiter_of(endpoint: Endpoint) -> Waiter | None:
    """Return the wait to show: the main thread's, if it waits."""
    waiters = endpoint.waiters
    main = threading.main_thread().ident
    return next((waiter for waiter in waiters if waiter.thread in (0, main)), waiters[0] if waiters else None)


def users_line(frame: FrameType | None) -> tuple[str, str]:
    """Return the innermost line of the user's code, and the name of our function that it called."""
    name = ""
    while frame is not None and is_ours(frame.f_code.co_filename):
        name = frame.f_code.co_name
        frame = frame.f_back
    if frame is None:
        return "", name
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}", name


# -- why one cannot tell -----------------------------------------------------------------------------------


def _doubts(frames: Mapping[int, object]) -> tuple[str, ...]:
    """Return what else in this process could send a message, or end a wait.

    Args:
        frames: what the threads do, by their identities.
    """
    doubts = []
    native_threads, caught = _seen_by_the_kernel()
    ours = sum(thread.ident in frames for thread in threading.enumerate() if thread.name.startswith(_OURS))
    threads = len(frames) - ours
    if threads > 1:
        doubts.append(f"it has {threads} threads")
    elif native_threads > _own_threads + ours and "numpy" not in sys.modules:  # NumPy's run no Python
        doubts.append(f"it has {native_threads} threads, not all of them Python's")
    if _has_running_loop():
        doubts.append("an asyncio loop runs in it")
    if any(signal.getitimer(which)[0] for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)):
        doubts.append("a timer will send it a signal")
    if handled := [_name_of(number) for number in caught if _is_handled(number)]:
        doubts.append(f"it handles {', '.join(handled)}")
    if children := _children():
        doubts.append(f"it has {children} child process{'es' if children > 1 else ''}")
    return tuple(doubts)


def note_surroundings() -> None:
    """Take note that the threads, and the handlers of signals, that are here now send no messages of the program's."""
    global _own_threads  # noqa: PLW0603 - a process has its surroundings once
    threads, caught = _seen_by_the_kernel()
    _own_threads = threads
    _own_handlers.update({number: signal.getsignal(number) for number in caught})


def _seen_by_the_kernel() -> tuple[int, list[int]]:
    """Return how many threads this process has, and the numbers of the signals that it does anything about."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    mask = int(fields["SigCgt"], 16)
    return int(fields["Threads"]), [number for number in range(1, signal.NSIG) if mask >> (number - 1) & 1]


def _is_handled(number: int) -> bool:
    """Tell whether the user's program has a handler in Python for a signal."""
    handler = signal.getsignal(number)
    return callable(handler) and handler is not signal.default_int_handler and handler is not _own_handlers.get(number)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of the real-time signals
        return f"signal {number}"


def _has_running_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - the other one raises


def _children() -> int:
    """Count the processes that this one has started and that still are there.

    Python's resource tracker, which only cleans up, is none.
    """
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    helpers = {None if tracker is None else tracker._resource_tracker._pid}  # noqa: SLF001 - nothing public has it
    children: list[int] = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                children += map(int, file.read().split())
        except FileNotFoundError:  # a thread that has just ended; its children are another's now
            continue
    return len([child for child in children if child not in helpers])
