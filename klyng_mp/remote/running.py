"""Which beacon runs on this machine for this user, so that others find it: one at most.

Layer: remote; one file of `Home`, and /proc.

What the file says is believed only while the process that it names lives. Numbers of processes are used again, so that
one is known by its start as well.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BeaconError

if TYPE_CHECKING:
    from klyng_mp.remote.home import Home

__all__ = ["RunState", "announce", "find_beacon", "retract"]


class RunState(NamedTuple):
    """A beacon that runs.

    Attributes:
        pid: its process.
        start: when that began, in the kernel's ticks since the machine did; with the boot's id.
        address: where it listens.
        port: its port.
        fingerprint: of its certificate.
    """

    pid: int
    start: str
    address: str
    port: int
    fingerprint: str


def announce(home: Home, address: str, port: int, fingerprint: str) -> RunState:
    """Say that this process is the beacon, and return what was said.

    Raises:
        BeaconError: another one runs, or the file cannot be written; nothing was changed.
    """
    pid = os.getpid()
    state = RunState(pid, _start_of(pid) or "", address, port, fingerprint)
    with home.lock():
        other = find_beacon(home)
        if other is not None and other.pid != pid:
            raise BeaconError(
                f"a beacon runs already: process {other.pid}, at {other.address} port {other.port}; "
                f"use that one, or end it first (klyng-mp beacon down)"
            )
        home.write(home.state, json.dumps(state._asdict()) + "\n")
    return state


def find_beacon(home: Home) -> RunState | None:
    """Return the beacon that runs on this machine for this folder; None if there is none, whatever an old file says.

    Raises:
        BeaconError: the file cannot be read.
    """
    try:
        state = RunState(**json.loads(home.read(home.state) or "{}"))
    except (ValueError, TypeError, RecursionError):  # none, or cut short by a full disk: no beacon has written that
        return None
    if [type(value) for value in state] != [int, str, str, int, str] or not state.start:
        return None
    return state if _start_of(state.pid) == state.start else None


def retract(home: Home) -> None:
    """Say that this process is the beacon no more; nothing where it is not.

    Raises:
        BeaconError: the file cannot be removed; it is not believed when this process has ended.
    """
    with home.lock():
        state = find_beacon(home)
        if state is not None and state.pid == os.getpid():
            try:
                os.unlink(home.state)
            except OSError as error:
                raise BeaconError(f"{home.state} cannot be removed: {error.strerror}; remove it") from error


def _start_of(pid: int) -> str | None:
    """Return what tells a process from all others that had or will have its number; None if it does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # its name before that may have anything in it
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return None
    # Field 3 and field 22, as proc(5) counts them.
    return None if len(fields) < 20 or fields[0] in ("Z", "X") else f"{fields[19]}@{boot}"
