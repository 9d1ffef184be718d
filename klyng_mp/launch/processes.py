"""The processes that were started from one World, as the supervisor of its ranks sees them.

Layer: launch. Each does one thing and ends; it holds a place, or has no rank. Runs do not concern it: it is neither
told of their end nor replaced. Who started it learns of its end from a pipe, into which its exit code is written once
all that it has printed is written, too.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from typing import TYPE_CHECKING

from klyng_mp.errors import describe_exitcode
from klyng_mp.launch.exitpipe import ExitPipe
from klyng_mp.launch.occupant import Occupant, StartedProcess
from klyng_mp.launch.surroundings import NO_RANK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from klyng_mp.launch.launcher import Body, Launcher
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.supervisor import Owner, Supervisor

__all__ = ["MAIL_BYTES", "Processes"]

MAIL_BYTES = 1 << 20  # of a message that is kept for a process of another host: it goes there in pieces


class Processes:
    """Starts processes and sees to what comes of them.

    Attributes:
        living: those whose end has not been seen, by serial.
        places: those that processes hold, or have held since the last run.
    """

    def __init__(self, supervisor: Supervisor, launcher: Launcher, spec: RankSpec, owner: Owner) -> None:
        self._supervisor = supervisor
        self._launcher = launcher
        self._spec = spec
        self._owner = owner
        self._waiting: dict[int, Occupant] = {}  # for the end of who gives way to them, by rank
        self._mail: defaultdict[int, list[bytes]] = defaultdict(list)  # of senders that have ended, by rank
        self._pieces: defaultdict[int, bytearray] = defaultdict(bytearray)  # of what comes from other hosts, by sender
        self._far: dict[int, _Far] = {}  # the last process that came to each place of other hosts, by rank
        self._cut_off: dict[int, str] = {}  # what became of places whose host is lost, by rank
        self.living: dict[int, Occupant] = {}
        self.places: set[int] = set()

    def start(self, process: StartedProcess, rank: int) -> None:
        """Start a process in a place, or with NO_RANK in none."""
        supervisor, serial = self._supervisor, process.serial
        supervisor.finish_run(process.run - 1)
        body = self._launch(process)
        if body is None:
            return
        occupant = Occupant(rank, 0, body, process)
        self.living[serial] = occupant
        supervisor.look_after(occupant, -serial, process.name if rank == NO_RANK else str(rank))
        if rank == NO_RANK:
            self._tell_place(occupant)
        else:
            self._take(rank, occupant)
        self._owner.launched(serial, body)  # when the others have been told of it, where that can be

    def _take(self, rank: int, occupant: Occupant) -> None:
        self.places.add(rank)
        former = self._supervisor.occupants[rank]
        if former.alive:
            self._waiting[rank] = occupant
            self._supervisor.retire(former)
        else:
            self._fill(occupant)

    def _launch(self, process: StartedProcess) -> Body | None:
        reason = "its World has come to its end"
        try:
            if not self._supervisor.ending:
                self._supervisor.watch.stack_file()
                return self._launcher.launch(self._spec)
        except (OSError, ValueError) as error:  # no more processes or descriptors; surroundings that cannot be
            reason = str(error)
        _close([*([] if process.exit_pipe is None else [process.exit_pipe]), *process.task])
        self._owner.unlaunched(process.serial, reason)
        return None

    def signal(self, serial: int, signum: int) -> None:
        """Send a signal to a process, if it lives, or with 0 to all."""
        for occupant in self.living.values():
            if serial in (0, occupant.process.serial if occupant.process else 0):
                os.kill(occupant.body.pid, signum)

    def post(self, sender: Occupant, rank: int, mail: bytes) -> None:
        """Keep a message of a process that ends for the first one that comes to a place, even if all others have ended.

        Whether they have is a matter of how fast each is: who starts several in a row must not have to know.
        """
        if sender.process is None:
            return
        run = sender.process.run
        if self._supervisor.is_here(rank):
            self._keep(rank, run, mail)
            return
        for start in range(0, len(mail), MAIL_BYTES):
            more = start + MAIL_BYTES < len(mail)
            self._owner.reach_out("mail", rank, sender.rank, run, more, mail[start : start + MAIL_BYTES])

    def _keep(self, rank: int, run: int, mail: bytes) -> None:
        occupant = self._supervisor.occupants[rank]
        if not _has_come(occupant, run):
            self._mail[rank].append(mail)
        elif occupant.alive:
            self._supervisor.tell(occupant, "mail", mail)

    def far_mail(self, rank: int, sender: int, run: int, more: bool, piece: bytes) -> None:
        """Take a piece of a message that a process of another host has left for a place."""
        if rank in self._supervisor.occupants:
            self._pieces[sender] += piece
            if not more:
                self._keep(rank, run, bytes(self._pieces.pop(sender)))

    def end_session(self, run: int, *, renew: bool) -> None:
        """Give the places that processes have left back to runs, of which this number will not be one.

        With ``renew`` the ranks that serve are replaced, too.
        """
        self._supervisor.finish_run(run)
        self._mail.clear()
        self._pieces.clear()
        for occupant in self._supervisor.servers() if renew else ():
            self._supervisor.retire(occupant)
        self._supervisor.refill()

    def ended(self, occupant: Occupant, exitcode: int) -> None:
        """Take note that a process has ended, or who was to give way to one."""
        process = occupant.process
        if process is None:
            successor = self._waiting.pop(occupant.rank, None)
            if successor is not None:
                self._fill(successor)
                if successor.exitcode is not None:
                    self._depart(successor, successor.exitcode)
            return
        del self.living[process.serial]
        if self._waiting.get(occupant.rank) is not occupant:  # else it comes to its place first: others wait for it
            self._depart(occupant, exitcode)

    def _depart(self, occupant: Occupant, exitcode: int) -> None:
        process = occupant.process
        assert process is not None  # noqa: S101 - it is one
        _close(process.task)
        if self._supervisor.occupants.get(occupant.rank) is occupant:
            self._supervisor.note_end(occupant)
            for other in self._holders():
                self._tell_end(other, occupant)
            what = describe_exitcode(exitcode)
            self._owner.parted(occupant.rank, occupant.incarnation, what, orderly=occupant.orderly)
        estate = occupant.read_estate()
        self._owner.when_written(lambda: self._report(process, exitcode, estate))

    def _report(self, process: StartedProcess, exitcode: int, estate: bytes) -> None:
        if process.exit_pipe is None:
            if estate:
                self._owner.left(process.serial, estate)
            self._owner.exited(process.serial, exitcode)
        else:
            ExitPipe(process.exit_pipe).tell(exitcode)

    # Those of other hosts

    def far_arrived(self, rank: int, incarnation: int, run: int) -> None:
        """Take note that a process has come to a place of another host."""
        self._far[rank] = _Far(incarnation, run)
        self._supervisor.note_incarnation(rank, incarnation)
        for other in self._holders():
            if other.process is not None and other.process.run == run:
                self._supervisor.tell(other, "present", rank, incarnation)

    def far_ended(self, rank: int, incarnation: int, what: str, *, orderly: bool) -> None:
        """Take note that the occupant of a place of another host has ended."""
        far = self._far.get(rank)
        if far is not None and far.incarnation == incarnation:
            far.end = rank, incarnation, what, orderly
            for other in self._holders():
                self._supervisor.tell(other, "gone", *far.end)

    def host_lost(self, ranks: Iterable[int], what: str) -> None:
        """Take note that the host of these places is lost: whoever was there is gone, and nobody comes there."""
        for rank in ranks:
            self._cut_off[rank] = what
            self._pieces.pop(rank, None)
            for other in self._holders():
                self._supervisor.tell(other, "gone", rank, None, what, False)

    def host_back(self, ranks: Iterable[int]) -> None:
        """Take note that processes may come to these places again."""
        for rank in ranks:
            self._cut_off.pop(rank, None)
            self._far.pop(rank, None)

    def _holders(self) -> Iterable[Occupant]:
        """Return the living processes that have been told their places."""
        waiting = self._waiting.values()
        return [one for one in self.living.values() if one.rank != NO_RANK and one not in waiting]

    def _fill(self, occupant: Occupant) -> None:
        process = occupant.process
        assert process is not None  # noqa: S101 - ranks that serve are not started here
        self._supervisor.occupy(occupant)
        # In a World of this host the driver and its processes have nothing to say to each other.
        network = self._spec.network
        streams = list(socket.socketpair()) if network is not None and not network.far_driver else []
        if occupant.alive:
            self._tell_place(occupant, streams[1:])
        self._owner.arrived(occupant, process.run, streams[:1])
        for stream in streams:
            stream.close()
        if not occupant.alive:  # it was killed while its place was not free yet
            return
        for mail in self._mail.pop(occupant.rank, ()):
            self._supervisor.tell(occupant, "mail", mail)
        for former in self._supervisor.occupants.values():
            if not former.alive and _has_come(former, process.run):
                self._tell_end(occupant, former)
        for far in self._far.values():
            if far.run == process.run and far.end is not None:
                self._supervisor.tell(occupant, "gone", *far.end)
        for rank, what in self._cut_off.items():
            self._supervisor.tell(occupant, "gone", rank, None, what, False)

    def _tell_end(self, occupant: Occupant, former: Occupant) -> None:
        what = describe_exitcode(former.exitcode or 0)
        self._supervisor.tell(occupant, "gone", former.rank, former.incarnation, what, former.orderly)

    def _tell_place(self, occupant: Occupant, driver: Sequence[socket.socket] = ()) -> None:
        process = occupant.process
        assert process is not None  # noqa: S101 - it is one
        here = self._supervisor.occupants
        come = {who.rank for who in here.values() if who is occupant or _has_come(who, process.run)}
        come.update(rank for rank, far in self._far.items() if far.run == process.run)
        absent = tuple(rank for rank in range(self._spec.size) if rank not in come)
        start = process.serial, process.run, process.no_rank, absent, bool(driver)
        first = [*(stream.fileno() for stream in driver), *process.task]
        self._supervisor.tell_place(occupant, first, start=start)
        _close(process.task)


class _Far:
    """A process that has come to a place of another host, and how it ended, if it has."""

    __slots__ = ("end", "incarnation", "run")

    def __init__(self, incarnation: int, run: int) -> None:
        self.incarnation = incarnation
        self.run = run
        self.end: tuple[int, int, str, bool] | None = None


def _has_come(occupant: Occupant, run: int) -> bool:
    """Whether the place is, or was, a process's of this session."""
    return occupant.process is not None and occupant.process.run == run


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
