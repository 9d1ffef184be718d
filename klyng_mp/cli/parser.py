"""The words of the command line: its parsers, which are also its manual, and what follows them.

Layer: cli; imports errors, machine, and of launch what an option is kept in and checked by.

argparse reads only klyng's own options. Where the program's words begin is found first (`split`),
because argparse would take ``--`` and options after the program's name for its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from klyng_mp.cli.values import read_file, read_picture, read_seed, read_size, read_timeout, read_whole
from klyng_mp.launch.launched import find_launcher, leave_it_to_the_first
from klyng_mp.launch.program import ProgramOptions
from klyng_mp.machine import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from klyng_mp.launch.launched import Launched

__all__ = [
    "COMMANDS",
    "USAGE_ERROR",
    "Parser",
    "build_bundle_parser",
    "build_doctor_parser",
    "build_parser",
    "build_ps_parser",
    "build_run_parser",
    "parse_bundle",
    "parse_run",
    "split",
]

COMMANDS = ("run", "doctor", "ps", "bundle", "beacon", "hosts")
USAGE_ERROR = 2  # what argparse and the shell use

_KINDS: dict[str, Literal["script", "module", "code"]] = {"": "script", "-m": "module", "-c": "code"}
_COLUMNS = 78  # of the help, whatever the terminal: what is laid out by hand below has as many

# Each block of an epilog becomes a section of the manual page: setup.py makes the pages from these parsers.
_DESCRIPTION = """\
Run Python programs as ranks: numbered processes that send each other messages.

A first word that is no command stands for a program: "klyng-mp -n 4 app.py" is
"klyng-mp run -n 4 app.py", and "python -m klyng_mp" is the same as "klyng-mp"."""

_EPILOG = """\
examples:
  klyng-mp -n 4 app.py input.txt     four ranks run app.py
  klyng-mp run --help                all about running
  klyng-mp ps                        what do all ranks do now?
  klyng-mp doctor                    what this machine offers; do ranks work?
  klyng-mp beacon up                 let this machine run ranks for others
  klyng-mp -m machines.json app.py   ranks on several machines run app.py
  klyng-mp hosts -m machines.json    can these machines be used?

see also:
  klyng-mp-run(1), klyng-mp-ps(1), klyng-mp-bundle(1), klyng-mp-doctor(1),
  klyng-mp-beacon(1), klyng-mp-hosts(1)"""

_RUN_DESCRIPTION = """\
Run a program in N processes at once, the ranks 0 to N-1. Each runs it from the
top as its __main__ and learns who it is from klyng_mp:

    import klyng_mp as mp
    print("rank", mp.rank(), "of", mp.size())

All have the working directory, environment and arguments of this command.
Standard input goes to rank 0; the others find theirs empty. What the ranks
write is passed on line by line, so that no line mixes the words of two ranks.
If one rank fails, the others are ended."""

_RUN_EPILOG = """\
what to run:
  APP may be a script, a .pyc file, or a folder or zip file with a
  __main__.py, as for python. All words after APP, MODULE or CODE are the
  program's, also those that begin with a dash, and are in its sys.argv.
  The options of klyng-mp come before it.

where the time goes:
  --stats prints a line a rank to standard error when all is over: seconds
  that it computed and that it waited for messages, and for whom; then the
  messages and bytes from each rank to each other.
  --trace writes a file that https://ui.perfetto.dev and chrome://tracing
  open: a lane for each rank, a bar for each call, an arrow for each message
  between two ranks. A rank keeps a million calls; the file says how many more
  there were, and which ranks are missing because they were killed.

exit codes:
  0       every rank ended well
  1       a rank raised an exception (its traceback is printed once), all
          ranks wait for each other (who for whom is printed), or the program
          is a syntax error
  2       the command line is wrong, or names something that does not exist
  N       a rank ended by sys.exit(N) or os._exit(N)
  128+S   a rank was killed by signal S: 137 for SIGKILL, which is also what
          the kernel sends when memory runs out
  124     --timeout ran out
  130     Ctrl-C (SIGINT); 143 for SIGTERM and 129 for SIGHUP
  The rank that was the first to fail decides.

signals:
  SIGUSR1 to the command prints what each rank does, and where; the program
  goes on. "klyng-mp ps" shows the same from outside.

environment:
  OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, MKL_NUM_THREADS
          threads that BLAS or OpenMP use in one rank; where they are unset,
          the usable CPUs are shared out among the ranks
  PYTHONPATH, PYTHONSAFEPATH, PYTHONHASHSEED and the like
          mean to a rank what they mean to python

examples:
  klyng-mp run -n 4 app.py --verbose input.txt
  klyng-mp run -n 8 --label -m package.module
  klyng-mp run -n 2 -c 'import klyng_mp as mp; print(mp.rank())'
  klyng-mp run --timeout 60 app.py < numbers.txt > sums.txt
  klyng-mp run -n 4 --stats --trace trace.json app.py"""

_DOCTOR_DESCRIPTION = """\
Print what klyng_mp finds on this machine: versions, usable CPUs and what limits
them, memory, limits on files and processes, and which ways of moving messages
are switched on. Then start two ranks and let them exchange a message."""

_DOCTOR_EPILOG = """\
exit codes:
  0       everything that klyng_mp needs works
  1       something does not; the lines that begin with "problem:" say what"""

_PS_DESCRIPTION = """\
Print what ranks do now: in which call each waits, for whom, since when and at
which line of the program, or where it computes. Without PID all ranks of this
user are shown, one a line; with PID those that belong to this process, in
detail."""

_PS_EPILOG = """\
exit codes:
  0       it was printed
  1       the process has no ranks, is none, and supervises none

examples:
  klyng-mp ps
  klyng-mp ps 4711
  klyng-mp ps --json"""

_BUNDLE_DESCRIPTION = """\
List what of a program travels to other machines, and why: the program and those
modules that it imports and that are not installed, and the files that --files
names. Then what has to be installed there, in the same versions, and what it
imports that was not found. The program does not run; its imports are read."""

_BUNDLE_EPILOG = """\
what travels:
  A package of the program's own travels whole, with all its Python files and
  extension modules. Other files in it travel only if --files names them. What
  an editable installation leads to is the program's own.
  The folders keep their places to one another and to the working directory,
  so a file that the program opens beside itself, or below its working
  directory, is found there as well.

exit codes:
  0       it was listed
  1       the program cannot travel: the message says why
  2       the command line is wrong, or names something that does not exist

examples:
  klyng-mp bundle app.py
  klyng-mp bundle --files 'data/**/*.csv' --files settings.toml app.py
  klyng-mp bundle -o app.tar.gz -m package.module"""

# Kept as data: `split` must know which options take a value without asking argparse's private parts.
_RUN_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("-n", "--num-processes"),
        {
            "metavar": "N",
            "dest": "size",
            "help": "number of ranks, also more than the machine has CPUs; default: the CPUs that are usable",
        },
    ),
    (
        ("-H", "--machines"),
        {
            "metavar": "FILE",
            "help": "run on the machines of this file (JSON or TOML), which have beacons; -m FILE is the same",
        },
    ),
    (
        ("--files",),
        {
            "metavar": "PATTERN",
            "action": "append",
            "help": "with --machines: let these files travel, too; the program's own modules do anyway",
        },
    ),
    (
        ("--dry-run",),
        {"action": "store_true", "help": "with --machines: only list what would travel, and why"},
    ),
    (
        ("--plain",),
        {"action": "store_true", "help": "with --machines: do not encrypt what ranks say to each other"},
    ),
    (("--label",), {"action": "store_true", "help": "begin each line of output with the rank that wrote it: [3@host]"}),
    (
        ("--timeout",),
        {"metavar": "SECONDS", "help": "end everything after so many seconds, with exit code 124; default: no limit"},
    ),
    (
        ("--seed",),
        {
            "metavar": "INT",
            "help": "make random numbers repeatable: every rank seeds random and numpy.random from INT and its rank",
        },
    ),
    (
        ("--green",),
        {
            "action": "store_true",
            "help": "let the ranks take turns in one process: any number, and one debugger for all",
        },
    ),
    (
        ("--schedule",),
        {
            "metavar": "SEED",
            "help": "with --green: let chance choose who goes on; the same SEED, the same choices",
        },
    ),
    (
        ("--explore",),
        {"metavar": "N", "help": "with --green: try N schedules, from SEED or 0 on; stop at the first that fails"},
    ),
    (
        ("--stats",),
        {
            "action": "store_true",
            "help": "at the end, print how long each rank computed and waited, for whom, and what it sent to whom",
        },
    ),
    (
        ("--stats-png",),
        {"metavar": "FILE", "help": "the same, and two heat maps of it as a PNG; needs matplotlib"},
    ),
    (
        ("--trace",),
        {
            "metavar": "FILE",
            "help": "write what each rank sent, received and waited for as a trace (JSON) for ui.perfetto.dev",
        },
    ),
)
_BUNDLE_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--files",),
        {
            "metavar": "GLOB",
            "action": "append",
            "default": [],
            "help": "further files that travel, from the working directory; ** stands for any folders, and a folder "
            "for all that is in it; may be given several times",
        },
    ),
    (("-o", "--output"), {"metavar": "FILE", "help": "write the bundle, which is a compressed tar archive"}),
)
_TAKES_VALUE = {flag: keywords.get("action") != "store_true" for flags, keywords in _RUN_OPTIONS for flag in flags}
_BUNDLE_TAKES_VALUE = {flag: True for flags, _ in _BUNDLE_OPTIONS for flag in flags}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # Without a width, every argument that is added asks for the terminal's, by a slow import.
        super().__init__(prog, width=_COLUMNS)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and begin with the command's name."""

    def __init__(self, prog: str, **keywords: Any) -> None:
        super().__init__(prog=prog, formatter_class=_Formatter, allow_abbrev=False, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print one line, and exit."""
        self.exit(USAGE_ERROR, f"klyng-mp: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp`` itself."""
    usage = "klyng-mp [-h] [--version] COMMAND ..."
    parser = Parser("klyng-mp", description=_DESCRIPTION, epilog=_EPILOG, usage=usage)
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_argument_group("commands")
    commands.add_argument("run", nargs="?", help="run a script, module or code in N ranks")
    commands.add_argument("ps", nargs="?", help="show what ranks do now, and where they wait")
    commands.add_argument("bundle", nargs="?", help="show what of a program travels to other machines, and why")
    commands.add_argument("doctor", nargs="?", help="show what this machine offers, and try it")
    commands.add_argument("beacon", nargs="?", help="let this machine run ranks for others")
    commands.add_argument("hosts", nargs="?", help="look at the machines of a machines file")
    return parser


def build_run_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp run``."""
    usage = "klyng-mp run [-n N] [options] (APP | -m MODULE | -c CODE) [ARGS ...]"
    parser = Parser("klyng-mp run", description=_RUN_DESCRIPTION, epilog=_RUN_EPILOG, usage=usage)
    for flags, keywords in _RUN_OPTIONS:
        parser.add_argument(*flags, **keywords)
    _add_program(parser)
    return parser


def build_bundle_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp bundle``."""
    usage = "klyng-mp bundle [options] (APP | -m MODULE | -c CODE) [ARGS ...]"
    parser = Parser("klyng-mp bundle", description=_BUNDLE_DESCRIPTION, epilog=_BUNDLE_EPILOG, usage=usage)
    for flags, keywords in _BUNDLE_OPTIONS:
        parser.add_argument(*flags, **keywords)
    _add_program(parser)
    return parser


def _add_program(parser: argparse.ArgumentParser) -> None:
    program = parser.add_argument_group("program (one of)")
    program.add_argument("app", metavar="APP", nargs="?", help="path of the script")
    program.add_argument("-m", metavar="MODULE", dest="module", help="run a module, found as by an import")
    program.add_argument("-c", metavar="CODE", dest="code", help="run the code itself")
    program.add_argument("args", metavar="ARGS", nargs="*", help="the program's own arguments")


def build_doctor_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp doctor``."""
    parser = Parser("klyng-mp doctor", description=_DOCTOR_DESCRIPTION, epilog=_DOCTOR_EPILOG)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def build_ps_parser() -> argparse.ArgumentParser:
    """Return the parser of ``klyng-mp ps``."""
    parser = Parser("klyng-mp ps", description=_PS_DESCRIPTION, epilog=_PS_EPILOG)
    parser.add_argument("pid", metavar="PID", nargs="?", type=int, help="of a driver, of the command, or of a rank")
    parser.add_argument("--json", action="store_true", help="print one JSON list, of what belongs to each driver")
    return parser


def parse_run(words: Sequence[str]) -> ProgramOptions:
    """Return what the words after ``klyng-mp run`` ask for.

    Raises:
        SystemExit: with code 0 after ``--help``; with code 2 and a line on stderr if the words are wrong.
    """
    parser = build_run_parser()
    machines, words = _take_machines(parser, words)
    own, kind, target, args = split(words)
    values = parser.parse_args(own)
    kind, target = _check_program(parser, kind, target)
    machines = machines or values.machines
    _check_machines(parser, machines, values)
    _check_green(parser, machines, values)
    launched = find_launcher()
    if launched is not None:
        _check_launched(parser, launched, machines, values)
    return ProgramOptions(
        _KINDS[kind],
        target,
        args,
        size=read_size(parser, values.size) if values.size is not None else usable_cpus() if machines is None else None,
        label=values.label,
        timeout=None if values.timeout is None else read_timeout(parser, values.timeout),
        seed=None if values.seed is None else read_seed(parser, values.seed),
        stats=values.stats or values.stats_png is not None,
        stats_png=read_picture(parser, values.stats_png),
        trace=read_file(parser, "--trace", values.trace),
        hosts=machines,
        files=values.files or (),
        encrypt=not values.plain,
        dry_run=values.dry_run,
        green=values.green,
        schedule=None if values.schedule is None else read_whole(parser, "--schedule", values.schedule),
        explore=0 if values.explore is None else read_whole(parser, "--explore", values.explore, least=1),
        launched=launched,
    )


def _check_launched(
    parser: argparse.ArgumentParser, launched: Launched, machines: str | None, values: argparse.Namespace
) -> None:
    """Refuse what a launcher of MPI has decided already, or does itself; rank 0 speaks for all."""
    launcher = launched.launcher
    complaints = {
        f"-n asks for {values.size} ranks, and {launcher} has started {launched.size}: leave -n out": (
            values.size is not None and read_size(parser, values.size) != launched.size
        ),
        f"--machines would start ranks that {launcher} has started already: leave one of them out": machines
        is not None,
        f"--green means ranks of one process, and {launcher} has started {launched.size}: leave one of them out": (
            values.green
        ),
        f"--timeout ends what klyng-mp has started: give {launcher} a limit of its own": values.timeout is not None,
        f"--stats and --trace tell of ranks that klyng-mp has started, and {launcher} has started these": (
            values.stats or values.stats_png is not None or values.trace is not None
        ),
    }
    for complaint, is_so in complaints.items():
        if is_so:
            if launched.rank:
                leave_it_to_the_first(launched)
                sys.exit(USAGE_ERROR)
            parser.error(complaint)


def _check_machines(parser: argparse.ArgumentParser, machines: str | None, values: argparse.Namespace) -> None:
    if machines is None and (values.files or values.plain or values.dry_run):
        parser.error("--files, --plain and --dry-run have a meaning only with --machines")
    if machines is not None and values.trace is not None:
        parser.error("--trace tells of ranks of this machine only: leave --machines out, or it")


def _check_green(parser: argparse.ArgumentParser, machines: str | None, values: argparse.Namespace) -> None:
    if not values.green and (values.schedule is not None or values.explore is not None):
        parser.error("--schedule and --explore are for ranks that take turns: give --green, too")
    if values.green and machines is not None:
        parser.error("--green means ranks of this process: leave --machines out, or it")
    if values.green and (values.stats or values.stats_png is not None or values.trace is not None):
        parser.error("--stats and --trace tell of ranks that are processes: leave --green out, or them")


def _take_machines(parser: argparse.ArgumentParser, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take klyng's spelling of a machines file, ``-m X.json``, out of klyng's own words."""
    own, kind, target, args = split(words)
    if kind != "-m" or target is None or not target.endswith((".json", ".toml")):
        return None, list(words)
    again, rest = _take_machines(parser, args)
    if again is not None:
        parser.error(f"two machines files are named, {target} and {again}: give one")
    return target, [*own, *rest]


def parse_bundle(words: Sequence[str]) -> tuple[ProgramOptions, list[str], str | None]:
    """Return what the words after ``klyng-mp bundle`` ask for: the program, patterns of files, the file to write.

    Raises:
        SystemExit: as by `parse_run`.
    """
    parser = build_bundle_parser()
    own, kind, target, args = split(words, _BUNDLE_TAKES_VALUE)
    values = parser.parse_args(own)
    kind, target = _check_program(parser, kind, target)
    if "" in values.files:
        parser.error("--files needs a pattern: for example --files 'data/*.csv'")
    return ProgramOptions(_KINDS[kind], target, args), list(values.files), read_file(parser, "-o", values.output)


def _check_program(parser: argparse.ArgumentParser, kind: str | None, target: str | None) -> tuple[str, str]:
    if kind is None:
        parser.error("there is nothing to run: give a script, -m MODULE or -c CODE")
    if target is None:
        parser.error(f"{kind} needs a value: -m MODULE or -c CODE")
    if not target and kind != "-c":
        parser.error("the program's name is empty: give a script, -m MODULE or -c CODE")
    return kind, target


def split(
    words: Sequence[str], takes_value: Mapping[str, bool] = _TAKES_VALUE
) -> tuple[list[str], str | None, str | None, list[str]]:
    """Return (klyng's own words, ``-m`` or ``-c`` or ``""`` for a script, its value, the program's words)."""
    own: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word[:2] in ("-m", "-c"):
            value = word[2:] or (rest.pop(0) if rest else None)
            return own, word[:2], value, rest
        if word == "--":
            return own, "" if rest else None, rest[0] if rest else None, rest[1:]
        if not word.startswith("-") or word == "-":
            return own, "", word, rest
        own.append(word)
        if takes_value.get(word, False) and rest:
            own[-1:] = _join(word, rest.pop(0))
    return own, None, None, []


def _join(flag: str, value: str) -> list[str]:
    # In one word, since argparse takes a separate "-x" for an option even where a value must come.
    return [f"{flag}={value}"] if flag.startswith("--") else [f"{flag}{value}"] if value else [flag, value]
