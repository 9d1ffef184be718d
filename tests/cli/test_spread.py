"""cli.spread: klyng-mp run with a machines file, against beacons that run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from programs import environment

pytestmark = pytest.mark.slow

PROGRAM = """\
import sys
import klyng_mp as mp
import helper

class Word:
    def __init__(self, text):
        self.text = text

comm = mp.comm()
if comm.rank == 0:
    for rank in range(1, comm.size):
        comm.send(Word(helper.NAME), rank)
else:
    word = comm.recv(source=0)
    assert type(word) is Word and word.text == helper.NAME
if "fail" in sys.argv and comm.rank == comm.size - 1:
    raise RuntimeError("on purpose")
if "exit" in sys.argv and comm.rank == comm.size - 1:
    sys.exit(7)
if "hang" in sys.argv:
    print("up", flush=True)
    comm.recv(source=comm.rank, timeout=1000)
if "deadlock" in sys.argv:
    comm.recv(source=(comm.rank + 1) % comm.size)
comm.barrier()
print(comm.rank, "of", comm.size, __name__, sys.argv, open("data.txt").read(), flush=True)
"""


@pytest.fixture
def folder(tmp_path, beacons, client_home):
    """Make a program with a module and a file beside it, and a machines file with this machine and two others."""
    (tmp_path / "app.py").write_text(PROGRAM)
    (tmp_path / "helper.py").write_text("NAME = 'helper'\n")
    (tmp_path / "data.txt").write_text("data")
    machines = {"local": {"max_procs": 1}}
    machines |= {beacon.key: {"passwd": beacon.password, "max_procs": 1} for beacon in beacons}
    (tmp_path / "machines.json").write_text(json.dumps(machines))
    (tmp_path / "machines.json").chmod(0o600)
    yield tmp_path
    for beacon in beacons:
        beacon.check_tidy()


def command(folder, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "klyng_mp", *words],
        cwd=folder,
        env=environment({"KLYNG_MP_HOME": os.environ["KLYNG_MP_HOME"]}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, *words):
    process = command(folder, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, sorted(out.splitlines()), err


def test_the_program_runs_everywhere_as_it_runs_here(folder):
    code, out, err = run(folder, "-m", "machines.json", "--files", "data.txt", "app.py", "word")
    assert (code, err) == (0, "")
    assert out == [f"{rank} of 3 __main__ ['app.py', 'word'] data" for rank in range(3)]


def test_what_each_rank_did_is_shown(folder):
    code, out, err = run(folder, "--stats", "-m", "machines.json", "--files", "data.txt", "app.py")
    assert (code, len(out)) == (0, 3), err
    table = [line.split() for line in err.splitlines()]
    assert [row[0] for row in table if row and row[0] in "012"][:3] == ["0", "1", "2"], err


def test_a_rank_that_raises(folder, beacons):
    code, _, err = run(folder, "run", "--machines", "machines.json", "--files", "data.txt", "app.py", "fail")
    assert code == 1
    assert f"klyng-mp: rank 2 on {beacons[1].key} failed:" in err
    assert err.rstrip().endswith("RuntimeError: on purpose")
    assert "klyng_mp/" not in err


def test_an_exit_code(folder):
    assert run(folder, "-m", "machines.json", "--files", "data.txt", "app.py", "exit")[::2] == (7, "")


def test_too_long(folder):
    code, _, err = run(folder, "--timeout", "1", "-m", "machines.json", "app.py", "hang")
    assert (code, err) == (124, "klyng-mp: the program did not end within 1 s and was ended\n")


def test_ranks_that_wait_for_each_other(folder):
    code, _, err = run(folder, "-m", "machines.json", "app.py", "deadlock")
    assert code == 1
    assert "all ranks wait for each other, and nothing is on its way to any of them:" in err
    assert err.endswith("cycle: rank 0 -> rank 1 -> rank 2 -> rank 0\n")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals(folder, signum, code):
    with command(folder, "-m", "machines.json", "app.py", "hang") as process:
        assert [process.stdout.readline() for _ in range(3)] == ["up\n"] * 3
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, f"klyng-mp: the program was ended by {signum.name}\n")


def test_labels_numbers_and_code(folder, beacons):
    code, out, err = run(
        folder,
        "-n",
        "2",
        "--label",
        "-m",
        "machines.json",
        "-c",
        "import klyng_mp as mp; print(mp.comm().allreduce(1))",
    )
    assert (code, err) == (0, "")
    assert [line.rpartition("] ")[2] for line in out] == ["2", "2"]
    assert out[1].startswith(f"[1@{beacons[0].key}]")


def test_what_would_travel(folder, beacons):
    code, out, err = run(folder, "-m", "machines.json", "--dry-run", "--files", "data.txt", "app.py")
    assert (code, err) == (0, "")
    text = "\n".join(out)
    assert all(name in text for name in ("app.py", "helper.py", "data.txt"))
    assert "logged in" not in "".join(beacon.log[-200:] for beacon in beacons[:0])


def test_a_program_that_cannot_be_run_reaches_no_beacon(folder):
    (folder / "broken.py").write_text("def\n")
    assert run(folder, "-m", "machines.json", "broken.py")[0] == 1
    code, _, err = run(folder, "-m", "machines.json", "nowhere.py")
    assert code == 2
    assert "nowhere.py" in err
    code, _, err = run(folder, "-m", "machines.json", "app.py", "one", "\x1b[2J")
    assert code == 1
    assert (
        "argument 2 of the program is not text without control characters, so other hosts cannot be told of it" in err
    )
    code, _, err = run(folder, "-m", "nowhere.json", "app.py")
    assert code == 1
    assert "there is no file nowhere.json" in err
