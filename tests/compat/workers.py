"""One worker process from outside: what it is asked, what it says, and how it and all that it started are ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COOKIE = "KLYNG_MP_COMPAT_COOKIE"
WORKER = Path(__file__).with_name("worker.py")
LATENESS = 3.0  # seconds between the worker's printing its stacks and its being killed
TRACKER_SECONDS = 5.0  # what a resource tracker may take to remove what killed tests have left
LOG_TAIL = 6000
GOOD = ("passed", "skipped")


@dataclass
class Outcome:
    """What became of one test."""

    test: str
    outcome: str  # passed, skipped, failed, error, hung, crashed or unrun
    seconds: float = 0.0
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether it passed or was skipped."""
        return self.outcome in GOOD


@dataclass
class Request:
    """Tests of one class that are to be run."""

    module: str
    name: str
    pattern: str = ""  # of the names of the tests; all have this one
    tests: list[str] | None = None  # those that have the pattern
    found: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def rest(self) -> list[str]:
        """Return the tests that have no outcome yet."""
        return [test for test in self.found if test not in self.outcomes]


class Worker:
    """A process that runs requests, and what it said about them."""

    def __init__(self, place: Path, limit: float, environment: dict[str, str]):
        self.limit, self.cookie = limit, uuid.uuid4().hex
        self.request: Request | None = None
        self.current: str | None = None
        self.deadline = 0.0
        self.clean, self.done = True, False
        self._rest, self._at_end = b"", False
        self.log = place.parent / f"{place.name}-{self.cookie[:8]}.log"
        self.reports, theirs = os.pipe()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), str(theirs), str(limit)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=place,
                env={**environment, COOKIE: self.cookie},
                pass_fds=[theirs],
                start_new_session=True,
            )
        os.close(theirs)
        self.ended = os.pidfd_open(self.process.pid)

    def begin(self, request: Request) -> None:
        """Give the worker its next request."""
        self.request, self.current, self.done = request, None, False
        words = {"module": request.module, "class": request.name, "tests": request.tests, "pattern": request.pattern}
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()
        self.deadline = time.monotonic() + 2 * self.limit + LATENESS

    def dead(self) -> bool:
        """Tell whether the process has ended, and all that it said is read."""
        ready, _, _ = select.select([self.ended, self.reports], [], [], 0)
        return self.ended in ready and (self.reports not in ready or self._at_end)

    def read(self) -> None:
        """Take in what it has reported."""
        came = os.read(self.reports, 1 << 20)
        self._at_end = not came
        *lines, self._rest = (self._rest + came).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        request = self.request
        self.deadline = time.monotonic() + self.limit + LATENESS
        match event["event"]:
            case "tests":
                request.found = event["tests"]
            case "start":
                self.current = event["test"]
            case "end":
                self._settle(event["test"], event["outcome"], event["seconds"], event["detail"])
                self.current = None
            case "skipped":
                for test in request.rest():
                    self._settle(test, "skipped", 0.0, event["detail"])
            case "broken":
                self.clean = False
                for test in request.rest():
                    self._settle(test, "error", 0.0, event["detail"])
            case "done":
                for test in request.rest():
                    self._settle(test, "unrun")
                self.done = True

    def _settle(self, test: str, outcome: str, seconds: float = 0.0, detail: str = "") -> None:
        done = Outcome(test, outcome, seconds, detail)
        self.clean &= done.good
        self.request.outcomes[test] = done

    def give_up(self, outcome: str) -> Request | None:
        """Note why the request was not finished; return one for the rest of it."""
        request, self.clean = self.request, False
        detail = self.log.read_text("utf-8", errors="replace")[-LOG_TAIL:]
        stuck = [self.current] if self.current else request.rest() or [f"{request.name}.<class>"]
        for test in stuck:
            request.outcomes[test] = Outcome(test, outcome, self.limit, detail)
        rest = request.rest()
        return Request(request.module, request.name, tests=rest) if rest else None

    def end(self) -> None:
        """End the process and all that it has started."""
        self.process.stdin.close()
        if self.clean:
            select.select([self.ended], [], [], self.limit)
        finish(self.process, self.cookie)
        os.close(self.ended)
        os.close(self.reports)


def finish(process: subprocess.Popen, cookie: str) -> None:
    """Kill what a worker has left; its resource tracker last, as that cleans up when the others are gone."""
    kill(process.pid)
    process.wait()
    found = carriers(cookie)
    trackers = {pid for pid in found if b"resource_tracker" in read(pid, "cmdline")}
    while others := found - trackers:
        for pid in others:
            kill(pid)
        found = carriers(cookie)  # those may have been starting more
    for pid in trackers:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [], TRACKER_SECONDS)
            os.close(handle)
        kill(pid)


def kill(pid: int) -> None:
    """Kill one process, unless it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def read(pid: int, name: str) -> bytes:
    """Return a file of /proc, or nothing if the process has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def carriers(cookie: str) -> set[int]:
    """Return the processes that were started with the cookie in their environment, or forked from such."""
    needle = f"{COOKIE}={cookie}".encode()
    numbers = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return {pid for pid in numbers if needle in read(pid, "environ")}
