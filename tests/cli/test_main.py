"""cli.main: which command runs, and what the exit code says; the last tests are the whole command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

import klyng_mp
from klyng_mp.cli import main
from klyng_mp.errors import LaunchError
from klyng_mp.launch.program import ProgramError

FIRST_LINE = "klyng-mp: error: "


@pytest.fixture
def asked(monkeypatch):
    """Take the place of what runs programs; tell what it was asked for."""
    seen = []

    def run_program(options):
        seen.append(options)
        return 0

    monkeypatch.setattr("klyng_mp.launch.shell.run_program", run_program)
    return seen


@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["run", "-n", "2", "app.py", "x"], "app.py"),
        (["-n", "2", "app.py", "x"], "app.py"),
        (["-n", "2", "run", "x"], "run"),
        (["run", "-n", "2", "doctor", "x"], "doctor"),
        (["run", "-n2", "--", "run", "x"], "run"),
    ],
)
def test_a_first_word_that_is_no_command_means_run(asked, words, target):
    assert main(words) == 0
    assert (asked[0].target, asked[0].size, asked[0].args) == (target, 2, ["x"])


def test_words_come_from_the_command_line(asked, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["klyng-mp", "app.py"])
    assert main() == 0
    assert asked[0].target == "app.py"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ProgramError("there is no such thing"), 2, "klyng-mp: error: there is no such thing\n"),
        (LaunchError("no process could be made"), 1, "klyng-mp: error: no process could be made\n"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, error, code, text):
    def fail(options):
        raise error

    monkeypatch.setattr("klyng_mp.launch.shell.run_program", fail)
    assert main(["app.py"]) == code
    assert capsys.readouterr().err == text


def test_nothing_to_do_shows_the_help(capsys):
    assert main([]) == 2
    assert "usage: klyng-mp" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["doctor", "--help"], ["-n", "2", "--help"]])
def test_help_is_not_an_error(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert not caught.value.code
    assert "exit codes:" in capsys.readouterr().out or words in (["--help"], ["-h"])


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"klyng-mp {klyng_mp.__version__}\n"


# -- the whole command -----------------------------------------------------------------------------


@pytest.fixture
def command(run_python):
    """Run ``python -m klyng_mp`` with the given words."""
    return lambda *words, **keywords: run_python("-m", "klyng_mp", *words, **keywords)


def test_ranks_run_a_script_with_its_arguments(command, tmp_path):
    (tmp_path / "app.py").write_text(
        "import sys, klyng_mp as mp\nprint(mp.rank(), mp.size(), sys.argv[1:], __name__, flush=True)\n"
    )
    done = command("-n", "3", "app.py", "--flag", "--", "-n")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [f"{rank} 3 ['--flag', '--', '-n'] __main__" for rank in range(3)]


def test_labels_name_the_rank(command):
    done = command("run", "-n", "2", "--label", "-c", "print('here')")
    assert sorted(line[:2] for line in done.stdout.splitlines()) == ["[0", "[1"]


def test_standard_input_is_rank_0s(command):
    code = "import sys, klyng_mp as mp; print(mp.rank(), repr(sys.stdin.read()))"
    done = command("-n", "2", "-c", code, stdin="to rank 0\n")
    assert sorted(done.stdout.splitlines()) == ["0 'to rank 0\\n'", "1 ''"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit(7)", 7),
        ("import os; os._exit(3)", 3),
        ("1 / 0", 1),
        ("import sys; sys.exit('a reason')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_exit_codes(command, code, expected):
    script = (
        f"import klyng_mp as mp\nif mp.rank() == 1:\n    {code}\nelse:\n    mp.recv(source=1) if {expected} else None"
    )
    assert command("-n", "2", "-c", script).returncode == expected


def test_a_rank_that_raises_has_its_traceback_printed_once(command, tmp_path):
    (tmp_path / "app.py").write_text(
        "import klyng_mp as mp\nif mp.rank() == 1:\n    raise ValueError('no such thing')\nmp.recv(source=1)\n"
    )
    done = command("-n", "3", "app.py")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.count("ValueError: no such thing") == 1
    assert "rank 1" in done.stderr
    assert "program.py" not in done.stderr


def test_a_timeout_ends_everything(command):
    done = command("-n", "2", "--timeout", "0.2", "-c", "import klyng_mp as mp; mp.recv(timeout=3600)")
    assert done.returncode == 124
    assert done.stderr.startswith("klyng-mp: ")
    assert done.stderr.count("\n") == 1


def test_a_seed_repeats_random_numbers_and_differs_by_rank(command):
    words = ("-n", "2", "--seed", "5", "-c", "import random, klyng_mp as mp; print(mp.rank(), random.random())")
    first, second = (sorted(command(*words).stdout.splitlines()) for _ in range(2))
    assert first == second
    assert first[0].split()[1] != first[1].split()[1]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nowhere.py"], 2, FIRST_LINE),
        (["-n", "0", "app.py"], 2, FIRST_LINE),
        (["-m", "nowhere"], 2, FIRST_LINE),
        (["wrong.py"], 1, 'wrong.py", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax\n'),
        (["-c", "x = = 1"], 1, "SyntaxError: invalid syntax\n"),
    ],
)
def test_what_cannot_start_is_said_once(command, tmp_path, words, code, text):
    (tmp_path / "wrong.py").write_text("x = = 1\n")
    done = command("-n", "3", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("error: ") + done.stderr.count("SyntaxError") == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_the_command_with_their_code(tmp_path, time_limit, signum, code):
    words = [
        sys.executable,
        "-m",
        "klyng_mp",
        "-n",
        "2",
        "-c",
        "import klyng_mp as mp; print('up', flush=True); mp.recv(timeout=3600)",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
        process.send_signal(signum)
        _, errors = process.communicate(timeout=time_limit(20))
    assert process.returncode == code
    assert errors.count("\n") == 1


def test_doctor_as_json(command):
    done = command("doctor", "--json")
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["trial"]["works"]
    assert done.returncode == 0


def test_doctor_into_a_closed_pipe(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        words = [sys.executable, "-m", "klyng_mp", "doctor"]
        done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_running_imports_only_what_it_needs(run_python, tmp_path):
    (tmp_path / "empty.py").write_text("")
    code = (
        "import sys\nfrom klyng_mp.cli import main\ncode = main(['-n', '1', 'empty.py'])\n"
        "heavy = {'dill', 'inspect', 'dataclasses', 'subprocess', 'json', 'traceback', 'difflib', 'asyncio', 'numpy',\n"
        "         'ctypes', 'importlib.metadata', 'klyng_mp.cli.doctor', 'klyng_mp.world', 'email', 'ssl'}\n"
        "print(code, sorted(heavy & set(sys.modules) - {'klyng_mp.world'}))\n"
    )
    assert run_python("-c", code).stdout == "0 []\n"
