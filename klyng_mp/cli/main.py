"""The command ``klyng-mp``: from words to an exit code.

Layer: cli; the top, imports whatever a command needs, when it needs it.

Starting fast is part of the job: nothing is imported here that ``run`` can do without.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from klyng_mp import __version__
from klyng_mp.cli.parser import (
    COMMANDS,
    USAGE_ERROR,
    build_doctor_parser,
    build_parser,
    build_ps_parser,
    parse_bundle,
    parse_run,
)
from klyng_mp.errors import KlyngError
from klyng_mp.launch.program import ProgramError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.program import ProgramOptions

__all__ = ["main"]


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code.

    Args:
        words: the command line without the command's name; ``sys.argv[1:]`` if ``None``.
    """
    words = sys.argv[1:] if words is None else list(words)
    if not words:
        build_parser().print_help(sys.stderr)
        return USAGE_ERROR
    others = {"doctor": _doctor, "ps": _ps, "bundle": _bundle, "beacon": _beacon, "hosts": _hosts}
    if (command := others.get(words[0])) is not None:
        return command(words[1:])
    if words[0] in ("-h", "--help", "--version"):
        return _about(words)
    return _run(words[1:] if words[0] in COMMANDS else words)


def _about(words: Sequence[str]) -> int:
    build_parser().parse_args(words)  # prints the help and exits, or refuses what else is there
    print(f"klyng-mp {__version__}")
    return 0


def _run(words: Sequence[str]) -> int:
    options = parse_run(words)
    try:
        return _run_somehow(options)
    except ProgramError as error:
        return _complain(error, USAGE_ERROR)
    except KlyngError as error:
        return _complain(error, 1)
    except SyntaxError as error:
        return _show_syntax_error(error)


def _run_somehow(options: ProgramOptions) -> int:
    if options.launched is not None:
        from klyng_mp.cluster.shell import run_member  # noqa: PLC0415 (only for who was started by MPI's launcher)

        return run_member(options, options.launched)
    if options.hosts is not None:
        from klyng_mp.cli.spread import run_spread  # noqa: PLC0415 (only for who has other machines)

        return run_spread(options)
    if options.green:
        from klyng_mp.green.shell import explore, run_green  # noqa: PLC0415 (only for who has green ranks)

        return explore(options) if options.explore else run_green(options)
    from klyng_mp.launch.shell import run_program  # noqa: PLC0415 (a wrong command line is refused without it)

    return run_program(options)


def _show_syntax_error(error: SyntaxError) -> int:
    import traceback  # noqa: PLC0415 (only on the way to an error)

    sys.stderr.write("".join(traceback.format_exception_only(error)))
    return 1


def _complain(error: KlyngError, code: int) -> int:
    print(f"klyng-mp: error: {error}", file=sys.stderr)
    return code


def _doctor(words: Sequence[str]) -> int:
    options = build_doctor_parser().parse_args(words)
    from klyng_mp.cli.doctor import examine, render  # noqa: PLC0415 (run does without it)

    report = examine()
    if options.json:
        import json  # noqa: PLC0415 (run does without it)

        text = json.dumps(report, indent=2)
    else:
        text = render(report)
    _print(text)
    return 1 if report["problems"] else 0


def _ps(words: Sequence[str]) -> int:
    options = build_ps_parser().parse_args(words)
    from klyng_mp.cli.ps import collect, render_detail, render_json, render_table, select  # noqa: PLC0415 (likewise)

    reports = collect()
    if options.pid is not None:
        reports = select(reports, options.pid)
        if not reports:
            print(f"klyng-mp: error: process {options.pid} has no ranks that you may see, and is none", file=sys.stderr)
            return 1
    render = render_json if options.json else render_table if options.pid is None else render_detail
    _print(render(reports))
    return 0


def _bundle(words: Sequence[str]) -> int:
    options, files, output = parse_bundle(words)
    from klyng_mp.cli.bundling import render  # noqa: PLC0415 (run does without it)
    from klyng_mp.launch.outfile import write_whole  # noqa: PLC0415 (likewise)
    from klyng_mp.launch.program import load  # noqa: PLC0415 (likewise)
    from klyng_mp.remote.bundle import Bundle  # noqa: PLC0415 (likewise)
    from klyng_mp.remote.sources import find_program_sources  # noqa: PLC0415 (likewise)

    try:
        load(options)  # which says what is wrong with it
        sources = find_program_sources(options.kind, options.target, files)
        bundle = Bundle.make(sources)
        if output is not None:
            write_whole(output, [bundle.data])
        _print(render(sources, bundle))
        sources.check()
    except ProgramError as error:
        return _complain(error, USAGE_ERROR)
    except KlyngError as error:
        return _complain(error, 1)
    except SyntaxError as error:
        return _show_syntax_error(error)
    return 0


def _beacon(words: Sequence[str]) -> int:
    from klyng_mp.cli.beacon_parser import build_beacon_parser  # noqa: PLC0415 (run does without it)

    options = build_beacon_parser().parse_args(words)
    from klyng_mp.cli.beacon import main as do  # noqa: PLC0415 (a wrong command line is refused without it)

    return _try(do, options)


def _hosts(words: Sequence[str]) -> int:
    from klyng_mp.cli.beacon_parser import build_hosts_parser  # noqa: PLC0415 (run does without it)

    options = build_hosts_parser().parse_args(words)
    from klyng_mp.cli.hosts import main as do  # noqa: PLC0415 (a wrong command line is refused without it)

    return _try(do, options)


def _try(do: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return do(options)
    except KlyngError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # into head, say; and there is nobody to tell at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
