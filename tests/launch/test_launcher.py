"""launch.launcher: each way to make a process that waits to be told its place."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import programs
import pytest

from klyng_mp.launch.launcher import ForkLauncher, SpareLauncher, SpawnLauncher, interpreter_command
from klyng_mp.launch.spec import RankSpec
from klyng_mp.launch.surroundings import cut_loose, forget_parent
from klyng_mp.machine import hostname


def say_hello(ends, keep, *_rehearsal):
    """Stand for a rank: say something on standard output, and wait for the end of the leash."""
    forget_parent()
    cut_loose(ends, keep)
    os.write(1, b"hello")
    while True:
        signal.pause()


def fail(ends, keep):
    forget_parent()
    cut_loose(ends, keep)
    raise RuntimeError("could not begin")


@pytest.fixture
def spec():
    return RankSpec(2, hostname())


@pytest.fixture
def surroundings():
    """Undo what a launcher does to the process that forks."""
    before = os.getcwd(), list(sys.path), list(sys.argv), dict(os.environ)
    yield
    os.chdir(before[0])
    sys.path[:], sys.argv[:] = before[1:3]
    os.environ.clear()
    os.environ.update(before[3])


@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("launcher", [ForkLauncher(say_hello), SpareLauncher(say_hello)], ids=["fork", "spare"])
def test_a_body_lives_until_its_leash_is_let_go(spec, launcher):
    body = launcher.launch(spec)
    assert os.read(body.stdout, 5) == b"hello"
    assert body.alive()
    assert body.pid in programs.children_of(os.getpid())
    body.dismiss()  # waits for its end
    assert body.pid not in programs.children_of(os.getpid())


@pytest.mark.usefixtures("surroundings")
def test_a_body_that_fails_says_why_and_ends(spec):
    body = ForkLauncher(fail).launch(spec)
    assert select.select([body.pidfd], [], [], 10 * programs.FACTOR)[0]
    assert not body.alive()
    status = os.waitid(os.P_PIDFD, body.pidfd, os.WEXITED | os.WNOWAIT)
    assert (status.si_code, status.si_status != 0) == (os.CLD_EXITED, True)
    assert b"RuntimeError: could not begin" in os.read(body.stderr, 10_000)
    body.dismiss()


@pytest.mark.usefixtures("surroundings")
def test_spares_are_made_ahead_used_first_and_dismissed(spec):
    launcher = SpareLauncher(say_hello)
    launcher.top_up(3, spec)
    spares = set(programs.children_of(os.getpid()))
    bodies = [launcher.launch(spec) for _ in range(2)]
    assert {body.pid for body in bodies} < spares
    launcher.dismiss()
    left = set(programs.children_of(os.getpid()))
    assert {body.pid for body in bodies} <= left
    assert len(spares - left) == 1
    launcher.dismiss()
    for body in bodies:
        body.dismiss()


@pytest.mark.usefixtures("surroundings")
def test_a_spare_that_has_died_is_not_used(spec):
    launcher = SpareLauncher(say_hello)
    before = set(programs.children_of(os.getpid()))
    launcher.top_up(1, spec)
    (spare,) = set(programs.children_of(os.getpid())) - before
    programs.kill(spare, signal.SIGKILL)
    assert not programs.still_there([spare])
    body = launcher.launch(spec)
    assert body.pid != spare
    assert body.alive()
    body.dismiss()


def test_a_spawned_body_is_a_fresh_interpreter_that_waits(spec):
    body = SpawnLauncher().launch(spec)
    command = programs.Path(f"/proc/{body.pid}/cmdline")
    programs.wait_until(lambda: b"klyng_mp.launch.rank" in command.read_bytes())
    assert body.alive()
    body.dismiss()
    assert body.pid not in programs.children_of(os.getpid())


def test_the_command_calls_one_function_with_numbers(tmp_path):
    """Whatever the current folder and the environment's path hold."""
    (tmp_path / "klyng_mp.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "signal.py").write_text("raise RuntimeError('not this one')\n")
    command = interpreter_command("klyng_mp.errors", "describe_exitcode", [-9])
    assert command[0] == sys.executable
    command[-1] = command[-1].replace("describe_exitcode(-9)", "print(describe_exitcode(-9))")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "SIGKILL" in done.stdout
