"""Programs for multiprocessing print the same with klyng_mp, once their text says so."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from compat import suite

PROGRAMS = sorted(Path(__file__).with_name("programs").glob("*.py"))
NEEDS = re.compile(r"^# needs: (.+)$", re.MULTILINE)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_prints_the_same(program, run_python, tmp_path):
    skip_without_needs(program)
    done = {}
    for package in (suite.STANDARD, suite.OURS):
        folder = tmp_path / package
        folder.mkdir()
        renamed = folder / program.name
        renamed.write_text(suite.rename(program.read_text(), package))
        done[package] = run_python(renamed, cwd=folder, timeout=60)
    theirs, ours = done[suite.STANDARD], done[suite.OURS]
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout.count("\n") > 0
    assert ours.stdout == theirs.stdout, ours.stderr
    assert ours.returncode == theirs.returncode, ours.stderr
    assert last_words(ours.stderr) == last_words(theirs.stderr), ours.stderr


def skip_without_needs(program):
    for words in NEEDS.findall(program.read_text()):
        for name in words.split(", "):
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed (pip install {name})")


def last_words(text):
    """Return what ends a traceback, or what was written to stderr itself: the lines that are not indented."""
    return [line for line in text.splitlines() if not line.startswith((" ", "Process ", "Traceback"))]
