"""``klyng-mp run --green``: programs whose ranks share a process, and the schedules that break them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from programs import FACTOR

RACE = """\
import klyng_mp as mp
comm = mp.comm()
if comm.rank:
    comm.send(comm.rank, 0)
else:
    got = [comm.recv() for _ in range(comm.size - 1)]
    print(got)
    assert got[0] == 1, got
"""


@pytest.fixture
def green(tmp_path):
    """Return a function that runs code on green ranks."""

    def run(code, *options, n=3, stdin=""):
        path = tmp_path / "app.py"
        path.write_text(code)
        words = [sys.executable, "-m", "klyng_mp", "run", "--green", "-n", str(n), *options, str(path), "word"]
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=60 * FACTOR, check=False, cwd=tmp_path
        )

    return run


def test_each_rank_has_a_main_of_its_own(green):
    done = green(
        "import sys, klyng_mp as mp\n"
        "class Box:\n"
        "    pass\n"
        "mine = mp.rank()\n"
        "box = Box(); box.value = mine\n"
        "mp.send(box, (mine + 1) % 3)\n"
        "mp.yield_()\n"
        "got = mp.recv()\n"
        "assert sys.modules['__main__'].__dict__ is globals() and __name__ == '__main__'\n"
        "print(mine, type(got) is Box, got.value, sys.argv[1:], sys.stdin.read())\n",
        stdin="in",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [
        "0 True 2 ['word'] in", "1 True 0 ['word'] ", "2 True 1 ['word'] "
    ]  # fmt: skip


def test_lines_are_labelled(green):
    done = green("import klyng_mp as mp\nprint(mp.rank())", "--label", n=2)
    assert [line[:3] + line[-2:] for line in done.stdout.splitlines()] == ["[0@ 0", "[1@ 1"]


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("import klyng_mp as mp\nif mp.rank() == 1: 1/0\nmp.recv()", 1, "rank 1 on "),
        ("import klyng_mp as mp\nmp.recv((mp.rank() + 1) % 3)", 1, "cycle: rank 0 -> rank 1 -> rank 2 -> rank 0"),
        ("import sys, klyng_mp as mp\nsys.exit(7 if mp.rank() == 2 else 0)", 7, ""),
        ("import sys\nsys.exit('words')", 1, "words"),
        ("import klyng_mp as mp\nif mp.rank() == 0: mp.send(1, 1)", 0, "rank 1 ended with 1 unreceived message"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGINT)", 130, "was ended by SIGINT"),
    ],
)
def test_ends(green, code, exit_code, words):
    done = green(code)
    assert done.returncode == exit_code, done.stderr
    assert words in done.stderr


def test_a_timeout(green):
    done = green("import klyng_mp as mp\nmp.sleep(60)", "--timeout", "0.2")
    assert done.returncode == 124
    assert "did not end within 0.2 s" in done.stderr


def test_exploring_finds_a_race_and_says_how_to_see_it_again(green):
    assert green(RACE).returncode == 0
    done = green(RACE, "--explore", "50")
    assert done.returncode == 1
    assert "AssertionError" in done.stdout
    assert done.stdout.count("[") <= 3, "of those that went well nothing is shown"
    seed = done.stderr.split("--schedule ")[1].split()[0]
    assert done.stderr.rstrip().endswith(f"klyng-mp run --green --schedule {seed} -n 3 {done.args[-2]} word")
    again = green(RACE, "--schedule", seed)
    assert again.returncode == 1
    assert again.stdout.strip() in done.stdout


def test_exploring_what_is_right(green):
    done = green("import klyng_mp as mp\nmp.comm().barrier()", "--explore", "20", "--schedule", "5")
    assert (done.returncode, done.stdout) == (0, "")
    assert "20 schedules, 5 to 24, went well" in done.stderr


def test_exploring_finds_what_kills_the_process(green):
    done = green("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "--explore", "3")
    assert done.returncode == 128 + signal.SIGKILL
    assert "schedule 0 of 0 to 2 failed" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "1", "app.py"], "give --green, too"),
        (["--explore", "1", "app.py"], "give --green, too"),
        (["--green", "--explore", "0", "app.py"], "--explore needs a whole number from 1"),
        (["--green", "--schedule", "x", "app.py"], "--schedule needs a whole number from 0"),
        (["--green", "--stats", "app.py"], "leave --green out"),
        (["--green", "--machines", "m.json", "app.py"], "leave --machines out"),
    ],
)
def test_bad_words_are_refused(words, message):
    words = [sys.executable, "-m", "klyng_mp", "run", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
