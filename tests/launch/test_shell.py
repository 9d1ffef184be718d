"""launch.shell: the command, as one who sits at a terminal or writes a script knows it.

What the words mean and the plain exit codes are in tests/cli/test_main.py.
"""

from __future__ import annotations

import collections
import importlib.util
import itertools
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time

import programs
import pytest
from tracework import TraceFile

HAS_CORE = importlib.util.find_spec("klyng_mp._core") is not None  # whatever this process uses
HOST = socket.gethostname()


@pytest.fixture
def command(tmp_path):
    """Start ``python -m klyng_mp`` with the given words, in a folder of its own."""
    started = []

    def start(*words, **keywords):
        started.append(programs.Program("-m", "klyng_mp", *words, cwd=keywords.pop("cwd", tmp_path), **keywords))
        return started[-1]

    yield start
    for program in started:
        program.__exit__()


@pytest.fixture
def result(command):
    """Run it to the end; return exit code, output and errors."""

    def run(*words, seconds=30, **keywords):
        program = command(*words, **keywords)
        code = program.finish(seconds)
        return code, program.out, program.err

    return run


# -- what a program is given -----------------------------------------------------------------------------

SHOW = """
import os, sys
import klyng_mp as mp
comm = mp.comm()
if comm.rank == 1:
    file = __file__ if "__file__" in globals() else None
    print(__name__, sys.argv, os.getcwd(), os.environ.get("GIVEN"), sys.path[0], file)
"""


def test_script_module_and_code_are_run_as_main(tmp_path, result):
    (tmp_path / "app.py").write_text(SHOW)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(SHOW)
    for words, name, path, file in (
        (["app.py"], "app.py", tmp_path, tmp_path / "app.py"),
        (["-m", "package"], f"{tmp_path}/package/__main__.py", tmp_path, tmp_path / "package" / "__main__.py"),
        (["-c", SHOW], "-c", "", None),
    ):
        code, out, err = result("run", "-n", "2", *words, "--flag", "two words", env={"GIVEN": "here"})
        assert (code, err) == (0, "")
        assert out == f"__main__ {[name, '--flag', 'two words']} {tmp_path} here {path} {file}\n"


def test_programs_of_one_rank_and_of_many(result):
    code = "import klyng_mp as mp; print(mp.comm().bcast(mp.size() if mp.rank() == 0 else None))"
    assert result("-n", "1", "-c", code) == (0, "1\n", "")
    assert result("-n", "20", "-c", code) == (0, "20\n" * 20, "")


def test_the_same_program_runs_without_the_command(tmp_path):
    code = "import klyng_mp as mp; comm = mp.comm(); comm.send('self', 0); print(comm.recv(), comm.rank, comm.size)"
    with programs.Program("-c", code, cwd=tmp_path) as program:
        assert (program.finish(), program.out, program.err) == (0, "self 0 1\n", "")


def test_klyngs_own_shape(tmp_path, result):
    (tmp_path / "app.py").write_text(
        "import klyng_mp as mp\n"
        "def main():\n"
        "    if mp.rank() == 0:\n"
        "        for dest in range(1, mp.size()):\n"
        "            mp.send(dest * 2, dest, 'subject')\n"
        "        print(sum(mp.recv(tag='answer') for _ in range(1, mp.size())))\n"
        "    else:\n"
        "        mp.send(mp.recv(tag='subject') + 1, 0, 'answer')\n"
        "    mp.end()\n"
        "mp.init(main)\n"
    )
    assert result("-n", "4", "app.py") == (0, "15\n", "")


def test_things_of_main_are_the_same_in_all_ranks(result):
    code = (
        "import enum, klyng_mp as mp\n"
        "class Colour(enum.Enum):\n    RED = 1\n"
        "class Error(Exception):\n    pass\n"
        "class Thing:\n    def __init__(self): self.by = mp.rank()\n"
        "def function(): return mp.rank()\n"
        "comm = mp.comm()\n"
        "comm.send((Colour.RED, Error(3), Thing(), function, Thing), (comm.rank + 1) % comm.size)\n"
        "red, error, thing, func, cls = comm.recv()\n"
        "try:\n    raise error\nexcept Error as caught:\n    assert caught.args == (3,)\n"
        "assert red is Colour.RED and isinstance(thing, Thing) and func is function and cls is Thing\n"
        "print(thing.by != comm.rank)\n"
    )
    assert result("-n", "3", "-c", code) == (0, "True\n" * 3, "")


def test_multiprocessing_works_in_a_program(tmp_path, result):
    (tmp_path / "app.py").write_text(
        "import multiprocessing, klyng_mp as mp\n"
        "def square(x):\n    return x * x\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn'):\n"
        "        with multiprocessing.get_context(method).Pool(2) as pool:\n"
        "            print(mp.comm().rank, pool.map(square, range(3)))\n"
    )
    code, out, err = result("-n", "2", "app.py")
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == ["0 [0, 1, 4]"] * 2 + ["1 [0, 1, 4]"] * 2


def test_a_world_in_a_program_of_the_command(result):
    code = (
        "import klyng_mp as mp\n"
        "with mp.World(2) as w:\n    found = w.run(lambda: mp.rank())\n"
        "print(mp.comm().rank, found)\n"
    )
    status, out, err = result("-n", "2", "-c", code)
    assert (status, sorted(out.splitlines()), err) == (0, ["0 [0, 1]", "1 [0, 1]"], "")


def test_ranks_are_named_and_limited_like_those_of_a_world(result):
    code = (
        "import os; import klyng_mp as mp\n"
        "print(open('/proc/self/comm').read().strip(), os.environ['OMP_NUM_THREADS'], os.getsid(0) == os.getpid())\n"
    )
    status, out, err = result("-n", "3", "-c", code, env={"OMP_NUM_THREADS": "5"})
    assert (status, err) == (0, "")
    assert sorted(out.splitlines()) == [f"klyng {rank}/3 5 True" for rank in range(3)]


def test_random_numbers_differ_and_repeat_with_a_seed(result):
    code = "import random, numpy as np; print(random.random(), np.random.random())"
    _, plain, _ = result("-n", "3", "-c", code)
    _, other, _ = result("-n", "3", "-c", code)
    assert len(set(plain.split()) | set(other.split())) == 12
    (_, one, _), (_, two, _) = (result("-n", "3", "--seed", "1", "-c", code) for _ in range(2))
    assert sorted(one.splitlines()) == sorted(two.splitlines())
    assert len(set(one.split())) == 6


# -- standard input ----------------------------------------------------------------------------------------


def test_standard_input_of_any_length_is_rank_0s(command):
    code = "import sys, klyng_mp as mp\nprint(mp.rank(), len(sys.stdin.read()))"
    program = command("-n", "2", "-c", code, stdin=subprocess.PIPE)
    program.process.stdin.write(b"x" * 5_000_000)
    program.process.stdin.close()
    assert program.finish() == 0, program.err
    assert sorted(program.out.splitlines()) == ["0 5000000", "1 0"]


def test_what_rank_0_leaves_unread_is_there_for_the_next_command(tmp_path):
    (tmp_path / "lines").write_text("one\ntwo\n")
    words = [sys.executable, "-m", "klyng_mp", "-n", "2", "-c"]
    with (tmp_path / "lines").open() as lines:
        code = "import os, klyng_mp as mp\nif mp.rank() == 0: os.read(0, 4)"
        subprocess.run([*words, code], stdin=lines, env=programs.environment(), cwd=tmp_path, check=True)
        assert lines.read() == "two\n"


# -- how it ends ---------------------------------------------------------------------------------------------


def test_a_failure_is_told_once_with_its_rank(tmp_path, result):
    (tmp_path / "app.py").write_text(
        "import klyng_mp as mp\n"
        "def deeper():\n    raise ValueError('no such thing')\n"
        "if mp.rank() == 2:\n    deeper()\n"
        "mp.recv(source=2)\n"
    )
    code, out, err = result("-n", "4", "app.py")
    assert (code, out) == (1, "")
    first, *rest = err.splitlines()
    assert "rank 2" in first
    assert HOST in first
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: no such thing"
    assert err.count("Traceback") == 1
    assert err.count(f'File "{tmp_path}/app.py"') == 2
    assert "klyng_mp/" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "wait",
    [
        "mp.recv(source=1)",
        "mp.recv()",
        "mp.comm().barrier()",
        "import time; time.sleep(60)",
        "while True: pass",
        "mp.send(bytes(100_000_000), 1)",
    ],
)
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("raise ValueError", 1),
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_the_others_end_with_the_first_whatever_they_wait_for(result, wait, end, code):
    begin = time.monotonic()
    words = f"import klyng_mp as mp\nif mp.rank() == 1:\n    {end}\n{wait}"
    found, _, err = result("-n", "3", "-c", words)
    assert found == code
    assert time.monotonic() - begin < 3 * programs.FACTOR
    assert "PeerLostError" not in err


def test_a_segfault_is_told_by_its_name(result):
    code, _, err = result(
        "-n", "2", "-c", "import ctypes, klyng_mp as mp\nif mp.rank(): ctypes.string_at(0)\nmp.recv()"
    )
    assert code == 139
    assert "rank 1" in err
    assert "SIGSEGV" in err


def test_the_last_words_of_a_dead_rank_are_shown_once(result):
    words = (
        "import os, sys, klyng_mp as mp\nprint('last words', file=sys.stderr)\nos._exit(4) if mp.rank() else mp.recv()"
    )
    code, _, err = result("-n", "2", "-c", words)
    assert code == 4
    assert err.count("last words") == 2  # one a rank
    assert "rank 1" in err


def test_sys_exit_of_all_ranks_is_the_commands(result):
    assert result("-n", "3", "-c", "import sys; sys.exit(5)")[0] == 5
    assert result("-n", "3", "-c", "import sys; sys.exit()") == (0, "", "")
    code, out, err = result("-n", "1", "-c", "import sys; sys.exit('why')")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "why"


@pytest.mark.parametrize("talk", ["with", "without"])
def test_a_rank_that_ends_early_does_not_end_the_others(result, talk):
    code = (
        "import klyng_mp as mp, os, select\n"
        "comm = mp.comm()\n"
        "if comm.rank == 1:\n"
        f"    {'comm.recv(source=0)' if talk == 'with' else 'pass'}\n"
        "    comm.send(os.getpid(), 0)\n"
        "elif comm.rank == 0:\n"
        f"    {'comm.send(1, 1)' if talk == 'with' else 'pass'}\n"
        "    pid = comm.recv(source=1)\n"
        "    try:\n        select.select([os.pidfd_open(pid)], [], [])\n    except ProcessLookupError:\n        pass\n"
        "    comm.send('go on', 2)\n"
        "else:\n"
        "    print(comm.recv())\n"
    )
    assert result("-n", "3", "-c", code) == (0, "go on\n", "")


ENDED = (
    "import klyng_mp as mp, os, select\n"
    "comm = mp.comm()\n"
    "if comm.rank == 1:\n"
    "    comm.send(os.getpid(), 0)\n"
    "else:\n"
    "    pid = comm.recv(source=1)\n"
    "    try:\n        select.select([os.pidfd_open(pid)], [], [])\n    except ProcessLookupError:\n        pass\n"
)


def test_to_receive_from_a_rank_that_has_ended_is_an_error(result):
    words = (
        ENDED + "    try:\n        comm.recv(source=1)\n    except mp.PeerLostError as error:\n        print(error)\n"
    )
    code, out, err = result("-n", "2", "-c", words)
    assert (code, err) == (0, "")
    assert "rank 1" in out
    assert "recv" in out
    assert result("-n", "2", "-c", ENDED + "    comm.recv(source=1)")[0] == 1
    assert result("-n", "2", "-c", ENDED + "    comm.recv()")[0] == 1


def test_to_send_to_a_rank_that_has_ended_is_accepted_and_reported(result):
    words = ENDED + "    for tag in (7, 8, 9): comm.send('late', 1, tag)\n    print('went on')\n"
    code, out, err = result("-n", "2", "-c", words)
    assert (code, out) == (0, "went on\n")
    assert "rank 1 ended with 3 unreceived messages" in err


def test_large_sends_to_a_rank_that_has_ended_do_not_block(result):
    words = ENDED + "    comm.send(bytes(50_000_000), 1)\n    print('went on')\n"
    assert result("-n", "2", "-c", words)[:2] == (0, "went on\n")


def test_unreceived_messages_are_reported(result):
    words = (
        "import klyng_mp as mp\ncomm = mp.comm()\n"
        "if comm.rank == 0:\n    [comm.send('x', 2, tag) for tag in (7, 'b', 9)]\ncomm.barrier()\n"
    )
    code, _, err = result("-n", "3", "-c", words)
    assert code == 0
    assert err == "klyng-mp: rank 2 ended with 3 unreceived messages, first: source 0, tag 7\n"


def test_what_was_sent_before_the_end_arrives(result):
    words = (
        "import klyng_mp as mp\ncomm = mp.comm()\n"
        "if comm.rank == 0:\n    comm.isend(bytes(30_000_000), 1)\n"
        "else:\n    import time; time.sleep(0.3)\n    print(len(comm.recv(source=0)))\n"
    )
    assert result("-n", "2", "-c", words) == (0, "30000000\n", "")


def test_a_program_ends_as_python_ends(result):
    words = (
        "import atexit, sys, threading\nimport klyng_mp as mp\n"
        "if mp.rank() == 0:\n"
        "    atexit.register(print, 'exit function')\n"
        "    gate = threading.Event()\n"
        "    threading.Thread(target=lambda: (gate.wait(0.3), print('thread'))).start()\n"
        "    sys.stdout.write('main ')\n"
    )
    assert result("-n", "2", "-c", words) == (0, "main thread\nexit function\n", "")


def test_an_exit_function_may_still_talk(result):
    words = (
        "import atexit, klyng_mp as mp\ncomm = mp.comm()\n"
        "atexit.register(lambda: print(comm.sendrecv(comm.rank, 1 - comm.rank)))\n"
    )
    code, out, err = result("-n", "2", "-c", words)
    assert (code, sorted(out.split()), err) == (0, ["0", "1"], "")


@pytest.mark.slow
def test_many_short_programs_all_end_well(result):
    """Ranks that end at the same moment are not taken for dead."""
    for _ in range(15):
        assert result("-n", "6", "-c", "import klyng_mp as mp; mp.comm().barrier()") == (0, "", "")


def test_the_timeout_ends_what_does_not_end(result, time_limit):
    for words in ("while True: pass", "import klyng_mp as mp; mp.recv(timeout=3600)",
                  "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"):  # fmt: skip
        begin = time.monotonic()
        code, _, err = result("-n", "2", "--timeout", "0.3", "-c", words)
        assert code == 124
        assert time.monotonic() - begin < time_limit(5)
        assert "0.3 s" in err
        assert err.count("\n") == 1
    assert result("-n", "2", "--timeout", "60", "-c", "pass") == (0, "", "")


# -- signals -----------------------------------------------------------------------------------------------

UP = "import os, klyng_mp as mp\nmp.comm().barrier()\nos.write(1, f'up {os.getpid()}\\n'.encode())\n"
WAITS = {
    "receives": "mp.recv(timeout=3600)",
    "sleeps": "import time; time.sleep(60)",
    "computes": "while True: pass",
    "ignores": (
        "import signal\nfor s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
        "os.write(1, b'deaf\\n')\nwhile True: pass"
    ),
}


def _start(command, wait, size=3):
    program = command("-n", size, "-c", UP + WAITS[wait])
    program.wait_for("deaf\n" if wait == "ignores" else "\n", size)
    program.wait_for("up", size)
    return program, [int(pid) for pid in re.findall(r"up (\d+)", program.out)]


@pytest.mark.parametrize("wait", list(WAITS))
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_it_with_one_line_and_their_code(command, time_limit, wait, signum, code):
    program, pids = _start(command, wait)
    begin = time.monotonic()
    program.signal(signum)
    assert program.finish() == code, program.err
    assert time.monotonic() - begin < time_limit(3)
    assert program.err.count("\n") == 1
    assert signum.name in program.err
    assert not programs.still_there(pids, 0)


def test_ranks_may_clean_up_after_ctrl_c(command):
    # It is up where the exception is caught: the signal comes at once.
    words = (
        "try:\n"
        + textwrap.indent(UP, "    ")
        + (
            "    mp.recv(timeout=3600)\n"
            "except KeyboardInterrupt:\n    os.write(1, b'interrupted\\n')\n    raise\n"
            "finally:\n    import time; time.sleep(0.3); print('cleaned up')\n"
        )
    )
    program = command("-n", "2", "-c", words)
    program.wait_for("up", 2)
    program.signal(signal.SIGINT)
    assert program.finish() == 130
    assert program.out.count("cleaned up") == 2
    assert program.err.count("\n") == 1


def test_a_second_ctrl_c_is_less_patient(command, time_limit):
    program, _ = _start(command, "ignores")
    begin = time.monotonic()
    program.signal(signal.SIGINT)
    program.signal(signal.SIGINT)
    assert program.finish() == 130
    assert time.monotonic() - begin < time_limit(2)


def test_stop_and_continue_are_forwarded(command):
    program, pids = _start(command, "computes")
    everyone = [program.pid, *pids]
    program.signal(signal.SIGTSTP)
    programs.wait_until(lambda: [programs.state_of(pid) for pid in everyone] == ["T"] * 4)
    program.signal(signal.SIGCONT)
    programs.wait_until(lambda: "T" not in [programs.state_of(pid) for pid in everyone])
    program.signal(signal.SIGTSTP)  # and again
    programs.wait_until(lambda: [programs.state_of(pid) for pid in everyone] == ["T"] * 4)
    program.signal(signal.SIGCONT)
    programs.wait_until(lambda: "T" not in [programs.state_of(pid) for pid in everyone])
    program.signal(signal.SIGINT)
    assert program.finish() == 130


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGQUIT, signal.SIGSEGV])
def test_a_killed_command_takes_its_ranks_with_it(command, signum):
    program, pids = _start(command, "computes")
    program.signal(signum)
    assert not programs.still_there(pids)
    assert program.finish() == -signum


def test_a_stopped_rank_is_ended_with_the_rest(command):
    program, pids = _start(command, "computes")
    programs.kill(pids[1], signal.SIGSTOP)
    programs.wait_until(lambda: programs.state_of(pids[1]) == "T")
    program.signal(signal.SIGTERM)
    assert program.finish() == 143
    assert not programs.still_there(pids, 0)


def test_a_rank_killed_from_outside_is_told(command):
    program, pids = _start(command, "receives")
    programs.kill(pids[0])
    assert program.finish() == 137
    assert "SIGKILL" in program.err
    assert program.err.count("\n") == 1


def test_nohup_is_heeded(tmp_path):
    text = UP + "import sys, klyng_mp as mp\nmp.recv(timeout=None) if mp.rank() else None\n"
    with programs.Program(
        "-m", "klyng_mp", "-n", "2", "-c", text, cwd=tmp_path, preexec_fn=lambda: signal.signal(1, signal.SIG_IGN)
    ) as program:
        program.wait_for("up", 2)
        program.signal(signal.SIGHUP)
        program.signal(signal.SIGTERM)
        assert program.finish() in (143, 1)
        assert "SIGHUP" not in program.err


# -- output ------------------------------------------------------------------------------------------------


def test_all_lines_of_all_ranks_are_there_and_whole(result):
    words = (
        "import os, klyng_mp as mp\n"
        "for n in range(1000):\n    print(mp.rank(), n, 'x' * (n % 90 + 1))\n"
        "os.write(1, f'{mp.rank()} 1000 {\"x\" * 11}\\n'.encode())\n"
    )
    code, out, err = result("-n", "4", "-c", words)
    assert (code, err) == (0, "")
    seen = collections.defaultdict(list)
    for line in out.splitlines():
        rank, number, filler = line.split()
        assert filler == "x" * (int(number) % 90 + 1)
        seen[rank].append(int(number))
    assert seen == {str(rank): list(range(1001)) for rank in range(4)}


def test_labels_are_on_every_line_of_both_streams(result):
    words = "import sys, klyng_mp as mp\nprint('a\\nb'); print('c', end='', flush=True); print('d', file=sys.stderr)"
    code, out, err = result("-n", "2", "--label", "-c", words)
    assert code == 0
    assert sorted(out.split("\n")) == sorted(f"[{rank}@{HOST}] {word}" for rank in range(2) for word in "abc")
    assert sorted(err.splitlines()) == [f"[{rank}@{HOST}] d" for rank in range(2)]


def test_it_ends_when_its_reader_has_enough(tmp_path):
    words = [sys.executable, "-m", "klyng_mp", "-n", "3", "-c", "while True: print('x' * 50)"]
    command = " ".join(f"'{word}'" if "'" not in word else f'"{word}"' for word in words)
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=20 * programs.FACTOR,
        check=True,
    )
    line, code = done.stdout.splitlines()
    assert line == "x" * 50
    assert int(code) != 0
    assert done.stderr.count("Traceback") <= 1


def test_a_slow_reader_loses_nothing(command):
    """It begins to read when all ranks have long ended, or wait for it."""
    words = "import klyng_mp as mp\nfor n in range(100_000): print(mp.rank(), n)\n"
    read_end, write_end = os.pipe()
    program = command("-n", "3", "-c", words, stdout=write_end)
    os.close(write_end)
    with pytest.raises(subprocess.TimeoutExpired):
        program.process.wait(1.5)
    with os.fdopen(read_end) as pipe:
        seen = collections.Counter(line.split()[0] for line in pipe)
    assert program.finish() == 0, program.err
    assert seen == {"0": 100_000, "1": 100_000, "2": 100_000}


def test_closed_streams_are_no_reason_to_fail(tmp_path):
    for closing in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        code = "import klyng_mp as mp; mp.comm().barrier(); open(f'done{mp.rank()}', 'w').close()"
        command = f'"{sys.executable}" -m klyng_mp -n 2 -c "{code}" {closing}'
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=programs.environment(), check=False)
        assert done.returncode == 0
        for rank in range(2):
            (tmp_path / f"done{rank}").unlink()


def test_output_comes_line_by_line_as_it_is_printed(command):
    program = command("-n", "2", "-c", "import klyng_mp as mp\nprint('here', mp.rank())\nmp.recv(timeout=3600)")
    program.wait_for("here 0\n")
    program.wait_for("here 1\n")
    program.signal(signal.SIGINT)
    assert program.finish() == 130


# -- at a terminal -------------------------------------------------------------------------------------------


class Terminal:
    """A program at a pseudo-terminal, which is its controlling one."""

    def __init__(self, *words, cwd):
        pid, self.fd = pty.fork()
        if pid == 0:
            try:
                os.chdir(cwd)
                os.execve(sys.executable, [sys.executable, *words], programs.environment())
            finally:
                os._exit(70)
        self.pid, self.out = pid, ""

    def wait_for(self, text, count=1, seconds=20):
        end = time.monotonic() + seconds * programs.FACTOR
        while self.out.count(text) < count:
            assert select.select([self.fd], [], [], max(0, end - time.monotonic()))[0], f"no {text!r} in {self.out!r}"
            self.out += os.read(self.fd, 1 << 16).decode()

    def type(self, text):
        os.write(self.fd, text.encode())

    def finish(self, seconds=20):
        end = time.monotonic() + seconds * programs.FACTOR
        try:
            while select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                self.out += os.read(self.fd, 1 << 16).decode()
        except OSError:  # what a terminal says at its end
            pass
        assert not programs.still_there([self.pid], max(0, end - time.monotonic())), self.out
        _, status = os.waitpid(self.pid, 0)
        self.pid = None
        return os.waitstatus_to_exitcode(status)

    def close(self):
        os.close(self.fd)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(tmp_path):
    started = []

    def start(*words):
        started.append(Terminal("-m", "klyng_mp", *words, cwd=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_ctrl_c_at_a_terminal(terminal):
    program = terminal("-n", "2", "-c", "import klyng_mp as mp\nprint('up')\nmp.recv(timeout=3600)")
    program.wait_for("up", 2)
    program.type("\x03")
    assert program.finish() == 130
    assert "Traceback" not in program.out


def test_rank_0_can_ask_the_user(terminal):
    code = "import klyng_mp as mp\nif mp.rank() == 0: mp.send(input('name? '), 1)\nelse: print('hello', mp.recv())"
    program = terminal("-n", "2", "-c", code)
    program.wait_for("name? ")
    program.type("klyng\n")
    assert program.finish() == 0
    assert "hello klyng" in program.out


def test_pdb_works_in_rank_0(terminal, tmp_path):
    (tmp_path / "app.py").write_text(
        "import klyng_mp as mp\nsecret = 41\nif mp.rank() == 0:\n    breakpoint()\n    mp.send(secret, 1)\n"
        "else:\n    print('got', mp.recv())\n"
    )
    program = terminal("-n", "2", "app.py")
    program.wait_for("(Pdb) ")
    program.type("p secret + 1\n")
    program.wait_for("42")
    program.wait_for("(Pdb) ", 2)
    program.type("secret = 7\n")
    program.wait_for("(Pdb) ", 3)
    program.type("continue\n")
    assert program.finish() == 0, program.out
    assert "got 7" in program.out


# -- what is wrong with the program ------------------------------------------------------------------------


def test_a_syntax_error_is_told_once_and_as_python_tells_it(tmp_path, result):
    path = tmp_path / "wrong.py"
    path.write_text("x = 1\ny = = 2\n")
    code, out, err = result("-n", "4", "wrong.py")
    with programs.Program("wrong.py", cwd=tmp_path) as plain:
        assert plain.finish() == 1
        assert (code, out, err) == (1, "", plain.err.replace('"wrong.py"', f'"{path}"')) or err == plain.err


def test_a_module_that_the_program_imports_is_blamed_by_its_own_name(tmp_path, result):
    (tmp_path / "app.py").write_text("import helper\n")
    (tmp_path / "helper.py").write_text("import klyng_mp as mp\nif mp.rank() == 1: 1 / 0\nmp.recv()\n")
    code, _, err = result("-n", "2", "app.py")
    assert code == 1
    assert "helper.py" in err
    assert "ZeroDivisionError" in err


# -- where the time goes -----------------------------------------------------------------------------------

PING_PONG = """
import klyng_mp as mp
comm = mp.comm()
for number in range(20):
    if comm.rank == 0:
        comm.send(bytes(number), 1, tag=number)
        comm.recv(1) if number % 2 else comm.recv(1, "back")
    elif comm.rank == 1:
        comm.recv(0, number)
        comm.send(number, 0, "back")
comm.barrier()
"""


@pytest.mark.parametrize("native", ["0", "1"])
def test_stats_is_a_table_on_standard_error(result, native):
    code = """
import time, klyng_mp as mp
if mp.rank() == 0:
    end = time.perf_counter() + 0.3
    while time.perf_counter() < end:
        pass
    mp.send("x", 1)
else:
    mp.recv(0)
print("done")
"""
    code, out, err = result("-n", "2", "--stats", "-c", code, env={"KLYNG_MP_NATIVE": native})
    assert (code, out) == (0, "done\n" * 2)
    head, zero, one, blank, messages, *_ = err.splitlines()
    assert head.split()[:3] == ["rank", "computing", "waiting"]
    assert float(zero.split()[1]) >= 0.3
    assert float(one.split()[3]) > 0.1
    assert one.endswith("rank 0 (100 %)")
    assert (blank, messages.split()) == ("", ["messages", "to", "0", "to", "1", "to", "all"])
    assert err.splitlines()[5].split() == ["from", "0", "-", "1", "1"]


def test_messages_of_a_program_are_counted_exactly(result):
    for native in ("0", "1"):
        code, _, err = result("-n", "2", "--stats", "-c", PING_PONG, env={"KLYNG_MP_NATIVE": native})
        assert code == 0
        lines = [line.split() for line in err.splitlines()]
        count = "20" if native == "1" and HAS_CORE else "21"  # a barrier in shared memory has no messages
        assert ["from", "0", "-", count, count] in lines
        assert ["from", "1", count, "-", count] in lines


@pytest.mark.parametrize("native", ["0", "1"])
def test_a_trace_of_a_ping_pong(result, tmp_path, native):
    (tmp_path / "t.json").write_text("what was there before")
    assert result("-n", "2", "--trace", "t.json", "-c", PING_PONG, env={"KLYNG_MP_NATIVE": native}) == (0, "", "")
    found = TraceFile(tmp_path / "t.json")
    assert [found.lanes[lane].partition(" (pid")[0] for lane in range(2)] == ["rank 0", "rank 1"]
    assert found.names(0) == ["send", "recv"] * 20 + ["barrier"]
    assert found.names(1) == ["recv", "send"] * 20 + ["barrier"]
    assert [(bar["args"]["tag"], bar["args"]["bytes"]) for bar in found.bars[0][:40:2]] == [(n, n) for n in range(20)]
    assert len(found.arrows) == 40
    assert all(start[:2] == (end[0] ^ 1, "send") and end[1] == "recv" for start, end in found.arrows)
    turns = sorted(found.arrows, key=lambda arrow: arrow[0][2])
    assert [start[0] for start, _ in turns] == [0, 1] * 20
    assert all(one[1][2] <= two[0][2] for one, two in itertools.pairwise(turns))
    assert os.listdir(tmp_path) == ["t.json"]


def test_a_trace_of_requests_threads_and_collectives(result, tmp_path):
    program = """
import threading, klyng_mp as mp
comm = mp.comm()
right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
requests = [comm.irecv(left, 5) for _ in range(3)] + [comm.irecv()]
for number in range(3):
    comm.isend(number, right, 5)
comm.send("any", right, 6)
assert requests[2].wait() == 2
assert mp.waitall(requests) == [0, 1, 2, "any"]
assert comm.sendrecv(comm.rank, right, 1, left, 1) == left
thread = threading.Thread(target=lambda: (comm.send("t", right, 9), comm.recv(left, 9)))
thread.start()
thread.join()
assert comm.bcast("x", 1) == "x"
comm.gather(1)
assert comm.recv_into(bytearray(8), left, 3) == 4 if comm.rank else comm.send(b"1234", right, 3) is None
comm.send(b"1234", right, 3) if 0 < comm.rank < comm.size - 1 else None
"""
    assert result("-n", "3", "--trace=t.json", "-c", program) == (0, "", "")
    found = TraceFile(tmp_path / "t.json")
    assert len(found.lanes) == 6
    assert sum(name.endswith("thread 1") for name in found.lanes.values()) == 3
    assert all(
        {"irecv", "isend", "wait", "received", "sendrecv", "bcast", "gather"} <= set(found.names(rank))
        for rank in range(3)
    )
    assert len(found.arrows) == 3 * (3 + 1 + 1 + 1) + 2


def test_a_program_that_fails_leaves_its_trace_and_its_statistics(result, tmp_path):
    program = """
import os, signal, klyng_mp as mp
comm = mp.comm()
comm.barrier()
if comm.rank == 0:
    comm.recv(1, "failing")
    raise ValueError("no")
comm.send(1, 0, "failing") if comm.rank == 1 else None
comm.recv(0)
"""
    code, _, err = result("-n", "3", "--stats", "--trace", "t.json", "-c", program)
    assert code == 1
    assert err.index("from 2") < err.index("klyng-mp: rank 0 on")
    found = TraceFile(tmp_path / "t.json")
    assert found.about["missing"] == {}
    assert found.names(0) == ["barrier", "recv"]
    assert found.names(2) == ["barrier", "recv (PeerLostError)"]
    assert len(found.arrows) == 1


def test_a_rank_that_is_killed_is_missing_and_named(result, tmp_path):
    program = "import os, klyng_mp as mp; mp.comm().barrier(); os.kill(os.getpid(), 9) if mp.rank() else mp.recv(1)"
    code, _, err = result("-n", "2", "--stats", "--trace", "t.json", "-c", program)
    assert code == 137
    assert re.search("^rank 1 was killed by SIGKILL .*, and what it did is not known$", err, re.MULTILINE)
    found = TraceFile(tmp_path / "t.json")
    assert list(found.about["missing"]) == ["1"]
    assert found.about["missing"]["1"].startswith("was killed by SIGKILL")
    assert found.names(0) == ["barrier", "recv (PeerLostError)"]


def test_ctrl_c_leaves_the_trace(command, tmp_path):
    program = command("-n", "2", "--trace", "t.json", "-c", "import klyng_mp as mp; print('up', flush=True); mp.recv()")
    program.wait_for("up", 2)
    program.signal(signal.SIGINT)
    assert program.finish() == 130
    found = TraceFile(tmp_path / "t.json")
    assert found.about["missing"] == {}
    calls = [found.names(rank) for rank in range(2)]
    assert ["recv (KeyboardInterrupt)"] in calls
    assert all(names in (["recv (KeyboardInterrupt)"], []) for names in calls)  # one may not have come to it yet


def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(result, tmp_path):
    code, out, err = result("-n", "2", "--trace", "no/such/t.json", "-c", "print('ran')")
    assert (code, out) == (2, "")
    assert err.startswith("klyng-mp: error: --trace no/such/t.json cannot be written: there is no folder")
    assert os.listdir(tmp_path) == []


def test_a_trace_that_cannot_be_written_in_the_end_is_said(result, tmp_path):
    (tmp_path / "folder").mkdir()
    program = "import os, klyng_mp as mp; mp.rank() or os.rmdir('folder')"
    code, _, err = result("-n", "2", "--trace", "folder/t.json", "-c", program)
    assert (code, err) == (1, "klyng-mp: folder/t.json was not written: No such file or directory\n")


def test_a_picture_of_a_program(result, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, err = result("-n", "2", "--stats-png", "map.png", "-c", PING_PONG)
    assert code == 0
    assert "mostly on" in err
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
