"""The zygote: a clean process with one thread that ranks are forked from, and that supervises them.

Layer: launch. It has imported klyng_mp and what ``preload=`` names, and inherits nothing else of the
driver; it serves all Worlds of one driver that want the same preload. When the driver's end of the
channel closes, whatever the reason, it kills what is left and ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.launch import pending
from klyng_mp.launch.channel import FDS_PER_RECORD, Channel
from klyng_mp.launch.control import Cause
from klyng_mp.launch.hangs import render_report
from klyng_mp.launch.launcher import ForkLauncher, Launcher, SpareLauncher, SpawnLauncher
from klyng_mp.launch.listener import Listener
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.occupant import StartedProcess
from klyng_mp.launch.output import Output, Sink
from klyng_mp.launch.rank import rank_main
from klyng_mp.launch.spec import BLAS_VARIABLES, RankSpec
from klyng_mp.launch.supervisor import Owner, Supervisor
from klyng_mp.launch.surroundings import forget_parent, show_in_ps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.launcher import Body
    from klyng_mp.launch.loop import Timer
    from klyng_mp.launch.occupant import Occupant
    from klyng_mp.launch.processes import Processes
    from klyng_mp.launch.state import RankState
    from klyng_mp.launch.watch import Watch

__all__ = ["serve_forked_job", "zygote_main"]

_SPARE_SECONDS = 10.0  # how long bodies are kept for a World that may come
_SPARES_PER_CPU = 4  # so that the spares of a large World are no burden to a small machine


def _launchers() -> dict[str, Launcher]:
    """Return what makes ranks, by the ``method=`` of a World."""
    return {
        "zygote": SpareLauncher(rank_main),
        "forkserver": ForkLauncher(rank_main),
        "spawn": SpawnLauncher(),
    }


def zygote_main(channel_fd: int) -> NoReturn:
    """Be the zygote of the driver at the other end of the channel, in a fresh interpreter."""
    os.set_inheritable(channel_fd, False)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    for signum in (signal.SIGINT, signal.SIGUSR1):  # what they are for is the driver's
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a driver that ignores it would have it ignored here, too
    show_in_ps("klyng zygote")
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, "1"))
    _Zygote(Channel(socket.socket(fileno=channel_fd))).serve()
    os._exit(0)


def serve_forked_job(
    channel_fd: int, spec: RankSpec, targets: tuple[int, int | None, int | None], *, label: bool
) -> None:
    """Supervise one job in a process that was forked from its driver for this."""
    forget_parent()
    signal.set_wakeup_fd(-1)
    os.setsid()
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    loop = Loop()
    _allow_many_files()
    pending.share()
    channel = Channel(socket.socket(fileno=channel_fd))
    job = _Job(loop, channel, spec, targets, label=label, on_end=loop.stop)
    Listener(loop, os.getppid(), job.watches)
    job.start(ForkLauncher(rank_main))
    loop.run()


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Zygote:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = Loop()
        self._jobs: set[_Job] = set()
        self._driver_gone = False
        self._launchers = _launchers()
        self._dismissal: Timer | None = None
        _allow_many_files()
        pending.share()
        Listener(self._loop, os.getppid(), lambda: [watch for job in self._jobs for watch in job.watches()])
        self._loop.register(channel.fileno(), select.EPOLLIN, lambda _events: self._hear())

    def serve(self) -> None:
        gc.collect()
        gc.freeze()  # what is here already is not touched, and so not copied, by collections in ranks
        self._loop.run()

    def _hear(self) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._obey(*received)
        except EOFError:
            self._loop.unregister(self._channel.fileno())
            self._driver_gone = True
            for job in list(self._jobs):
                job.abandon()
            self._stop_if_done()

    def _obey(self, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        if kind == "preload":
            names, path = rest
            sys.path[:] = path
            self._channel.send("preloaded", _preload(names))
        elif kind == "job":
            method, spec, label, has_stdout, has_stderr = rest
            channel_fd, stdin, *outputs = fds
            stdout = outputs.pop(0) if has_stdout else None
            stderr = outputs.pop(0) if has_stderr else None
            channel, targets = Channel(socket.socket(fileno=channel_fd)), (stdin, stdout, stderr)
            job = _Job(self._loop, channel, spec, targets, label=label, on_end=lambda: self._forget(job, method))
            self._jobs.add(job)
            job.start(self._launchers[method])

    def _forget(self, job: _Job, method: str) -> None:
        self._jobs.discard(job)
        gc.collect()  # what is left of a job refers to itself, and an automatic collection is thousands of Worlds away
        if not self._driver_gone and method == "zygote":
            self._make_spares(job.spec)
        self._stop_if_done()

    def _make_spares(self, spec: RankSpec) -> None:
        """Get ready for another World like the last one, for a while."""
        spares = self._launchers["zygote"]
        assert isinstance(spares, SpareLauncher)  # noqa: S101 - made above
        spares.top_up(min(spec.size, _SPARES_PER_CPU * len(spec.affinity)), spec)
        if self._dismissal is not None:
            self._dismissal.cancel()
        self._dismissal = self._loop.call_later(_SPARE_SECONDS, spares.dismiss)

    def _stop_if_done(self) -> None:
        if self._driver_gone and not self._jobs:
            self._loop.stop()


def _preload(names: list[str]) -> str | None:
    """Import modules; return what is wrong with them, or None."""
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:  # noqa: BLE001 - the driver is told whatever it is
            return f"preload={name!r} cannot be imported:\n{traceback.format_exc()}"
        threads = len(os.listdir("/proc/self/task"))
        if threads > 1:
            known = ", ".join(repr(thread.name) for thread in threading.enumerate()[1:]) or "not Python's own"
            return (
                f"preload={name!r} leaves {threads - 1} thread(s) behind ({known}); a process with threads cannot be "
                "forked safely: import it in the function that runs"
            )
    gc.collect()
    gc.freeze()
    return None


class _Job(Owner):
    """One World's ranks, and the channel to its driver."""

    serve = True

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        spec: RankSpec,
        targets: tuple[int, int | None, int | None],
        *,
        label: bool,
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._channel = channel
        self.spec = spec
        self._stdin, stdout, stderr = targets
        self._sinks = [
            Sink(loop, fd) if fd is not None else Sink(loop, self._forwarder(name), is_full=self._is_backlogged)
            for name, fd in (("stdout", stdout), ("stderr", stderr))
        ]
        label_of = (lambda who: f"[{who}@{spec.host}] ") if label else None
        self._output = Output(loop, *self._sinks, label=label_of, prompt_rank=0 if os.isatty(self._stdin) else None)
        for sink in self._sinks:
            sink.on_empty = self._output_written
        self._supervisor: Supervisor | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._ended = False
        self._refill = 0  # who asked for it
        self.on_end = on_end
        loop.register(channel.fileno(), select.EPOLLIN, self._ready)

    def _is_backlogged(self) -> bool:
        return self._channel.backlogged

    def _forwarder(self, name: str) -> Callable[[bytes], None]:
        return lambda data: self._tell("output", name, data)

    def start(self, launcher: Launcher) -> None:
        """Bring the ranks to life."""
        sys.stdout.flush()
        if self.spec.network is not None:
            importlib.import_module("klyng_mp.objects.desk")  # once, and not in each rank
        self._supervisor = Supervisor(self._loop, launcher, self.spec, self._output, self, stdin=self._stdin)
        self._supervisor.start()

    def watches(self) -> list[Watch]:
        """Return what asks the ranks, if there are any."""
        return [] if self._supervisor is None else [self._supervisor.watch]

    def _show(self, states: list[RankState]) -> None:
        text = f"klyng_mp: World of {self.spec.size} ranks\n{render_report(states)}\n"
        self._sinks[1].write(self, text.encode())

    def abandon(self) -> None:
        """Kill the ranks; nobody wants to hear of them."""
        for sink in self._sinks:
            sink.discard()
        if self._supervisor is not None:
            self._supervisor.kill()
        self._output_written()

    def born(self, occupants: list[Occupant], sockets: list[socket.socket]) -> None:
        for low in range(0, len(occupants), FDS_PER_RECORD):
            who = [(occupant.rank, occupant.incarnation) for occupant in occupants[low : low + FDS_PER_RECORD]]
            self._tell("born", who, fds=[sock.fileno() for sock in sockets[low : low + FDS_PER_RECORD]])

    def settled(self, run: int, cause: Cause) -> None:
        self._output.drain_all()
        self._tell("settled", run, cause)  # news of a failure does not wait for a slow reader of the output
        if cause.kind == "stillborn" and self._supervisor is not None:
            self._supervisor.kill()

    def caused(self, run: int, cause: Cause) -> None:
        if self.spec.network is not None:
            self._tell("caused", run, cause)

    def parted(self, rank: int, incarnation: int, what: str, *, orderly: bool) -> None:
        if self.spec.network is not None:
            self._tell("parted", rank, incarnation, what, orderly)

    def reach_out(self, kind: str, rank: int, *words: Any) -> None:
        self._tell("out", kind, rank, list(words))

    def catch_up(self) -> None:
        if not self._ended:
            self._ready(select.EPOLLIN)

    def unlaunchable(self, reason: str) -> None:
        self._tell("unlaunchable", reason)

    def launched(self, serial: int, body: Body) -> None:
        self._tell("launched", serial, body.pid, "", fds=[body.pidfd])

    def unlaunched(self, serial: int, reason: str) -> None:
        self._tell("launched", serial, 0, reason)

    def exited(self, serial: int, exitcode: int) -> None:
        self._tell("exited", serial, exitcode)

    def left(self, serial: int, data: bytes) -> None:
        self._tell("left", serial, data)

    def arrived(self, occupant: Occupant, run: int, to_driver: Sequence[socket.socket]) -> None:
        if self.spec.network is not None:
            fds = [sock.fileno() for sock in to_driver]
            self._tell("arrived", occupant.rank, occupant.incarnation, run, fds=fds)

    def refilled(self) -> None:
        self._tell("refilled", self._refill)

    def when_written(self, action: Callable[[], None]) -> None:
        self._when_written(action)

    def all_gone(self) -> None:
        self._when_written(self._end)

    def _end(self) -> None:
        for sink in self._sinks:
            sink.close()
        os.close(self._stdin)
        self._tell("closed")
        self._ended = True
        self._leave_when_told()

    def _leave_when_told(self) -> None:
        if self._ended and not self._channel.blocked:
            self._ended = False
            self._loop.unregister(self._channel.fileno())
            self._channel.close()
            self.on_end()

    def _when_written(self, action: Callable[[], None]) -> None:
        """Do something as soon as all output until now has been written, however slow its reader is."""
        self._waiting.append(action)
        self._output_written()

    def _output_written(self) -> None:
        self._output.note_pending()
        while self._waiting and all(sink.empty for sink in self._sinks):
            self._waiting.popleft()()

    def _tell(self, *record: Any, fds: list[int] | None = None) -> None:
        self._channel.send(*record, fds=fds or [])
        if self._channel.blocked and self._loop.watches(self._channel.fileno()):
            self._loop.modify(self._channel.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._channel.flush()
            self._output.resume()
            if not self._channel.blocked:
                self._loop.modify(self._channel.fileno(), select.EPOLLIN)
        try:
            # What is obeyed may be the last word.
            while self._loop.watches(self._channel.fileno()) and (received := self._channel.receive()) is not None:
                self._obey(*received)
        except EOFError:
            self._channel.forget()
            self._loop.unregister(self._channel.fileno())
            self.abandon()
        self._leave_when_told()

    def _obey(self, record: tuple[Any, ...], fds: list[int]) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            for fd in fds:
                os.close(fd)
            return
        kind, *rest = record
        if kind == "end":
            run, wish, rank, phrase, grace, signum = rest
            cause = Cause(wish, rank, phrase)
            if run == supervisor.run:
                supervisor.end_run(cause, grace=grace, signum=signum)
            else:  # it came to its end while the wish was on its way
                self._tell("settled", run, cause)
        elif kind == "fence":
            self._output.drain_all()
            supervisor.finish_run(rest[0])
            self._when_written(lambda: self._tell("fenced", rest[0]))
        elif kind == "over":
            supervisor.finish_run(rest[0])
        elif kind in {"report", "show", "survey"}:
            self._ask(supervisor.watch, kind, *rest)
        elif kind == "close":
            supervisor.close()
        elif kind == "kill":
            supervisor.kill()
        elif not self._obey_of_others(supervisor, kind, rest, fds):
            self._obey_of_processes(supervisor.processes, kind, rest, fds)

    def _ask(self, watch: Watch, kind: str, question: int = 0, run: int = 0) -> None:
        if kind == "report":
            watch.ask(lambda states: self._tell("answer", question, states))
        elif kind == "show":
            watch.ask(self._show)
        else:
            watch.survey(run, lambda states: self._tell("surveyed", question, states))

    @staticmethod
    def _obey_of_others(supervisor: Supervisor, kind: str, rest: list[Any], fds: list[int]) -> bool:
        """Do what ranks of other hosts, and the driver's news of them, ask for; tell whether it was that."""
        if kind in {"accept", "dial", "offer", "relayed"}:
            rank, *words = rest
            supervisor.tell_rank(rank, kind, *words, fds=fds)
        elif kind == "gone":
            rank, incarnation, what, orderly = rest
            supervisor.tell_end(rank, incarnation, what, orderly=orderly)
            supervisor.processes.far_ended(rank, incarnation, what, orderly=orderly)
        elif kind == "host_lost":
            first, count, what = rest
            supervisor.processes.host_lost(range(first, first + count), what)
        elif kind == "host_back":
            first, count = rest
            supervisor.processes.host_back(range(first, first + count))
        else:
            return False
        for fd in fds:
            os.close(fd)
        return True

    def _obey_of_processes(self, processes: Processes, kind: str, rest: list[Any], fds: list[int]) -> None:
        if kind == "start":
            serial, name, run, rank, no_rank = rest
            spread = self.spec.network is not None  # then this channel tells the exit code
            task, exit_pipe = (list(fds), None) if spread else ([fds[0], *fds[2:]], fds[1])
            processes.start(StartedProcess(serial, name, run, no_rank, exit_pipe, task), rank)
        elif kind == "signal":
            processes.signal(*rest)
        elif kind == "come":
            processes.far_arrived(*rest)
        elif kind == "mail":
            processes.far_mail(*rest)
        elif kind == "refill":
            self._refill, run, renew = rest
            processes.end_session(run, renew=renew)
        elif kind == "flush":
            self._output.drain_all()
            self._when_written(lambda: self._tell("answer", rest[0]))
