"""What is known of a pool as a whole: its jobs, its places, and what has become of it.

Layer: pooling; imports desk, encoding, jobs and pace. Knows no Pool, so a Pool that nobody needs can be collected.

Invariants: everything is read and changed with the desk's lock held, but for `state`.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import ClosedError
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.pooling.desk import Desk
    from klyng_mp.pooling.farways import Dialler
    from klyng_mp.pooling.jobs import Job
    from klyng_mp.pooling.tasks import Batch
    from klyng_mp.pooling.worker import WorkerOptions
    from klyng_mp.transports.contract import Ticket

__all__ = ["CLOSE", "RUN", "TERMINATE", "Books", "CrewOptions", "Hand"]

RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"


class CrewOptions:
    """What a crew is like.

    Attributes:
        processes: how many workers.
        make_process: makes a Process of a target and arguments.
        worker: what workers are told.
        retries: how often a task is done again whose worker died.
        forks: workers are forks of this process.
        world: dials workers that may be on other hosts; None: all are here.
    """

    __slots__ = ("forks", "make_process", "processes", "retries", "worker", "world")

    def __init__(
        self, processes: int, make_process: Callable[..., Any], worker: WorkerOptions, *, retries: int, forks: bool,
        world: Dialler | None = None,
    ) -> None:  # fmt: skip
        self.processes = processes
        self.make_process = make_process
        self.worker = worker
        self.retries = retries
        self.forks = forks
        self.world = world


class Hand:
    """One place of a crew, and the worker that fills it.

    Attributes:
        place: its number, from 1.
        incarnation: the how-manieth worker it is.
        process: the worker's, or None.
        is_ready: it has said so.
        is_gone: there is none now.
        is_dead: its process has ended, and its stream has not yet.
        sent: how many tasks were sent to it; the next one's number.
        seen: how many answers of it have been taken note of.
        answered: how many have come, where no ledger counts them.
        load: bytes of large buffers that it has ahead.
        spans: (number of the first task, batch) of those that are not answered.
        blocked: (ticket, tasks) of batches that are not in the ring yet.
        known: context of the job whose function it knows.
        since: when it began, or was last seen to have done something, in nanoseconds.
        pace: what was measured of it, where no ledger shows what it has ahead.
        is_recalled: it was told to give tasks back, and has not yet.
    """

    __slots__ = (
        "answered", "blocked", "incarnation", "is_dead", "is_gone", "is_ready", "is_recalled", "known", "load", "pace",
        "place", "process", "seen", "sent", "since", "spans",
    )  # fmt: skip

    def __init__(self, place: int) -> None:
        self.place = place
        self.incarnation = 0
        self.process: Any = None
        self.begin()

    def begin(self) -> None:
        """Know nothing of the worker that comes."""
        self.is_ready = False
        self.is_gone = self.is_dead = False
        self.sent = self.seen = self.answered = self.load = 0
        self.spans: deque[tuple[int, Batch]] = deque()
        self.blocked: deque[tuple[Ticket, int]] = deque()
        self.known = 0
        self.since = 0
        self.pace = Pace()
        self.is_recalled = False


class Books:
    """The state of a crew, which its parts share.

    Attributes:
        options: what it is like.
        state: RUN, CLOSE or TERMINATE.
        desk: who waits, and the lock.
        hands: the places.
        jobs: by context, those without all their results.
        supply: jobs whose tasks are not all taken.
        calls: results that are there, and whose callbacks are to be called.
        broken: why there are no workers, and never will be, or None.
        leaving: workers were told to leave.
        has_bars: some jobs have bars to show.
        transport, ledger: the way to the workers; no ledger where the core is not in use.
    """

    def __init__(self, options: CrewOptions, desk: Desk) -> None:
        self.options = options
        self.desk = desk
        self.state = RUN
        self.hands = [Hand(place) for place in range(1, options.processes + 1)]
        self.jobs: dict[int, Job] = {}
        self.supply: deque[Job] = deque()
        self.calls: deque[Any] = deque()
        self.broken: Exception | None = None
        self.leaving = False
        self.has_bars = False
        self.encoder = Encoder(forks=options.forks, leaves=options.world is not None)
        self.transport: Any = None
        self.ledger: Any = None
        self._pid = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that made the pool, not a fork of it."""
        return self._pid == os.getpid()

    def open(self, job: Job) -> None:
        """Enter a job.

        Its tasks first: who does this may be interrupted anywhere, and `finish` looks for them there.
        """
        if not job.ended or job.read is not None:
            self.supply.append(job)
        else:
            job.taken = True
        self.jobs[job.context] = job
        if self.ledger is not None and job.tally is not None:
            self.ledger.count(job.tally)
        if job.bar is not None:
            self.has_bars = True

    def finish(self, job: Job) -> None:
        """A job has all its results, or will have no more."""
        job.finished = True
        job.stop()
        if self.jobs.pop(job.context, None) is None:
            return
        if self.ledger is not None:
            self.ledger.forget(job.context)
        if not job.taken:
            job.taken = True
            self.supply.remove(job)
        job.result._complete(job)
        self.deliver(job.result)
        if self.state == CLOSE and not self.jobs:
            self.desk.kick()

    def deliver(self, result: Any) -> None:
        """Let the user see a result, after his callbacks if there are any."""
        if result._has_callbacks:
            self.calls.append(result)
            self.desk.kick()
        else:
            result._finish()

    def fail_all(self, error: Exception, *, call_back: bool) -> None:
        """No job will have any more results."""
        for job in list(self.jobs.values()):
            job.tally = None
            job.result._fail(error)
            if not call_back:
                job.result._callback = job.result._error_callback = None
            self.finish(job)
        self.desk.notify()


def closed_error() -> Exception:
    """Return why a result never comes."""
    return ClosedError("the Pool was terminated before this had a result")
