"""Run the interpreter's own tests of multiprocessing against klyng_mp, for who develops it.

    python -m tests.compat.run --method fork -k TestPool          # what fails, with its traceback
    python -m tests.compat.run --method spawn --package multiprocessing     # the same for the standard library

Run it in the repository's folder. Docs: docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from . import shards, suite


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat.run", description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=suite.METHODS, action="append", help="default: all three")
    parser.add_argument("-k", dest="pattern", default="", help="a regular expression of Class.method")
    parser.add_argument("--package", default=suite.OURS, help="what the copy's text says (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for each test (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="let each test that fails try again, alone")
    parser.add_argument("--short", action="store_true", help="names only, no tracebacks")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="show the N slowest tests, too")
    parser.add_argument("--standard", nargs="+", metavar="MODULE", help="modules that stay the standard library's")
    parser.add_argument("--keep", action="store_true", help="keep the copy and the logs, and say where they are")
    return parser.parse_args(words)


def show(run: shards.Run, options: argparse.Namespace, method: str) -> None:
    """Print what failed, foreign classes, and the counts."""
    for name in shards.bad(run.outcomes):
        one = run.outcomes[name]
        print(f"\n--- {one.outcome}: {name} ({one.seconds:.1f} s)")
        if not options.short:
            print(one.detail.rstrip())
    if options.package == suite.OURS:
        for line in run.foreign():
            print(f"\n--- not a class of {suite.OURS}: {line['class']} ({line['kind']})\n{line['stack'].rstrip()}")
    for one in sorted(run.outcomes.values(), key=lambda one: -one.seconds)[: options.slowest]:
        print(f"{one.seconds:8.2f} s  {one.test}")
    counts = Counter(one.outcome for one in run.outcomes.values())
    print(f"\n{method}: {dict(counts.most_common())}, {run.seconds:.0f} s")


def main() -> int:
    """Run, print, and return 1 if anything failed."""
    options = parse()
    if suite.find_suite() is None:
        print(suite.HOW_TO_GET_IT, file=sys.stderr)
        return 2
    failed = False
    for method in options.method or suite.METHODS:
        run = shards.run_suite(
            method,
            options.package,
            pattern=options.pattern,
            again=options.again,
            standard=options.standard,
            keep=options.keep,
            jobs=options.jobs,
            limit=options.limit,
        )
        show(run, options, method)
        failed |= bool(shards.bad(run.outcomes) or (options.package == suite.OURS and run.foreign()))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
