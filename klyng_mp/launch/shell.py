"""Runs a program on n ranks from the shell: the command's own process is the zygote and the supervisor.

Layer: launch.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.communicator.current import set_current
from klyng_mp.errors import LaunchError, RankDiedError, describe_exitcode
from klyng_mp.launch.balance import count_unreceived, describe_unreceived
from klyng_mp.launch.channel import reserve_standard_fds
from klyng_mp.launch.control import GRACE_SECONDS, INTERRUPT_GRACE_SECONDS, Cause
from klyng_mp.launch.hangs import render_report
from klyng_mp.launch.launcher import ForkLauncher
from klyng_mp.launch.link import RankLink, make_link
from klyng_mp.launch.listener import Listener
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.output import Output, Sink
from klyng_mp.launch.program import Program, ProgramOptions, format_user_traceback, load, summarize
from klyng_mp.launch.spec import RankSpec
from klyng_mp.launch.supervisor import Owner, Supervisor, signal_group
from klyng_mp.launch.surroundings import (
    BodyEnds,
    cut_loose,
    end_process,
    flush_streams,
    seed_random_numbers,
    take_place,
)
from klyng_mp.machine import hostname, usable_cpus
from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from klyng_mp.launch.occupant import Occupant
    from klyng_mp.launch.state import RankState

__all__ = ["TIMEOUT_EXIT_CODE", "exit_code_of", "run_program", "say", "tell_cause"]

TIMEOUT_EXIT_CODE = 124  # as timeout(1) has it
_RUN = 1
_FATAL_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_program(options: ProgramOptions) -> int:
    """Run the program on ``options.size`` ranks; return the command's exit code.

    Raises:
        LaunchError, SyntaxError: the program cannot be run at all; nothing was started.
    """
    reserve_standard_fds()
    program = load(options)
    command = _Command(program, options)
    return command.execute()


class _Command(Owner):
    """The shell command while its ranks run."""

    def __init__(self, program: Program, options: ProgramOptions) -> None:
        self._options = options
        self._loop = Loop()
        self._reports: dict[int, tuple[Any, ...]] = {}
        self._seed = options.seed
        self._program = program
        self._spec = RankSpec(options.size or 1, hostname())
        self._spec.log_level = None
        self._spec.main_by_reference = True
        self._spec.seed = options.seed
        self._spec.share_cpus(usable_cpus())
        self._sinks = [Sink(self._loop, os.dup(fd)) for fd in (1, 2)]
        label = (lambda rank: f"[{rank}@{self._spec.host}] ") if options.label else None
        output = Output(self._loop, *self._sinks, label=label, prompt_rank=0 if os.isatty(0) else None)
        launcher = ForkLauncher(lambda ends, keep: _program_main(ends, keep, program, options))
        self._supervisor = Supervisor(self._loop, launcher, self._spec, output, self, stdin=os.dup(0))
        self._gone = False
        self._wakeup, self._wakeup_end = socket.socketpair()

    def execute(self) -> int:
        """Run to the end; return the exit code."""
        flush_streams()
        self._catch_signals()
        Listener(self._loop, os.getpid(), lambda: [self._supervisor.watch])
        self._supervisor.start()
        if self._options.timeout is not None:
            self._loop.call_later(self._options.timeout, self._time_out)
        self._loop.run()
        self._report_unreceived()
        written = self._write_profiles()
        return tell_cause(self._supervisor.cause, self._spec.host) or (0 if written else 1)

    # Signals

    def _catch_signals(self) -> None:
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        self._loop.register(self._wakeup.fileno(), select.EPOLLIN, lambda _events: self._signalled())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it may have been ignored where the command was started
        for signum in (*_FATAL_SIGNALS, signal.SIGTSTP, signal.SIGCONT, signal.SIGUSR1):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup and "&" leave it
                signal.signal(signum, lambda _signum, _frame: None)

    def _signalled(self) -> None:
        for signum in self._wakeup.recv(4096):
            if signum in _FATAL_SIGNALS:
                self._interrupt(signal.Signals(signum))
            elif signum == signal.SIGTSTP:
                self._each(signal.SIGSTOP)
                os.kill(os.getpid(), signal.SIGSTOP)
            elif signum == signal.SIGCONT:
                self._each(signal.SIGCONT)
            elif signum == signal.SIGUSR1:
                self._supervisor.watch.ask(self._show)

    def _show(self, states: list[RankState]) -> None:
        self._sinks[1].write(self, f"klyng-mp: {self._program.name}\n{render_report(states)}\n".encode())

    def _each(self, signum: int) -> None:
        for occupant in self._supervisor.occupants.values():
            if occupant.alive:
                signal_group(occupant, signum)

    def _interrupt(self, signum: signal.Signals) -> None:
        if self._gone:  # only a reader of the output is being waited for
            for sink in self._sinks:
                sink.discard()
            self._loop.stop()
        again = self._supervisor.cause is not None
        cause = Cause("interrupted", None, f"was ended by {signum.name}", exitcode=-signum)
        grace = 0.0 if again else INTERRUPT_GRACE_SECONDS
        self._supervisor.end_run(cause, grace=grace, signum=signum)

    def _time_out(self) -> None:
        seconds = self._options.timeout
        self._supervisor.end_run(Cause("timeout", None, f"did not end within {seconds:g} s"), grace=GRACE_SECONDS)

    # The supervisor's owner

    def reported(self, occupant: Occupant, report: tuple[Any, ...]) -> None:
        self._reports[occupant.rank] = report

    def unlaunchable(self, reason: str) -> None:
        self._supervisor.cause = Cause("unlaunchable", None, f"ranks could not be started: {reason}")

    def all_gone(self) -> None:
        self._gone = True
        for sink in self._sinks:
            sink.on_empty = self._stop_when_written
        self._stop_when_written()

    def _stop_when_written(self) -> None:
        if self._gone and all(sink.empty for sink in self._sinks):
            self._loop.stop()

    # The end

    def _report_unreceived(self) -> None:
        if self._supervisor.cause is not None or len(self._reports) < self._spec.size:
            return
        for rank, count in count_unreceived({rank: report[:2] for rank, report in self._reports.items()}).items():
            waiting = self._reports[rank][2]
            say(describe_unreceived(rank, count, waiting[0] if waiting else None))

    def _write_profiles(self) -> bool:
        """Say and write where the time went, as far as that was asked for; tell whether all files were written."""
        options = self._options
        occupants = sorted(self._supervisor.occupants.items())
        if not _wants_profile(options) or not occupants:
            return True
        from klyng_mp.launch.profile import Profiles  # noqa: PLC0415 - only for who asked

        profiles = {rank: one.profile for rank, one in occupants if one.profile is not None}
        missing = {rank: describe_exitcode(one.exitcode or 0) for rank, one in occupants if one.profile is None}
        troubles = Profiles(profiles, missing, self._program.name).write(options)
        for trouble in troubles:
            say(trouble)
        return not troubles


def tell_cause(cause: Cause | None, host: str) -> int:
    """Say why a program was ended early, if it was; return the command's exit code.

    Raises:
        LaunchError: it could not be brought to life.
    """
    if cause is None:
        return 0
    if cause.kind in {"failed", "deadlock"}:
        say(cause.text if cause.rank is None else f"rank {cause.rank} on {host} failed:\n{cause.text}")
        return 1
    if cause.kind == "exited":
        return cause.exitcode
    if cause.kind == "timeout":
        say(f"the program {cause.detail} and was ended")
        return TIMEOUT_EXIT_CODE
    if cause.kind == "interrupted":
        say(f"the program {cause.detail}")
        return 128 - cause.exitcode
    if cause.kind == "stillborn":
        raise LaunchError(f"rank {cause.rank} {cause.phrase()}")
    if cause.kind == "unlaunchable" or cause.rank is None:
        raise LaunchError(cause.detail)
    say(str(RankDiedError(cause.rank, host, cause.exitcode)))
    return cause.exitcode if cause.exitcode > 0 else 128 - cause.exitcode if cause.exitcode < 0 else 1


def say(sentence: str) -> None:
    """Print a sentence of the command's own to standard error."""
    print(f"klyng-mp: {sentence.rstrip()}", file=sys.stderr)


def _wants_profile(options: ProgramOptions) -> bool:
    return options.stats or options.trace is not None


def _program_main(ends: BodyEnds, keep: set[int], program: Program, options: ProgramOptions) -> NoReturn:
    """Be a rank that runs the program once."""
    place = take_place(cut_loose(ends, keep))
    if place.spec.seed is not None:
        seed_random_numbers(place.spec.seed, _RUN, place.rank)
    codec = Codec(main_by_reference=True)
    if options.trace is None:
        link = make_link(place, codec)
    else:
        from klyng_mp.communicator.tracing import TracedCommunicator, TracedEndpoint  # noqa: PLC0415 - only for who asked

        link = make_link(place, codec, (TracedEndpoint, TracedCommunicator))
    link.begin(_RUN)
    code = _execute(program, link)
    end_process(code, lambda: _say_goodbye(link, _wants_profile(options)))


def _execute(program: Program, link: RankLink) -> int:
    try:
        program.execute()
        link.check_agreement()
    except SystemExit as error:
        return exit_code_of(error)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the supervisor tells the user
        text = format_user_traceback(error)
        flush_streams()
        link.tell("failed", _RUN, summarize(error), text)
        return 1
    return 0


def exit_code_of(error: SystemExit) -> int:
    """Return what a process that ends by it exits with, having printed what Python prints then."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _say_goodbye(link: RankLink, profile: bool) -> None:
    link.endpoint.resume()
    if profile:  # first, since the rank may be killed while it waits for what it has sent to leave
        trace = getattr(link.endpoint, "trace", None)
        events = None if trace is None else (os.getpid(), threading.main_thread().ident, trace.pack(), trace.dropped)
        link.tell("profile", (link.statistics(), events))
    link.say_goodbye(lambda: (*link.balance(), link.unreceived()))
    set_current(None)
