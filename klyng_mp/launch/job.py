"""A job of local ranks as its driver sees it: started, spoken to, and ended.

Layer: launch. The driver owns the channel; its closing, by whatever end of the driver, ends the job.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, LaunchError, WorldError
from klyng_mp.launch.channel import Channel, reserve_standard_fds
from klyng_mp.launch.control import CLOSE
from klyng_mp.launch.driver import Job, write_output
from klyng_mp.launch.zygotes import ZygoteProcess, forget_zygotes, reap, stop_zygotes, zygote_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.driver import Order
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState

__all__ = ["JOBS", "PASSED_ON", "LocalJob", "pass_on_interrupt", "report_on_signal"]


class LocalJob(Job):
    """The ranks of one World on this machine; see `Job` for the rest of its attributes.

    Args:
        spec: what the ranks are to be.
        method: "zygote", "fork", "spawn" or "forkserver".
        preload: modules that the zygote imports before it forks.
        label: whether lines of output begin with their rank.

    Raises:
        LaunchError: the zygote could not be started, or refuses the preload; nothing is left.

    Attributes:
        has_started: whether processes were started from it, which the end of this process is to wait for.
    """

    def __init__(self, spec: RankSpec, method: str, preload: Sequence[str], *, label: bool) -> None:
        reserve_standard_fds()
        super().__init__(spec)
        self.has_started = False
        self._trouble: LaunchError | None = None
        self._asked = 0
        self._answers: dict[int, tuple[list[Any], list[int]]] = {}
        self._unwanted: set[int] = set()  # questions whose answers nobody waits for any more
        self._forked: int | None = None
        self._zygote: ZygoteProcess | None = None
        try:
            self._channel, theirs = Channel.pair()
        except OSError:
            self.endpoint.close()
            raise
        try:
            with theirs:
                self._start(theirs.fileno(), method, preload, label=label)
            self.endpoint.watch(self._channel.fileno(), self._hear)
        except BaseException:
            self.dispose()
            raise
        JOBS.add(self)

    def _start(self, fd: int, method: str, preload: Sequence[str], *, label: bool) -> None:
        flush_standard_streams()
        stdin = 0 if _is_real(sys.stdin, sys.__stdin__, 0) else os.open(os.devnull, os.O_RDONLY)
        outputs = [
            number if _is_real(stream, original, number) else None
            for number, stream, original in ((1, sys.stdout, sys.__stdout__), (2, sys.stderr, sys.__stderr__))
        ]
        self.forwards_output = None in outputs
        try:
            if method == "fork":
                self._fork(fd, stdin, outputs, label=label)
            else:
                fds = [fd, stdin, *(number for number in outputs if number is not None)]
                has = [number is not None for number in outputs]
                self._zygote = zygote_for(tuple(preload))
                self._zygote.channel.send_now("job", method, self.spec, label, *has, fds=fds)
        finally:
            if stdin:
                os.close(stdin)

    def _fork(self, fd: int, stdin: int, outputs: list[int | None], *, label: bool) -> None:
        pid = os.fork()
        if pid:
            self._forked = pid
            return
        from klyng_mp.launch.zygote import serve_forked_job  # noqa: PLC0415 - only a driver that forks needs it

        try:
            self.forget()
            self.spec.inherited_fds = {int(name) for name in os.listdir("/proc/self/fd")} - {fd}
            own = [None if number is None else os.dup(number) for number in (stdin, *outputs)]
            serve_forked_job(fd, self.spec, (own[0] or 0, own[1], own[2]), label=label)
        except BaseException:  # noqa: BLE001 - the last frame of this process: nobody else can tell of it
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)

    # Asking

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """See `Job.end_run`."""
        self._channel.send_now("end", run, wish, None, phrase, grace, signum)

    def fence(self, run: int) -> None:
        """See `Job.fence`."""
        self._channel.send_now("fence", run)

    def over(self, run: int) -> None:
        """See `Job.over`."""
        self._channel.send_now("over", run)

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """See `Job.start_process`."""
        (serial, pid, wrong), pidfds = self.ask(
            "start", *order, fds=[task, exit_pipe, *fds], deadline=NEVER, doing="Process.start()"
        )
        if wrong:
            raise LaunchError(f"{order.name} could not be started: {wrong}")
        self.has_started = True
        return serial, pid, pidfds[0]

    def signal_process(self, serial: int, signum: int) -> None:
        """See `Job.signal_process`."""
        with self.endpoint.lock:
            self._channel.send_now("signal", serial, signum)

    def refill(self, run: int, *, renew: bool) -> None:
        """See `Job.refill`."""
        self.ask("refill", run, renew, deadline=NEVER, doing="bringing ranks back to life")

    def flush(self) -> None:
        """See `Job.flush`."""
        self.ask("flush", deadline=NEVER, doing="Process.join()")

    def ask(
        self, kind: str, *record: Any, fds: Sequence[int] = (), deadline: Deadline, doing: str
    ) -> tuple[list[Any], list[int]]:
        """Ask the supervisor, and return its answer and the descriptors that came with it.

        Raises:
            DeadlineError: there was no answer in time.
            WorldError: the job is lost, or over.
        """
        with self.endpoint.lock:
            self._asked += 1
            question = self._asked
            self._channel.send_now(kind, question, *record, fds=fds)
        try:
            self.wait(lambda: question in self._answers, deadline, doing)
        except BaseException:
            with self.endpoint.lock:
                self._unwanted.add(question)
                _close_all(self._answers.pop(question, ([], []))[1])
                if kind == "start":  # nobody has it, then
                    self.signal_process(question, signal.SIGKILL)
            raise
        if question not in self._answers:
            raise self.lost or ClosedError("the ranks of this World have ended, so there is nothing to ask them")
        answer, came = self._answers.pop(question)
        return ([question, *answer] if kind == "start" else answer), came

    def report(self, deadline: Deadline) -> list[RankState]:
        """See `Job.report`."""
        (states,), _ = self.ask("report", deadline=deadline, doing="World.report()")
        return cast("list[RankState]", states)

    def show_report(self) -> None:
        """See `Job.show_report`."""
        # Not by way of the Channel, in which the signal may have come: the kernel takes such a packet whole.
        with suppress(OSError):  # full, or gone: who asks by a signal is not told
            self._channel.socket.send(Channel.pack("show"))

    def close(self) -> None:
        """See `Job.close`."""
        self._channel.send_now("close")
        self.submit(CLOSE, (0, b"", []))

    def kill(self) -> None:
        """See `Job.kill`."""
        if not self.closed and self.lost is None:
            self._channel.send_now("kill")

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """See `Job.wait_closed`."""
        try:
            self.wait(lambda: self.closed, deadline, doing)
        except ClosedError:  # the endpoint is of no use any more; the channel still is
            while not self.closed and self.lost is None:
                self._channel.wait_readable()
                self._hear(0)

    def dispose(self) -> None:
        """See `Job.dispose`."""
        JOBS.discard(self)
        self.endpoint.close()
        self._channel.close()
        if self._forked is not None:
            reap(self._forked)
            self._forked = None

    def forget(self) -> None:
        """See `Job.forget`."""
        self._forked = None
        self._channel.close()

    # Hearing; called with the endpoint's lock held

    def _hear(self, _events: int) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._obey(*received)
        except EOFError:
            self.endpoint.unwatch(self._channel.fileno())
            if not self.closed:
                self.lost = WorldError(
                    "the World is lost: the process that supervises its ranks is gone (was it killed?), and so are they"
                )
                if self._zygote is not None:
                    self._zygote.suspect = True

    def _obey(self, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        if kind == "born":
            for (rank, incarnation), fd in zip(rest[0], fds, strict=True):
                self._welcome(rank, incarnation, socket.socket(fileno=fd))
        elif kind == "settled":
            run, cause = rest
            self.settled[run] = cause
        elif kind == "fenced":
            self.fenced = rest[0]
        elif kind in {"answer", "launched", "refilled"}:
            if rest[0] in self._unwanted:
                self._unwanted.discard(rest[0])
                _close_all(fds)
            else:
                self._answers[rest[0]] = rest[1:], fds
        elif kind == "output":
            write_output(*rest)
        elif kind == "unlaunchable":
            self._trouble = LaunchError(f"ranks could not be started: {rest[0]}")
        elif kind == "closed":
            self.closed = True
            self.lost = self._trouble  # only now, when those that could be started have ended


PASSED_ON = "passed_on"  # what a KeyboardInterrupt has once processes were interrupted for it


def pass_on_interrupt() -> None:
    """At the end of a program that Ctrl-C has ended: interrupt its started processes, which it is going to wait for.

    Those have been interrupted already if it came while the program waited for one of them.
    """
    last = getattr(sys, "last_value", None)
    if isinstance(last, KeyboardInterrupt) and not hasattr(last, PASSED_ON):
        for job in list(JOBS):
            if job.has_started:
                job.signal_process(0, signal.SIGINT)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def report_on_signal() -> None:
    """Let SIGUSR1 show what the ranks of this process's Worlds do, unless the program has a handler of its own."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, _show_reports)


def _show_reports(_signum: int, _frame: object) -> None:
    for job in list(JOBS):
        job.show_report()


def flush_standard_streams() -> None:
    """Let what was printed until now come before what ranks will print."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _is_real(stream: TextIO | None, original: TextIO | None, number: int) -> bool:
    """Tell whether a standard stream is the process's own descriptor, and nobody has put another in its place."""
    if stream is None or stream is not original or stream.closed:
        return False
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


JOBS: weakref.WeakSet[Job] = weakref.WeakSet()
"""Those of this process: what a signal, its end and a fork of it concern."""


@atexit.register
def _end_all() -> None:
    if any(job.has_started for job in JOBS):
        sys.modules["multiprocessing.util"]._exit_function()  # noqa: SLF001 - joins processes; their World ends after that
    for job in list(JOBS):
        job.dispose()
    stop_zygotes()


def _forget_all() -> None:
    """In a forked child: close the parent's ends, or its death would not be seen while this child lives."""
    for job in list(JOBS):
        job.forget()
    JOBS.clear()
    forget_zygotes()


os.register_at_fork(after_in_child=_forget_all)
