"""``klyng-mp hosts --watch``: the table of hosts again and again, until Ctrl-C.

Layer: cli. A thread for each host looks at it, so that one that does not answer holds up no other; this one shows what
they have found.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from klyng_mp.cli.hosts_look import COLUMNS, HostLook, render, row_of, set_out
from klyng_mp.deadline import Deadline
from klyng_mp.remote.history import say_duration
from klyng_mp.remote.records import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.remote.home import Home
    from klyng_mp.remote.hosts import Host

__all__ = ["HostWatch", "watch"]

_LEAVE_SECONDS = 0.5  # for threads to say goodbye; those that wait for an answer are not waited for

Found = dict[str, Any]


def watch(hosts: Sequence[Host], home: Home, seconds: float, *, as_json: bool) -> int:
    """Show what hosts are like, in place on a terminal, elsewhere as lines, until Ctrl-C; return the exit code.

    Args:
        hosts: which.
        home: has what is proved to them.
        seconds: from one time to the next.
        as_json: as lines of JSON.
    """
    watches = [HostWatch(host, home, seconds) for host in hosts]
    show = _show_json if as_json else _show_in_place if sys.stdout.isatty() else _Lines().show
    began = time.monotonic()
    try:
        for one in watches:
            one.start()
        for one in watches:
            one.wait()
        never = threading.Event()
        while True:
            show([one.found() for one in watches])
            never.wait(seconds)
    except KeyboardInterrupt:
        print(
            f"{_to_first_column()}watched {_count(hosts)} for {say_duration(time.monotonic() - began)}", file=sys.stderr
        )
    except BrokenPipeError:  # into head, say; and there is nobody to tell at the end either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for one in watches:
            one.stop()
        deadline = Deadline(_LEAVE_SECONDS)
        for one in watches:
            one.leave(deadline.left())
    return 0


class HostWatch:
    """One host, which a thread looks at every so many seconds.

    Args:
        host: which.
        home: has what is proved to it.
        seconds: from the end of one look to the next.
    """

    def __init__(self, host: Host, home: Home, seconds: float) -> None:
        self._look = HostLook(host, home)
        self._seconds = seconds
        self._stopped = threading.Event()
        self._looked = threading.Event()
        self._found: Found = {"host": host.key, "error": "it was not looked at"}
        self._thread = threading.Thread(target=self._run, name=f"watch {host.key}", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until it has been looked at once."""
        self._looked.wait()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def leave(self, seconds: float | None) -> None:
        """Wait until the host was left, but not for long."""
        self._thread.join(seconds)

    def found(self) -> Found:
        """Return what the last look has found; of a host that cannot be used, the time since when as well."""
        return self._found

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                found = self._look.take()
                if found["error"]:
                    found["since"] = self._found.get("since") or time.time()
                self._found = found
                self._looked.set()
                self._pause()
        finally:
            self._looked.set()
            self._look.close()

    def _pause(self) -> None:
        """Wait for the next look; a session ends of which nothing is heard for long."""
        deadline = Deadline(self._seconds)
        while (left := deadline.left()) and not self._stopped.wait(min(left, HEARTBEAT_SECONDS)):
            self._look.stay()


# -- how it is shown


def _show_json(found: list[Found]) -> None:
    print(json.dumps({"time": time.time(), "hosts": found}), flush=True)


def _show_in_place(found: list[Found]) -> None:
    width, height = shutil.get_terminal_size()
    told = [one | {"error": _say_error(one)} for one in found]
    lines = [f"{_clock(time.time())}, Ctrl-C ends it", "", *render(told).splitlines()]
    shown = [f"{line[: width - 1]}\x1b[K\n" for line in lines[: max(1, height - 1)]]
    print(f"\x1b[H{''.join(shown)}\x1b[J", end="", flush=True)


class _Lines:
    """Lines for a file or a pipe: one for each host and time, which says all of it."""

    def __init__(self) -> None:
        self._begun = False

    def show(self, found: list[Found]) -> None:
        clock = _clock(time.time())
        rows = [("TIME", *COLUMNS), *((clock, *row_of(one)) for one in found)]
        lines = set_out(rows)
        for line, one in zip(lines[1:], found, strict=True):
            if not self._begun:
                print(lines[0])
                self._begun = True
            print(f"{line}  {_say_error(one)}".rstrip(), flush=True)


def _say_error(one: Found) -> str:
    if not one["error"]:
        return ""
    since = one.get("since", time.time())
    return f"{one['error']} (since {_clock(since)}, {say_duration(time.time() - since)})"


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))


def _count(hosts: Sequence[Host]) -> str:
    return "1 host" if len(hosts) == 1 else f"{len(hosts)} hosts"


def _to_first_column() -> str:
    return "\r\x1b[K" if sys.stderr.isatty() else ""  # the terminal has shown ^C
