"""Fuzz one parser for as long as you like: python tests/fuzz/run.py TARGET --seconds 3600

It goes on from tests/fuzz/corpus and from what earlier runs have found, which is kept in .fuzz/TARGET/found; what
crashes is kept in .fuzz/TARGET/crashes, and `--replay FILE…` shows it again. Needs atheris (pip install atheris).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS = HERE / "corpus"
KEPT = ROOT / ".fuzz"
ONE_SECONDS = 20  # one input that takes longer is a fault, too
ONE_MEGABYTES = 2048
MOST_CHANGES = 8

sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]


def load():
    """Return all targets, by their names."""
    import core_targets  # noqa: F401 - they add their own
    import object_targets  # noqa: F401
    import targets

    return targets.TARGETS


def mutant(data, others, chance):
    """Return what became of an input by some changes, as a fuzzer makes them, but without looking."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, MOST_CHANGES)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] = chance.randrange(256)
        elif kind == 1 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            other = chance.choice(others)
            cut = chance.randrange(len(other) + 1)
            changed[at:at] = other[cut : cut + chance.randrange(64)]
    return bytes(changed)


def replay(function, paths, mutants):
    """Run a target over files, and over mutants of them; return how many inputs it took for what they should be."""
    inputs = [path.read_bytes() for path in sorted(paths)]
    chance = random.Random(len(inputs))
    made = [mutant(chance.choice(inputs), inputs, chance) for _ in range(mutants)]
    return sum(map(bool, map(function, inputs + made))), len(inputs) + len(made)


def fuzz(name, seconds):
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed here: pip install atheris (it has wheels for CPython 3.11 to 3.13)")
    with atheris.instrument_imports(include=["klyng_mp", "tarfile", "tomllib"]):
        function = load()[name]
    from targets import LARGEST

    found, crashes = KEPT / name / "found", KEPT / name / "crashes"
    for folder in (found, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    words = [
        *(sys.argv[0], str(found), str(CORPUS / name)),
        f"-max_total_time={seconds}",
        f"-artifact_prefix={crashes}{os.sep}",
        f"-max_len={LARGEST}",
        f"-timeout={ONE_SECONDS}",
        f"-rss_limit_mb={ONE_MEGABYTES}",
        "-print_final_stats=1",
    ]
    atheris.Setup(words, lambda data: function(data) and None)
    atheris.Fuzz()


def main():
    names = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=names)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--replay", nargs="*", metavar="FILE", help="run it over files (those of the corpus) instead")
    parser.add_argument("--mutants", type=int, default=0, help="with --replay: and over so many changed ones")
    options = parser.parse_args()
    if options.replay is None:
        fuzz(options.target, options.seconds)
    else:
        paths = [Path(file) for file in options.replay] or list((CORPUS / options.target).iterdir())
        taken, count = replay(load()[options.target], paths, options.mutants)
        print(f"{options.target}: {taken} of {count} inputs were taken for what they should be")


if __name__ == "__main__":
    main()
