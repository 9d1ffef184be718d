"""Programs that a test starts as a user would, watches, signals, and always ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FACTOR = float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))


def environment(extra=None):
    """Return this process's environment, in which klyng_mp can be imported; None as a value removes a name."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(extra or {})}
    return {name: value for name, value in values.items() if value is not None}


def write_script(folder, text, name="driver.py"):
    path = Path(folder) / name
    path.write_text(textwrap.dedent(text))
    return path


class Program:
    """A Python process; its standard error goes to a file, so that only its output must be read.

    ``start`` is who starts it: Popen, or what starts programs on another host, as `networks.Host.run`.
    """

    def __init__(self, *words, cwd, env=None, start=subprocess.Popen, **keywords):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the program
        self.out = ""
        self.process = start(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env=environment(env),
            stderr=self._errors,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **keywords},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self._errors, self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    @property
    def pid(self):
        return self.process.pid

    @property
    def err(self):
        """What it has written to standard error."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def signal(self, signum):
        self.process.send_signal(signum)

    def wait_for(self, text, count=1, seconds=30):
        """Read its output until it has this text so many times."""
        end = time.monotonic() + seconds * FACTOR
        while self.out.count(text) < count:
            assert self._read(end), f"{text!r} never came; instead:\n{self.out}\n{self.err}"

    def answer(self, key, seconds=30):
        """Read its output until there is a line ``key: …``; return what follows, split into words."""
        self.wait_for(f"{key}: ", seconds=seconds)
        end = time.monotonic() + seconds * FACTOR
        while "\n" not in (rest := self.out.partition(f"{key}: ")[2]):
            assert self._read(end), f"the line {key!r} never ended:\n{self.out}\n{self.err}"
        return rest.partition("\n")[0].split()

    def finish(self, seconds=30):
        """Read its output to the end, wait for it, and return its exit code."""
        end = time.monotonic() + seconds * FACTOR
        while self.process.stdout is not None and self._read(end):
            pass
        try:
            return self.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds} s:\n{self.out}\n{self.err}") from None

    def _read(self, end):
        fd = self.process.stdout.fileno()
        ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"nothing more came in time:\n{self.out}\n{self.err}"
        data = os.read(fd, 1 << 16)
        self.out += data.decode(errors="replace")
        return bool(data)


def start_script(folder, text, *words, **keywords):
    return Program(write_script(folder, text), *words, cwd=folder, **keywords)


def run_script(folder, text, *words, seconds=30, **keywords):
    """Run a script that must end well and say nothing on standard error; return its output."""
    with start_script(folder, text, *words, **keywords) as program:
        code = program.finish(seconds)
        assert (code, program.err) == (0, ""), f"exit code {code}\n{program.out}\n{program.err}"
        return program.out


# -- looking at processes --------------------------------------------------------------------------


def still_there(pids, seconds=2.0):
    """Return those of the processes that have not ended after so many seconds."""
    end = time.monotonic() + seconds * FACTOR
    return [pid for pid in map(int, pids) if not _ends_before(pid, end)]


def _ends_before(pid, end):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], max(0.0, end - time.monotonic()))[0])
    finally:
        os.close(handle)


def children_of(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def zygote_of(pid):
    """Return the process id of a driver's zygote."""
    found = [child for child in children_of(pid) if b"zygote_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 1, f"zygotes of {pid}: {found}"
    return found[0]


def state_of(pid):
    """Return the letter that ps shows for a process: R, S, T (stopped), Z…."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(condition, seconds=10.0):
    """Wait for what nothing can be waited on: the state of somebody else's process."""
    end = time.monotonic() + seconds * FACTOR
    while not condition():
        assert time.monotonic() < end, f"this did not become true within {seconds} s"
        select.select([], [], [], 0.01)


def kill(pid, signum=signal.SIGKILL):
    os.kill(int(pid), signum)


# -- gates: named pipes between a test and its ranks -------------------------------------------------


def make_gates(folder, count):
    for number in range(count):
        os.mkfifo(Path(folder) / f"gate{number}")


def open_gate(folder, number):
    """Let the rank that waits at its gate go on; waits for it to be there."""
    (Path(folder) / f"gate{number}").write_text("")


def read_gate(folder, number):
    """Wait for what a rank writes into its gate."""
    return (Path(folder) / f"gate{number}").read_text()
