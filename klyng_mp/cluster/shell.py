"""Runs a program as one rank of several that a launcher of MPI has started.

Layer: cluster. Each process executes the program once, as a rank of ``klyng-mp run`` does; what that command does for
all of them, the launcher does.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from klyng_mp.cluster.member import join
from klyng_mp.errors import LaunchError
from klyng_mp.launch.balance import describe_unreceived
from klyng_mp.launch.launched import hide_launcher, leave_it_to_the_first
from klyng_mp.launch.program import format_user_traceback, load
from klyng_mp.launch.shell import exit_code_of, say
from klyng_mp.launch.surroundings import flush_streams, seed_random_numbers
from klyng_mp.machine import hostname

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.cluster.member import Member
    from klyng_mp.launch.launched import Launched
    from klyng_mp.launch.program import Program, ProgramOptions

__all__ = ["run_member"]

_RUN = 1


def run_member(options: ProgramOptions, launched: Launched) -> int:
    """Run the program as this rank; return the process's exit code.

    Where a rank fails, it says so, and all are ended.

    Raises:
        LaunchError: this process cannot take its place; rank 0 only, as all others fail likewise and say nothing.
        SyntaxError: likewise of the program.
    """
    try:
        program = load(options)
        member = join(launched)
    except (LaunchError, SyntaxError):
        if launched.rank:
            leave_it_to_the_first(launched)
            return 1
        raise
    hide_launcher(launched)
    if options.seed is not None:
        seed_random_numbers(options.seed, _RUN, member.rank)
    signal.signal(signal.SIGUSR1, lambda _signum, frame: say(member.describe(frame)))
    with _labelled(f"[{member.rank}@{hostname()}] " if options.label else None):
        member.begin()
        code = _execute(program, member)
        if code:
            member.abort(code)
        left = member.leave()
        if left:
            say(describe_unreceived(member.rank, len(left), left[0]))
    return 0


def _execute(program: Program, member: Member) -> int:
    """Return the code that all processes are to exit with, where it is not 0."""
    try:
        program.execute()
        member.check_agreement()
    except SystemExit as error:
        return exit_code_of(error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user is told
        text = format_user_traceback(error)
        flush_streams()
        say(f"rank {member.rank} on {hostname()} failed:\n{text}")
        return 1
    return 0


class _Lines:
    """A text stream that puts a label before each line; what it does not do, the stream itself does."""

    def __init__(self, stream: Any, label: str) -> None:
        self._stream = stream
        self._label = label
        self._begun = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what is whole lines now, each by one call; keep the rest."""
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._stream.write("".join(f"{self._label}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def finish(self) -> None:
        """Write the line that never ended."""
        if self._begun:
            self.write("\n")


@contextmanager
def _labelled(label: str | None) -> Iterator[None]:
    if label is None:
        yield
        return
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = lines = [_Lines(stream, label) for stream in before]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for one in lines:
            one.finish()
