"""docs/mpi4py.md: each of its programs runs, and the two of each pair print the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import klyng_mp
from klyng_mp import MPI
from klyng_mp.communicator.communicator import Cartesian
from klyng_mp.communicator.group import Group

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = (ROOT / "docs" / "mpi4py.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [text for kind, text in BLOCKS if kind == "sh"]
RANKS = 4
TIMEOUT = 60 * float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))
COMMAND = [sys.executable, "-m", "klyng_mp"]


def launch(words, folder):
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Give what each rank printed of each program, by the program's place on the page."""
    folder = tmp_path_factory.mktemp("page")
    paths = []
    for index, text in enumerate(PROGRAMS):
        paths.append(folder / f"program_{index:02}.py")
        paths[-1].write_text(text)
    launch(["run", "-n", RANKS, HERE / "batch.py", "klyng_mp", folder, *paths], folder)
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]
    return [[by_rank[index][1] for by_rank in found] for index in range(len(PROGRAMS))]


def test_every_block_is_a_program_or_a_command():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}
    assert [text for text in PROGRAMS if "import" not in text] == []


@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_each_program_prints_something(index, printed):
    assert any(printed[index])


def test_the_two_of_each_pair_print_the_same(printed):
    pairs = [
        (first, first + 1)
        for first, text in enumerate(PROGRAMS[:-1])
        if "from mpi4py import MPI" in text and "import klyng_mp as mp" in PROGRAMS[first + 1]
    ]
    assert len(pairs) == PAGE.count("from mpi4py import MPI\n")
    for first, second in pairs:
        assert printed[first] == printed[second], PROGRAMS[first]


def test_the_commands_run_the_first_program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAMS[0].replace("from mpi4py import", "from klyng_mp import"))
    for text in COMMANDS:
        name, *words = text.split()
        assert name == "klyng-mp"
        assert launch(words, tmp_path) == "4 ranks: rank 0, rank 1, rank 2, rank 3\n"


def names_of(row, column):
    return set(re.findall(r"[A-Za-z_]+", " ".join(re.findall(r"`([^`]*)`", row.split("|")[column]))))


def test_every_name_of_the_table_is_there():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    theirs, ours = (set().union(*(names_of(row, column) for row in rows)) for column in (1, 2))
    kinds = (MPI.Cartcomm, MPI.Group, MPI.Request, MPI.Status, MPI.Op)
    known = {*dir(MPI), *(name for kind in kinds for name in dir(kind))}
    assert theirs - known == {"MPI", "code", "function"}
    kinds = (Cartesian, Group, klyng_mp.Request, klyng_mp.Status)
    known = {*dir(klyng_mp), *(name for kind in kinds for name in dir(kind))}
    assert ours - known == {"mp", "array", "status", "sys", "exit", "code", "await", "request"}
