"""One run of green ranks: a function in each of them, until all have returned, one has failed, or none can go on.

Layer: green.
"""

from __future__ import annotations

import os
import time
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from klyng_mp.communicator.agreement import disagreement
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.current import finding
from klyng_mp.green.endpoint import Hall
from klyng_mp.green.scheduler import Scheduler
from klyng_mp.launch.control import Cause
from klyng_mp.launch.hangs import deadlock_of
from klyng_mp.launch.program import format_user_traceback, summarize
from klyng_mp.launch.state import ENDED, RUNNING, WAITING, RankState, users_line
from klyng_mp.wire.frames import make_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.green.endpoint import GreenEndpoint
    from klyng_mp.wire.codec import Codec, Encoded

__all__ = ["Play", "Rank", "rank_here"]

_MOST_UNCLAIMED = 3
_THROWS = 3  # of GreenletExit at who does not end by it


class Rank(greenlet):
    """The greenlet of one rank.

    Attributes:
        comm: what ``klyng_mp.comm()`` is in it.
        number: the rank.
        play: the run.
    """

    __slots__ = ("comm", "number", "play")

    def __init__(self, play: Play, number: int, comm: Communicator) -> None:
        super().__init__()
        self.play = play
        self.number = number
        self.comm = comm

    def run(self) -> None:
        """Do the rank's part."""
        self.play.perform(self)


class Play:
    """A run of green ranks of this process.

    Args:
        run: its number.
        size: how many ranks there are, also in other processes.
        numbers: of those that are here.
        codec: of their communicators.
        schedule: see `Scheduler`.

    Attributes:
        cause: why it ends early, or None.
        interrupt: a KeyboardInterrupt that came while a rank ran, or None.
        outcomes: what the ranks that are over have come to, encoded, by rank.
    """

    def __init__(self, run: int, size: int, numbers: Sequence[int], codec: Codec, schedule: int | None) -> None:
        self.run = run
        self.size = size
        self.numbers = numbers
        self.cause: Cause | None = None
        self.interrupt: KeyboardInterrupt | None = None
        self.outcomes: dict[int, Encoded] = {}
        self._codec = codec
        self._func: Callable[..., Any] = _nothing
        self._packed: Encoded | None = None
        self.scheduler = Scheduler(schedule)
        self.hall = Hall(self.scheduler, size)
        self.scheduler.mind_nappers(self._is_napping)
        self._ranks: list[Rank] = []

    def begin(self, func: Callable[..., Any], packed: Encoded | None) -> None:
        """Let all ranks begin, in the greenlet of whoever is going to drive them.

        Args:
            func: what each of them calls; it is one object for all, as any global is.
            packed: (args, kwargs), of which each rank has a copy; None where there are none.
        """
        self._func = func
        self._packed = packed
        members, context = range(self.size), make_context(self.run)
        greenlets: list[Any] = [None] * self.size
        for number in self.numbers:
            endpoint = self.hall.enter(number)
            comm = Communicator(endpoint, self._codec, context=context, rank=number, members=members)
            rank = greenlets[number] = Rank(self, number, comm)
            self._ranks.append(rank)
        self.scheduler.populate(greenlets, list(self.numbers))

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be driven."""
        return self.cause is not None or self.interrupt is not None or len(self.outcomes) == len(self.numbers)

    def drive(self, is_over: Callable[[], bool], deadline: Deadline) -> bool:
        """Let the ranks run until ``is_over()``, or they are; return False at the deadline."""
        with finding(_comm_here):
            return self.scheduler.drive(lambda: self.is_over or is_over(), deadline, self._get_stuck)

    def pass_interrupt_on(self) -> None:
        """Raise the KeyboardInterrupt that came while a rank ran, if one did."""
        if self.interrupt is not None:
            raise self.interrupt

    def see_out(self, phrase: str, rank: int | None, grace: float) -> None:
        """End all ranks that have not ended: blocked ones raise PeerLostError, and have a while for their ``finally``.

        Args:
            phrase: what they are told.
            rank: who is to blame.
            grace: seconds; afterwards GreenletExit is raised where they are.
        """
        with finding(_comm_here):
            for endpoint in self._endpoints():
                endpoint.abort(phrase, rank)
            self.scheduler.drain(time.monotonic() + grace)
            for _ in range(_THROWS):
                for one in self._ranks:
                    if not one.dead:
                        one.throw()
                self.scheduler.drain(time.monotonic() + grace)
        self.scheduler.clear()

    def unreceived(self, number: int) -> list[tuple[int, int | str]]:
        """Return (source, tag) of the messages that a rank has not received, oldest first."""
        endpoint = self.hall.endpoints[number]
        if endpoint is None:
            return []
        waiting = endpoint.unreceived(make_context(self.run), make_context(self.run + 1))
        return [(message.source, message.tag) for message in waiting]

    def leavers(self) -> list[int]:
        """Return the ranks that have left messages unreceived."""
        with_mail = (endpoint.number for endpoint in self._endpoints() if len(endpoint.mailbox))
        return [number for number in with_mail if self.unreceived(number)]

    def states(self) -> list[RankState]:
        """Return what each rank does now."""
        return [self._describe(rank) for rank in self._ranks]

    # -- in a rank

    def perform(self, rank: Rank) -> None:
        """Call the function in a rank, and keep what comes of it."""
        try:
            outcome = self._codec.encode(("ok", self._call(rank), ({}, 0, True)), names=("", "result", ""))
        except GreenletExit:  # it was seen out
            return
        except KeyboardInterrupt as error:
            self.interrupt = error
            return
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run ends by it
            if self.cause is None:
                self.cause = Cause("failed", rank.number, summarize(error), format_user_traceback(error))
                self.cause.error = error
            return
        rank.comm.endpoint.conclude(make_context(self.run), make_context(self.run + 1))
        self.outcomes[rank.number] = outcome

    def _call(self, rank: Rank) -> Any:
        args: tuple[Any, ...] = ()
        kwargs: dict[str, Any] = {}
        if self._packed is not None:
            code, head, buffers = self._packed
            args, kwargs = self._codec.decode(code, head, [bytearray(buffer) for buffer in buffers])
        try:
            value = self._func(*args, **kwargs)
            if type(value) is CoroutineType:
                value.close()
                raise TypeError(
                    "a green rank cannot run a coroutine: its event loop would keep all other ranks of the process "
                    "from running. Call send and recv without await, or make the World without green="
                )
        except SystemExit as error:
            if error.code:
                raise
            value = None
        comm = rank.comm
        if comm.call_log.made and not comm.closed:
            mismatch = disagreement(comm, comm.call_log.last, ask=True)
            if mismatch is not None:
                raise mismatch
        return value

    # -- inside

    def _endpoints(self) -> Iterable[GreenEndpoint]:
        return (endpoint for endpoint in self.hall.endpoints if endpoint is not None)

    def _is_napping(self, number: int) -> bool:
        endpoint = self.hall.endpoints[number]
        return endpoint is not None and not endpoint.waiters

    def _get_stuck(self) -> None:
        self.cause = deadlock_of(self.states())

    def _describe(self, rank: Rank) -> RankState:
        endpoint: Any = rank.comm.endpoint
        state = RankState(rank.number, os.getpid(), ENDED if rank.dead else RUNNING)
        waiters = endpoint.waiters
        if not waiters:
            return state
        waiter, deadline = waiters[0], waiters[0].deadline
        where, name = users_line(rank.gr_frame)
        waiting = self.unreceived(rank.number)
        return state._replace(
            phase=WAITING,
            call=waiter.call or f"{name}()",
            peers=waiter.peers,
            since=waiter.since,
            seconds=None if deadline.left() is None else deadline.seconds,
            where=where,
            wait=waiter.since,
            unclaimed=tuple(waiting[:_MOST_UNCLAIMED]),
            unclaimed_count=len(waiting),
        )


def _nothing() -> None:
    pass


def _comm_here() -> Communicator | None:
    """Return the communicator of the rank that runs, if one does."""
    here: Any = getcurrent()
    while here is not None and type(here) is not Rank:
        here = here.parent
    return None if here is None else here.comm


def rank_here() -> int | None:
    """Return which rank has its turn, or None."""
    number: int | None = getattr(getcurrent(), "number", None)
    return number
