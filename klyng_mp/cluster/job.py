"""The job of a World whose ranks MPI has started.

Layer: cluster. The launcher is one process of this one; it starts the ranks, wherever it likes, and ends with them. MPI
does not go on without one of its ranks: a run that fails, is cancelled, or loses a rank, ends all of them, and the next
run starts others. So does a process that is killed, since a process here is a guest in a rank.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from klyng_mp.cluster.book import GuestBook
from klyng_mp.cluster.door import Door
from klyng_mp.cluster.ear import Ear
from klyng_mp.cluster.server import INVITATION, PROCESS, SESSION, SIGNAL, TOLD, Description
from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, LaunchError, WorldError, describe_exitcode
from klyng_mp.launch.control import CLOSE, Cause
from klyng_mp.launch.fixed import FixedJob
from klyng_mp.launch.job import JOBS, flush_standard_streams
from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.cluster.door import Invitation
    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.driver import Order
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.transports.contract import Sink
    from klyng_mp.transports.secure import SecureSocket
    from klyng_mp.wire.frames import Message

__all__ = ["MpiJob"]

_PATIENCE_SECONDS = 5.0  # for a launcher to end its ranks, before it is killed


class MpiJob(FixedJob):
    """Ranks that a launcher of MPI starts; see `Job`.

    Args:
        spec: what the ranks are to be.
        launcher: the words of the command that starts them, with ``{n}`` for their number.

    Raises:
        LaunchError: there is no such command; nothing is left.
    """

    is_spread = True

    def __init__(self, spec: RankSpec, launcher: Sequence[str]) -> None:
        super().__init__(spec)
        self._incarnations = dict.fromkeys(range(spec.size), 0)  # a bare pickle through MPI can name no other
        self._codec = Codec(main_by_reference=False)
        self._launcher = launcher[0]
        self._here: dict[int, tuple[str, int]] = {}  # host and process number, by rank
        self._run = self._session = 0
        self._guests = GuestBook()
        self._first_lost: int | None = None
        self._ends = False  # it is to end, so that its end is no news
        self._is_killed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self.endpoint.on_lost = self._lost
        self._door = Door(spec.size, self._describe, self._come)
        try:
            self._start([word.replace("{n}", str(spec.size)) for word in launcher])
        except BaseException:
            self.dispose()
            raise
        JOBS.add(self)

    def _start(self, launcher: list[str]) -> None:
        flush_standard_streams()
        command = [*launcher, sys.executable, "-m", "klyng_mp.cluster"]
        environment = {**self.spec.environment, INVITATION: self._door.invitation.pack()}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, cwd=self.spec.cwd, env=environment, start_new_session=True
            )
        except OSError as error:
            raise LaunchError(
                f"{launcher[0]} could not be started: {error.strerror}; give launcher= the command that starts n "
                "processes of MPI, for instance ['mpiexec', '-n', '{n}']"
            ) from None
        self._pidfd = os.pidfd_open(self._process.pid)
        self.endpoint.watch(self._pidfd, self._ended)

    def _describe(self, invitations: list[Invitation]) -> bytes:
        return pickle.dumps(Description(self.spec, self._launcher, invitations))

    def host_of(self, rank: int) -> str:
        """See `Line.host_of`."""
        return self._here[rank][0] if rank in self._here else super().host_of(rank)

    # -- runs

    def submit(self, run: int | str, encoded: tuple[int, bytes, list[Any]], ranks: Sequence[int] | None = None) -> None:
        """See `Line.submit`."""
        if isinstance(run, int):
            self._run = run
        super().submit(run, encoded, ranks)

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """See `Job.end_run`: the ranks end with it."""
        del grace, signum
        self._settle(run, Cause(wish, None, phrase))

    # -- processes

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """See `Job.start_process`: it becomes the guest of a rank."""
        endpoint = self.endpoint
        endpoint.attend()  # whoever waits for its end waits at the pipe
        self.wait(lambda: order.rank in self._here, NEVER, f"starting {order.name}")
        contents = [mmap.mmap(fd, 0, access=mmap.ACCESS_READ) for fd in (task, *fds)]
        with endpoint.lock:
            if self.lost is not None or self.closed:
                raise self.lost or ClosedError(f"the World has come to its end, so {order.name} cannot be started")
            if order.run != self._session:
                self._session = order.run
                self.submit(SESSION, self._codec.encode(order.run))
            serial = self._guests.enter(order, exit_pipe)
            code, head, _ = self._codec.encode(serial)
            self.submit(PROCESS, (code, head, contents), [order.rank])
        self.has_started = True
        return serial, self._here[order.rank][1], None

    def signal_process(self, serial: int, signum: int) -> None:
        """See `Job.signal_process`: SIGKILL ends all ranks."""
        with self.endpoint.lock:
            for number, name, rank in self._guests.find(serial):
                if signum == signal.SIGKILL:
                    self._give_up(f"the ranks were ended, as {name} was killed, the guest of rank {rank}")
                elif self.lost is None and not self.closed:
                    self.submit(SIGNAL, self._codec.encode((number, int(signum))), [rank])

    def open_channel(self, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        """See `Job.open_channel`."""
        self._door.open_channel(rank, number, lambda sock: opened(sock, ""))

    # -- what comes, with the endpoint's lock held

    def _sink(self) -> Sink:
        return Ear(self.endpoint, TOLD, self._hear)

    def _hear(self, message: Message) -> None:
        rank = message.source
        kind, *record = self._codec.decode(message.code, message.head, message.buffers)
        if kind == "here":
            host, pid = record
            self._here[rank] = host, pid
        elif kind == "ended":
            serial, exitcode = record
            self._guests.leave(serial, None if self._is_killed else exitcode)
        elif kind == "failed":
            run, summary, text = record
            self._settle(run, Cause("failed", rank, summary, text))
        elif kind == "deadlock":
            run, text, cycle = record
            cause = Cause("deadlock", None, "waits, too, or has ended", text)
            cause.cycle = cycle
            self._settle(run, cause)
        self.endpoint.room.notify()

    def _settle(self, run: int, cause: Cause) -> None:
        with self.endpoint.lock:
            self.settled.setdefault(run, cause)
            self._give_up(f"the ranks were ended with run {run}, which {cause.phrase()}")

    def _give_up(self, why: str) -> None:
        self.lost = self.lost or WorldError(why)
        self._end()

    def _end(self) -> None:
        """Have the launcher end all ranks, and itself."""
        self._ends = self._is_killed = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def _come(self, rank: int, sock: SecureSocket) -> None:
        with self.endpoint.lock:
            if self._ends or self.closed:
                sock.close()
            else:
                self._welcome(rank, 0, sock)

    def _lost(self, peer: int, _reason: str) -> None:
        if self._first_lost is None:
            self._first_lost = peer

    def _ended(self, _events: int) -> None:
        """Take note that the launcher has ended, and so have the ranks."""
        assert self._process is not None  # noqa: S101 - it is watched
        code = self._process.wait()
        self.endpoint.unwatch(self._pidfd)
        self.closed = True
        if not self._ends and self.lost is None:
            self.lost = self._describe_end(f"{self._launcher} {describe_exitcode(code)}")
            cause = Cause("died", None, str(self.lost))
            cause.error = self.lost
            self.settled.setdefault(self._run, cause)
        self._guests.close()

    def _describe_end(self, how: str) -> WorldError:
        if len(self._here) < self.spec.size and self._first_lost is None:
            return LaunchError(f"the ranks could not be started: {how}, and what it said is on standard error")
        who = "its ranks have ended" if self._first_lost is None else f"rank {self._first_lost} has died"
        return WorldError(f"{who}, and with it the World, as MPI has it: {how}")

    # -- the rest of a job

    def report(self, deadline: Deadline) -> list[RankState]:
        """See `Job.report`: nothing is known of single ranks."""
        del deadline
        return []

    def render(self, deadline: Deadline) -> str:
        """See `Job.render`."""
        del deadline
        return f"  {self._launcher} has started the ranks: kill -USR1 of one writes what it does to its standard error"

    def show_report(self) -> None:
        """See `Job.show_report`: there is nothing to show."""

    def close(self) -> None:
        """See `Job.close`."""
        self._ends = True
        self.submit(CLOSE, (0, b"", []))

    def kill(self) -> None:
        """See `Job.kill`."""
        self._end()

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""
        with suppress(ClosedError):  # whose endpoint is of no use any more is ended by `dispose`
            self.endpoint.wait(lambda: self.closed, deadline, doing)

    def dispose(self) -> None:
        """See `Job.dispose`."""
        JOBS.discard(self)
        self._door.close()
        self._end()
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        with self.endpoint.lock:
            self._guests.close()
        self.endpoint.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def forget(self) -> None:
        """See `Job.forget`."""
        self._door.abandon()
        self._process = None
        self._guests.close()
