"""Brings the ranks of one job to life, watches them, and sees to it that they end together.

Layer: launch. Runs in a process of its own that has one thread and never computes: the zygote, or
the shell command. It introduces ranks to each other when they first want to talk, but no message
of theirs passes through it.

How a run ends early: the first rank that failed or died is the *cause*; the others are told
(``abort``), what blocks them raises PeerLostError, and they have a grace time for their ``finally``
clauses. Each answers ``ended`` once it is out of the run; who has not by then is killed. When
everyone has ended or is dead the run is *settled*: in a World the dead are replaced, and the driver
is told the cause. Whatever else goes wrong meanwhile is a consequence and is not reported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import describe_exitcode
from klyng_mp.launch.control import GRACE_SECONDS, Cause
from klyng_mp.launch.crew import Crew
from klyng_mp.launch.occupant import Occupant
from klyng_mp.launch.processes import Processes
from klyng_mp.launch.watch import Watch
from klyng_mp.transports.shm import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from klyng_mp.launch.launcher import Body, Launcher
    from klyng_mp.launch.loop import Loop, Timer
    from klyng_mp.launch.output import Output
    from klyng_mp.launch.spec import RankSpec

__all__ = ["Owner", "Supervisor", "signal_group"]


class Owner:
    """Whom a supervisor answers to; the shell command or a driver's job overrides what it needs.

    Attributes:
        serve: whether the ranks serve a driver, run after run, and are replaced when they die; else they
            run one program.
    """

    serve = False

    def born(self, occupants: list[Occupant], sockets: list[socket.socket]) -> None:
        """Ranks came to life; ``sockets`` lead to them where the job has a driver."""

    def catch_up(self) -> None:
        """Read what the driver has said until now, so that ``Supervisor.run`` is the run that goes on."""

    def settled(self, run: int, cause: Cause) -> None:
        """A run that was ended early is over, and the dead have been replaced."""

    def reported(self, occupant: Occupant, report: tuple[Any, ...]) -> None:
        """A rank's program has come to its end; ``report`` balances its messages."""

    def caused(self, run: int, cause: Cause) -> None:
        """A run is being ended early, for the first reason that was seen here."""

    def parted(self, rank: int, incarnation: int, what: str, *, orderly: bool) -> None:
        """A rank's process has ended, or its connections have been lost."""

    def reach_out(self, kind: str, rank: int, *words: Any) -> None:
        """A rank wants something of another host's: "dial" or "relay"; ``rank`` is the other's."""

    def launched(self, serial: int, body: Body) -> None:
        """A process was started."""

    def unlaunched(self, serial: int, reason: str) -> None:
        """A process could not be started."""

    def arrived(self, occupant: Occupant, run: int, to_driver: Sequence[socket.socket]) -> None:
        """A process has come to a place.

        Args:
            occupant: the process.
            run: that of its contexts.
            to_driver: the driver's end of a stream to it, where the driver is on this host; still the caller's.
        """

    def exited(self, serial: int, exitcode: int) -> None:
        """A process has ended that has no pipe to tell it."""

    def left(self, serial: int, data: bytes) -> None:
        """A process has ended, and has left this."""

    def refilled(self) -> None:
        """All places are filled by ranks again."""

    def when_written(self, action: Callable[[], None]) -> None:
        """Do something as soon as all output until now has been written."""

    def unlaunchable(self, reason: str) -> None:
        """Ranks could not be started at all; those that were are being killed."""

    def all_gone(self) -> None:
        """No process of the job is left."""


class Supervisor(Crew):
    """The ranks of one job. One thread, driven by ``loop``."""

    def __init__(
        self, loop: Loop, launcher: Launcher, spec: RankSpec, output: Output, owner: Owner, *, stdin: int
    ) -> None:
        super().__init__(loop, spec, output)
        self._launcher = launcher
        self._owner = owner
        self._stdin = stdin
        self._serve = owner.serve
        self._closing = False  # the ranks are expected to end by themselves
        self._killed = False
        self._gone = False
        self._refilling = False
        self._timer: Timer | None = None
        self.cause: Cause | None = None
        self.run = 1
        self.watch = Watch(self, loop, owner.catch_up)
        self.processes = Processes(self, launcher, spec, owner)

    # Life

    def start(self, ranks: Iterable[int] | None = None) -> None:
        """Bring ranks to life (by default all), each as the next occupant of its place."""
        ranks = self._spec.share if ranks is None else list(ranks)
        for rank in ranks:  # all at once, since each is told of all the others
            self._incarnations[rank] = self._incarnations.get(rank, 0) + 1
        born, sockets = [], []
        try:
            if self._segment is None and self._spec.shares_memory:
                self._segment = Segment(self._spec.size)
            for rank in ranks:
                occupant, to_driver = self._launch(rank)
                self.occupants[rank] = occupant
                born.append(occupant)
                sockets.extend(to_driver)
        except (OSError, ValueError) as error:  # no more processes or descriptors; surroundings that cannot be
            self._owner.unlaunchable(f"rank {rank}: {error}")
            self.kill()
            self._tell_if_gone()
        else:
            self._owner.born(born, sockets)
            if self._spec.network is None:  # who waits for whom on several hosts, none of their supervisors knows
                self.watch.start()
        for ours in sockets:
            ours.close()

    def _launch(self, rank: int) -> tuple[Occupant, list[socket.socket]]:
        self.watch.stack_file()
        body = self._launcher.launch(self._spec)
        try:
            driver = list(socket.socketpair()) if self._serve and not self._has_far_driver else []
        except OSError:
            body.dismiss()
            raise
        occupant = Occupant(rank, self._incarnations[rank], body)
        stdin = (self._stdin,) if rank == 0 else ()
        self.tell_place(occupant, [sock.fileno() for sock in driver[1:]], stdin)
        for theirs in driver[1:]:
            theirs.close()
        self.look_after(occupant, rank)
        return occupant, driver[:1]

    @property
    def _has_far_driver(self) -> bool:
        network = self._spec.network
        return network is not None and network.far_driver

    def retire(self, occupant: Occupant) -> None:
        """Have a rank that has nothing to do end: a process is to have its place."""
        if not occupant.retired:
            occupant.retired = True
            self.tell(occupant, "retire")
            self._loop.call_later(GRACE_SECONDS, lambda: _kill([occupant] if occupant.alive else []))

    def occupy(self, occupant: Occupant) -> None:
        """Let a process take a place whose former occupant is gone."""
        rank = occupant.rank
        occupant.incarnation = self._incarnations[rank] = self._incarnations.get(rank, 0) + 1
        self.occupants[rank] = occupant
        self._announce([rank])

    def _reap(self, occupant: Occupant, number: int) -> None:
        self._hear(occupant)  # its last words came before its end
        if not occupant.orderly:  # else what it left running in the background, it left on purpose
            _kill_group(occupant.body.pid)  # while the zombie still guards the group's number
        for fd in (occupant.body.pidfd, occupant.channel.fileno()):
            self._loop.unregister(fd)
        occupant.exitcode = occupant.body.lay_to_rest()
        stderr = self._output.detach(number)
        if occupant.process is not None or occupant.retired:
            self.processes.ended(occupant, occupant.exitcode)
            self._refill()
            self._tell_if_gone()
        else:
            self._after_end(occupant, occupant.exitcode, stderr)
        self.watch.left(occupant)  # when the cause is known: those that wait for it are no deadlock

    def _after_end(self, occupant: Occupant, exitcode: int, stderr: str) -> None:
        what = describe_exitcode(exitcode)
        self._owner.catch_up()
        expected = self._killed or (self._closing and occupant.orderly)
        if not expected:
            self.tell_end(occupant.rank, occupant.incarnation, what, orderly=occupant.orderly)
            if not occupant.ready:
                self.end_run(Cause("stillborn", occupant.rank, occupant.unfit or f"it {what}", stderr, exitcode))
            elif not occupant.orderly or exitcode:
                kind = "exited" if occupant.orderly else "died"
                self.end_run(Cause(kind, occupant.rank, what, stderr, exitcode))
            # After the cause: who fails on another host since it hears of this end is none.
            self._owner.parted(occupant.rank, occupant.incarnation, what, orderly=occupant.orderly)
        self._settle()
        self._tell_if_gone()

    def _tell_if_gone(self) -> None:
        if self.processes.places and not self._closing:
            return  # whoever has had all of them: there may be more, or ranks again
        if not self._gone and not any(self.living()) and not self.processes.living:
            self._gone = True
            self.watch.close()
            if self._segment is not None:
                self._segment.close()
            self._owner.all_gone()

    @property
    def ending(self) -> bool:
        """Whether nothing is to be brought to life any more."""
        return self._closing

    # Talking

    def _obey(self, occupant: Occupant, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        if kind == "connect":
            self._introduce(occupant, rest[0], fds[0])
        elif kind == "ring" and self._segment is not None:
            self._segment.ring(rest[0])
            if occupant.asks_first(rest[0]):
                self.tell(occupant, "bell", rest[0], fds=[self._segment.bells[rest[0]]])
        elif kind in {"dial", "relay"} and not self.is_here(rest[0]):
            self._owner.reach_out(kind, rest[0], occupant.rank, *rest[1:])
        elif kind in {"relay", "mail"}:
            self._pass_on(occupant, kind, *rest)
        elif kind == "lost":
            self._explain_loss(occupant, *rest)
        elif kind == "failed":
            run, summary, traceback = rest
            self._owner.catch_up()
            if run == self.run:
                self.end_run(Cause("failed", occupant.rank, summary, traceback))
        elif kind == "ended":
            occupant.ended_run = rest[0]
            self._settle()
        elif kind == "state":
            self.watch.answered(occupant, *rest)
        elif kind == "goodbye":
            occupant.orderly = True
            occupant.ended_run = self.run
            self.watch.left(occupant, *rest[0][:1])
            self._owner.reported(occupant, rest[0])
        else:
            occupant.take_note(kind, *rest, *fds)

    def _pass_on(self, occupant: Occupant, kind: str, rank: int, *words: Any) -> None:
        """Hand what one process has for another to it, now or when it has come."""
        if kind == "mail":
            self.processes.post(occupant, rank, *words)
        else:
            self.tell_rank(rank, "relayed", occupant.rank, *words)

    # Ending

    def end_run(self, cause: Cause, *, grace: float = GRACE_SECONDS, signum: int | None = None) -> None:
        """End the current run early, unless it is ending already: then only ``grace`` may shorten."""
        if self.cause is None:
            self.cause = cause
            self._owner.caused(self.run, cause)
            for occupant in self.servers():
                if signum is not None:
                    signal_group(occupant, signum)
                self.tell(occupant, "abort", self.run, cause.rank, cause.phrase())
        elif grace >= GRACE_SECONDS:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(grace, self._kill_unfinished)
        self._settle()

    def _kill_unfinished(self) -> None:
        _kill([occupant for occupant in self.servers() if not self._out_of_run(occupant)])

    def _settle(self) -> None:
        if self.cause is None or not all(map(self._out_of_run, self.servers())):
            return
        if self._timer is not None:
            self._timer.cancel()
        cause, run = self.cause, self.run
        if self._serve:
            self.cause = None
            self.run += 1
            if not self._closing and cause.kind != "stillborn":
                self._replace_dead()
        if not self._gone:
            self._owner.settled(run, cause)

    def _out_of_run(self, occupant: Occupant) -> bool:
        """Whether a living rank serves on, rather than still being in the run (or the program)."""
        return self._serve and occupant.ended_run >= self.run

    def _replace_dead(self) -> None:
        vacant = self.processes.places
        dead = [who.rank for who in self.occupants.values() if not who.alive and who.rank not in vacant]
        self._replace(dead)

    def _replace(self, ranks: list[int]) -> None:
        self.start(ranks)
        self._announce(ranks)

    def refill(self) -> None:
        """Bring ranks to life in the places that processes have left, at once or when those who gave way have ended."""
        self._refilling = not self._closing
        self._refill()

    def _refill(self) -> None:
        if self._refilling and not any(occupant.retired for occupant in self.living()):
            self._refilling = False
            self.processes.places.clear()
            self._replace([occupant.rank for occupant in self.occupants.values() if not occupant.alive])
            self._owner.refilled()

    def finish_run(self, run: int) -> None:
        """Take note that a run is over for the driver; one that is being ended goes on until it is settled."""
        if self.cause is None:
            self.run = max(self.run, run + 1)

    def close(self) -> None:
        """Expect the ranks to end by themselves from now on."""
        self._closing = True
        self.watch.stop()
        self._tell_if_gone()

    def kill(self) -> None:
        """End every rank at once."""
        self._closing = self._killed = True
        self.watch.stop()
        _kill([*self.living(), *self.processes.living.values()])
        self._tell_if_gone()


def _kill_group(pid: int) -> None:
    # It may have died before it had a group, or was the last of it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill(occupants: list[Occupant]) -> None:
    for occupant in occupants:
        signal_group(occupant, signal.SIGKILL)


def signal_group(occupant: Occupant, signum: int) -> None:
    """Send a signal to a rank and what it started."""
    try:
        os.killpg(occupant.body.pid, signum)
    except (ProcessLookupError, PermissionError):
        os.kill(occupant.body.pid, signum)  # it has no group of its own yet; not reaped, so the number is its
