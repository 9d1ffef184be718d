"""Runs a program as one rank of several that a launcher of MPI has started.

Layer: cluster. Each process executes the program once, as a rank of ``klyng-mp run`` does; what that command does for
all of them, the launcher does.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from klyng_mp.cluster.member import join
from klyng_mp.errors import LaunchError
from klyng_mp.launch.balance import describe_unreceived
from klyng_mp.launch.labels import labelled
from klyng_mp.launch.launched import hide_launcher, leave_it_to_the_first
from klyng_mp.launch.program import format_user_traceback, load
from klyng_mp.launch.shell import exit_code_of, say
from klyng_mp.launch.surroundings import flush_streams, seed_random_numbers
from klyng_mp.machine import hostname

if TYPE_CHECKING:
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
    with labelled(hostname() if options.label else None, lambda: member.rank):
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
