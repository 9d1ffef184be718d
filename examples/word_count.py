"""Count the words of real text files, each rank its share of the files.

    $ klyng-mp run -n 4 examples/word_count.py
    world of 4: 168 files, 553414 words, 13297 different
      22487  self
      13850  the
      ...

    $ klyng-mp run -n 4 examples/word_count.py book.txt notes.md

Without files it reads this project's licence and the sources of Python's standard library. Rank 0
looks for the files and tells the others, so that all work from the same list.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import klyng_mp as mp

WORD = re.compile(r"[^\W\d_]+")


def default_files() -> list[Path]:
    """Return the licence, if the examples lie beside it, and the standard library's modules."""
    licence = Path(__file__).resolve().parent.parent / "LICENSE"
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [licence, *sources] if licence.exists() else sources


def count_words(files: list[Path]) -> Counter[str]:
    """Count the words of `files`, whatever their case."""
    words: Counter[str] = Counter()
    for file in files:
        words.update(WORD.findall(file.read_text(encoding="utf-8", errors="replace").lower()))
    return words


def main() -> None:
    comm = mp.comm()
    files = None
    if comm.rank == 0:
        files = [Path(name) for name in sys.argv[1:]] or default_files()
    files = comm.bcast(files, root=0)
    counts = comm.gather(count_words(files[comm.rank :: comm.size]), root=0)
    if comm.rank == 0:
        words: Counter[str] = sum(counts, start=Counter())
        print(f"world of {comm.size}: {len(files)} files, {words.total()} words, {len(words)} different")
        for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:10]:
            print(f"{count:>7}  {word}")


mp.init(main)
