"""Beacons for tests: real processes, on this machine or on a host of a test's network, with folders of their own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import FACTOR, children_of, environment, wait_until

__all__ = ["Beacon", "beacon_on", "beacons", "beacons_here", "client_home", "hosts"]

START_SECONDS = 15.0
TIDY_SECONDS = 5.0  # in which a beacon has got rid of a job that has ended


class Beacon:
    """A beacon that listens; ended with the ``with`` block.

    Args:
        folder: where its KLYNG_MP_HOME and its TMPDIR are made.
        options: lines of its beacon.toml.
        address, port: where it is to listen; 0: at a port that is free.
        start: who starts it, as `programs.Program` has it.
        env: more of its environment.
    """

    def __init__(self, folder, options="", *, address="127.0.0.1", port=0, start=subprocess.Popen, env=None):
        self.home, self.tmp = Path(folder) / ".klyng_mp", Path(folder) / "tmp"
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.tmp.mkdir(exist_ok=True)
        if options:
            (self.home / "beacon.toml").write_text(options)
        values = environment({"KLYNG_MP_HOME": str(self.home), "TMPDIR": str(self.tmp), **(env or {})})
        self.process = start(
            [sys.executable, "-m", "klyng_mp.beacon", f"--host={address}", f"--port={port}", "--allow-root"],
            cwd=folder,
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            first, second = self._read_lines(3)[:2]
        except BaseException:
            self.kill()
            raise
        self.address = address
        self.port = int(first.split(",")[0].rpartition(":")[2])
        self.fingerprint = second.split()[1]
        self.password = (self.home / "password").read_text().strip()
        wait_until(
            lambda: f"listening at {address} port {self.port} " in self.log
        )  # then it has all descriptors that it will keep
        self._fds = self.fds()

    def _read_lines(self, count):
        """Return what it says first: its address, its fingerprint, where its password is."""
        text, end = b"", time.monotonic() + START_SECONDS * FACTOR
        out = self.process.stdout
        while text.count(b"\n") < count:
            ready, _, _ = select.select([out], [], [], max(0.0, end - time.monotonic()))
            more = os.read(out.fileno(), 65536) if ready else b""
            assert more, f"the beacon did not come up; it said: {text.decode()}"
            text += more
        return text.decode().splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.stop()

    @property
    def pid(self):
        return self.process.pid

    @property
    def key(self):
        """What messages call it."""
        return f"{self.address}:{self.port}"

    def entry(self, max_procs=2, **more):
        """Return what a list of hosts says of it."""
        return {"host": self.key, "passwd": self.password, "max_procs": max_procs, **more}

    @property
    def log(self):
        return "".join(path.read_text() for path in sorted(self.home.glob("beacon.*.log")))

    def fds(self):
        """Return its descriptors, and what each is."""
        found = {}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found[name] = os.readlink(f"/proc/{self.pid}/fd/{name}")
        return found

    def sessions(self):
        """Return its session processes."""
        return children_of(self.pid)

    def leftovers(self):
        """Return what it has that it had not when it came up: processes, descriptors, files."""
        found = [f"process {pid}" for pid in self.sessions()]
        found += [f"descriptor {name} -> {what}" for name, what in self.fds().items() - self._fds.items()]
        return found + [str(path) for path in self.tmp.glob("*")]

    def check_tidy(self, before=()):
        """Wait until nothing of any job is left but what was there before, and fail if that is not soon."""
        left = []

        def is_tidy():
            left[:] = set(self.leftovers()) - set(before)
            return not left

        with contextlib.suppress(AssertionError):
            wait_until(is_tidy, TIDY_SECONDS)
        assert not left, f"{left}; its log:\n{self.log}"
        assert self.process.poll() is None

    def stop(self):
        """Let it end as ``klyng-mp beacon down`` does, unless it was killed."""
        if self.process.stdout.closed:
            return
        with self.process.stdout:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                assert self.process.wait(15 * FACTOR) == 0, self.log
            finally:
                self.kill()

    def kill(self):
        """Kill it alone, as kill -9 does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def beacons_here(folder, count=2, options=""):
    """Give beacons on this machine."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Beacon(Path(folder) / f"host{number}", options)) for number in range(count)]


def beacon_on(host, options=""):
    """Return a beacon on a host of a network; it ends with the network, if not before."""
    return Beacon(host.home, options, address=host.address, start=host.run)


# -- as fixtures: a room's conftest imports them ----------------------------------------------------


@pytest.fixture(scope="module")
def beacons(tmp_path_factory):
    """Two beacons on this machine, for all tests of a module."""
    with beacons_here(tmp_path_factory.mktemp("beacons")) as made:
        yield made


@pytest.fixture
def client_home(tmp_path, monkeypatch):
    """A KLYNG_MP_HOME of the test's own."""
    path = tmp_path / "client"
    monkeypatch.setenv("KLYNG_MP_HOME", str(path))
    return path


@pytest.fixture
def hosts(beacons, client_home):
    """What ``World(hosts=...)`` takes: the two beacons, with two ranks each; in the end nothing may be left there."""
    before = [beacon.leftovers() for beacon in beacons]
    yield [beacon.entry() for beacon in beacons]
    for beacon, had in zip(beacons, before, strict=True):
        beacon.check_tidy(had)
