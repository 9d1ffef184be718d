"""``klyng-mp run`` with a machines file: the program travels, and runs as ranks on several machines.

Layer: cli.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.cli.bundling import render
from klyng_mp.errors import DeadlineError, RankDiedError, RankFailedError
from klyng_mp.launch.program import load
from klyng_mp.launch.shell import TIMEOUT_EXIT_CODE
from klyng_mp.remote.bundle import Bundle
from klyng_mp.remote.program import ProgramExit, execute_program
from klyng_mp.remote.sources import find_program_sources
from klyng_mp.remote.world_hosts import WorldHosts
from klyng_mp.world import World

if TYPE_CHECKING:
    from klyng_mp.launch.profile import Profiles
    from klyng_mp.launch.program import ProgramOptions

__all__ = ["run_spread"]


class _EndedError(BaseException):
    """A signal has ended the command."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def run_spread(options: ProgramOptions) -> int:
    """Run the program on the hosts of a machines file; return the command's exit code.

    Raises:
        LaunchError, SyntaxError: the program cannot be run at all; nothing was started.
        MachinesError, BeaconError: the hosts cannot be used; nothing is left on any.
    """
    assert options.hosts is not None  # noqa: S101 - the caller has looked
    load(options)
    sources = find_program_sources(options.kind, options.target, options.files)
    if options.dry_run:
        print(render(sources, Bundle.make(sources)))
        sources.check()
        return 0
    sys.argv = [os.path.abspath(options.target) if options.kind == "script" else options.target, *options.args]
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _raise)
    try:
        hosts = WorldHosts(options.hosts, options.size, files=(), encrypt=options.encrypt, env={}, sources=sources)
        with World(hosts=hosts, label=options.label, seed=options.seed) as world:
            run = world.start(execute_program, options.kind, options.target, options.args)
            run.result(options.timeout)
            profiles = _profiles_of(world, options) if options.stats else None
    except (RankFailedError, RankDiedError) as error:
        return _explain(error)
    except DeadlineError:
        return _say(f"the program did not end within {options.timeout:g} s and was ended", TIMEOUT_EXIT_CODE)
    except KeyboardInterrupt:
        return _say("the program was ended by SIGINT", 128 + signal.SIGINT)
    except _EndedError as error:
        return _say(f"the program was ended by {signal.Signals(error.signum).name}", 128 + error.signum)
    troubles = [] if profiles is None else profiles.write(options)
    for trouble in troubles:
        _say(trouble, 1)
    return int(bool(troubles))


def _profiles_of(world: World, options: ProgramOptions) -> Profiles:
    from klyng_mp.launch.profile import Profiles  # noqa: PLC0415 - only for who asked

    ranks = world.statistics().ranks
    return Profiles({one.rank: (one, None) for one in ranks}, {}, str(options.target))


def _raise(signum: int, _frame: Any) -> NoReturn:
    raise _EndedError(signum)


def _explain(error: RankFailedError | RankDiedError) -> int:
    if isinstance(error, RankDiedError):
        code = error.exitcode
        return _say(str(error), code if code > 0 else 128 - code if code < 0 else 1)
    if isinstance(error.__cause__, ProgramExit):
        return error.__cause__.code
    return _say(f"rank {error.rank} on {error.host} failed:\n{error.traceback or error.summary}", 1)


def _say(sentence: str, code: int) -> int:
    print(f"klyng-mp: {sentence.rstrip()}", file=sys.stderr)
    return code
