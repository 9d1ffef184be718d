"""Runs a program from the shell on ranks that take turns in the command's own process.

Layer: green. Each rank has a ``__main__`` of its own, and so what the program defines; all else they share.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import IO, TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.green.play import Play, rank_here
from klyng_mp.launch.balance import describe_unreceived
from klyng_mp.launch.control import GRACE_SECONDS, INTERRUPT_GRACE_SECONDS, Cause
from klyng_mp.launch.labels import labelled
from klyng_mp.launch.program import load
from klyng_mp.launch.shell import exit_code_of, say, tell_cause
from klyng_mp.launch.surroundings import flush_streams, seed_random_numbers
from klyng_mp.machine import hostname
from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from types import ModuleType
    from typing import NoReturn

    from klyng_mp.launch.program import Program, ProgramOptions

__all__ = ["explore", "run_green"]

_RUN = 1


def run_green(options: ProgramOptions) -> int:
    """Run the program on ``options.size`` green ranks; return the command's exit code.

    Raises:
        LaunchError, SyntaxError: the program cannot be run at all.
    """
    return _perform(load(options), options, options.schedule)


def explore(options: ProgramOptions) -> int:
    """Run the program by one schedule after the other, each in a process of its own, until one fails.

    What those print that go well is dropped; of the one that does not, all is printed.

    Returns:
        The exit code of the first that fails, or 0.
    """
    program = load(options)
    first = options.schedule or 0
    for schedule in range(first, first + options.explore):
        with _temporary() as output:
            code = _try(program, options, schedule, output)
            if code:
                _show(output)
                say(
                    f"schedule {schedule} of {first} to {first + options.explore - 1} failed with exit code {code}; it "
                    f"is run again by: {_command(options, schedule)}"
                )
                return code
    say(f"{options.explore} schedules, {first} to {first + options.explore - 1}, went well")
    return 0


def _command(options: ProgramOptions, schedule: int) -> str:
    """Return the words that run the program by a schedule."""
    seed = [] if options.seed is None else ["--seed", str(options.seed)]
    kind = {"module": ["-m"], "code": ["-c"]}.get(options.kind, [])
    words = ["--schedule", str(schedule), "-n", str(options.size), *seed, *kind, options.target, *options.args]
    return f"klyng-mp run --green {shlex.join(words)}"


def _temporary() -> IO[bytes]:
    return os.fdopen(os.memfd_create("klyng schedule", os.MFD_CLOEXEC), "w+b")


def _try(program: Program, options: ProgramOptions, schedule: int, output: IO[bytes]) -> int:
    """Run the program by a schedule in a child of this process; return its exit code."""
    flush_streams()
    pid = os.fork()
    if not pid:
        _be_child(program, options, schedule, output)
    try:
        _, status = os.waitpid(pid, 0)
    except KeyboardInterrupt:
        os.waitpid(pid, 0)  # the terminal has interrupted it, too
        raise
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _be_child(program: Program, options: ProgramOptions, schedule: int, output: IO[bytes]) -> NoReturn:
    code = 1
    try:
        for fd in (1, 2):
            os.dup2(output.fileno(), fd)
        code = _perform(program, options, schedule)
    except BaseException:  # noqa: BLE001 - the last frame of this process: nobody else can tell of it
        sys.excepthook(*sys.exc_info())
    finally:
        flush_streams()
        os._exit(code)


def _show(output: IO[bytes]) -> None:
    output.seek(0)
    sys.stdout.write(output.read().decode(errors="replace"))
    sys.stdout.flush()


def _perform(program: Program, options: ProgramOptions, schedule: int | None) -> int:
    size = options.size or 1
    if options.seed is not None:
        seed_random_numbers(options.seed, _RUN, 0)
    play = Play(_RUN, size, range(size), Codec(main_by_reference=True), schedule)
    mains = _Mains()
    play.scheduler.around = mains
    host = hostname()
    deadline = Deadline(options.timeout)
    with labelled(host if options.label else None, rank_here), mains:
        grace = GRACE_SECONDS
        try:
            play.begin(lambda: _execute(program), None)
            in_time = play.drive(lambda: False, deadline)
            play.pass_interrupt_on()
            cause = play.cause
            if cause is None and not in_time:
                cause = Cause("timeout", None, f"did not end within {options.timeout:g} s")
        except KeyboardInterrupt:
            cause = Cause("interrupted", None, "was ended by SIGINT", exitcode=-signal.SIGINT)
            grace = INTERRUPT_GRACE_SECONDS
        if cause is not None:
            play.see_out(cause.phrase(), cause.rank, grace)
    if cause is not None and isinstance(cause.error, _Exited):
        return cause.error.code
    if cause is None:
        for rank in play.leavers():
            waiting = play.unreceived(rank)
            say(describe_unreceived(rank, len(waiting), waiting[0]))
    return tell_cause(cause, host)


class _Exited(Exception):  # noqa: N818 - no error: the program's own wish
    """A rank has called sys.exit with a code that is not 0."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exited with code {code}")
        self.code = code


def _execute(program: Program) -> None:
    try:
        program.execute()
    except SystemExit as error:
        if code := exit_code_of(error):
            raise _Exited(code) from None


class _Mains:
    """Gives each rank its own ``__main__``, and rank 0 the standard input, while it has its turn."""

    def __init__(self) -> None:
        self._ours: ModuleType = sys.modules["__main__"]
        self._theirs: dict[int, ModuleType] = {}
        self._stdin = sys.stdin
        self._nothing: Any = None

    def before(self, number: int) -> None:
        """A rank is going to have its turn."""
        sys.modules["__main__"] = self._theirs.get(number, self._ours)
        if number and self._nothing is None:
            self._nothing = open(os.devnull)  # noqa: SIM115 - closed at the exit
        sys.stdin = self._nothing if number else self._stdin

    def after(self, number: int) -> None:
        """It has had it."""
        self._theirs[number] = sys.modules["__main__"]

    def __enter__(self) -> None:
        """Wait for the first turn."""

    def __exit__(self, *_error: object) -> None:
        """Put everything back; no rank has a turn any more."""
        sys.modules["__main__"] = self._ours
        sys.stdin = self._stdin
        if self._nothing is not None:
            self._nothing.close()
