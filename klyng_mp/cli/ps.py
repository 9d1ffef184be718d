"""``klyng-mp ps``: what the ranks of this user's Worlds and programs do, asked of the processes that supervise them.

Layer: cli. A supervisor's address is found in /proc; it is believed what it says only if it is of the user that its
address names, who is also the user who asks, or root asks.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any

from klyng_mp.launch.hangs import render_report
from klyng_mp.launch.listener import ADDRESS, peer_of
from klyng_mp.launch.state import SILENT, WAITING, RankState

__all__ = ["collect", "render_detail", "render_json", "render_table", "select"]

_ANSWER_SECONDS = 5.0
_HEADINGS = ("RANK", "PID", "PROCESS", "STATE", "CALL", "SINCE", "WHERE")
_HOLDER = _HEADINGS.index("PROCESS")  # shown only where processes that were started hold places
_PREFIX = "@" + ADDRESS.partition("/")[0][1:] + "/"  # as /proc/net/unix shows it

Report = dict[str, Any]


def collect() -> list[Report]:
    """Return what each supervisor of this user (of any user, for root) reports, by their process numbers."""
    own = os.geteuid()
    reports = []
    for uid, pid in sorted(_addresses()):
        if own in (uid, 0) and (report := _ask(uid, pid)) is not None:
            reports.append(report)
    return reports


def _addresses() -> set[tuple[int, int]]:
    found = set()
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
        for line in table:
            _, mark, rest = line.rstrip("\n").partition(_PREFIX)
            uid, _, pid = rest.partition("/")
            if mark and uid.isdecimal() and pid.isdecimal():
                found.add((int(uid), int(pid)))
    return found


def _ask(uid: int, pid: int) -> Report | None:
    """Return one supervisor's report; None if it has ended meanwhile, or is not who its address says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        try:
            sock.connect(ADDRESS.format(uid=uid, pid=pid))
            if peer_of(sock) != (pid, uid):
                return None
            data = b"".join(iter(lambda: sock.recv(1 << 16), b""))
            report: Report = json.loads(data)
        except (OSError, ValueError):
            return None
    for world in report["worlds"]:
        world["ranks"] = [_state_of(rank) for rank in world["ranks"]]
    return report


def _state_of(record: dict[str, Any]) -> RankState:
    """Rebuild a state from JSON, which has neither tuples nor keys that are numbers."""
    peers = record["peers"]
    return RankState(**record)._replace(
        peers=None if peers is None else tuple(peers),
        doubts=tuple(record["doubts"]),
        sent={int(rank): count for rank, count in record["sent"].items()},
        unclaimed=tuple((source, tag) for source, tag in record["unclaimed"]),
    )


def select(reports: list[Report], pid: int) -> list[Report]:
    """Return what belongs to a process: all of a driver, a command or a supervisor; for a rank, its World only."""
    chosen = []
    for report in reports:
        worlds = report["worlds"]
        if pid not in (report["driver"], report["supervisor"]):
            worlds = [world for world in worlds if any(state.pid == pid for state in world["ranks"])]
            if not worlds:
                continue
        chosen.append({**report, "worlds": worlds})
    return chosen


def render_table(reports: list[Report]) -> str:
    """Return one line for each rank, under one for each World or program."""
    blocks = []
    for report in reports:
        for world in report["worlds"]:
            rows = [_HEADINGS, *(_row(state) for state in world["ranks"])]
            if not any(state.holder for state in world["ranks"]):
                rows = [(*row[:_HOLDER], *row[_HOLDER + 1 :]) for row in rows]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
            blocks.append("\n".join([_heading(report, world), *(f"  {line}" for line in lines)]))
    return "\n".join(blocks) if blocks else "there are no ranks"


def render_detail(reports: list[Report]) -> str:
    """Return all that is known of each rank."""
    blocks = [
        f"{_heading(report, world)}\n{render_report(world['ranks'])}"
        for report in reports
        for world in report["worlds"]
    ]
    return "\n".join(blocks) if blocks else "it has no ranks now"


def render_json(reports: list[Report]) -> str:
    """Return the reports as one JSON list; the fields of a rank are those of `RankState`."""
    shown = [
        {**report, "worlds": [{**world, "ranks": [state._asdict() for state in world["ranks"]]} for world in worlds]}
        for report in reports
        for worlds in [report["worlds"]]
    ]
    return json.dumps(shown, indent=2)


def _heading(report: Report, world: dict[str, Any]) -> str:
    return f"{world['size']} ranks of process {report['driver']}: {_command_of(report['driver'])}"


def _command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split("\0")).strip()
    except OSError:
        return "(has ended)"


def _row(state: RankState) -> tuple[str, ...]:
    since = ""
    where = state.where
    if state.phase == WAITING:
        since = f"{max(0.0, time.monotonic() - state.since):.1f} s"
    elif state.phase == SILENT:
        where = next((line[3:] for line in state.stack.splitlines() if line.startswith("at ")), "")
    return str(state.rank), str(state.pid), state.holder, state.phase, state.call, since, where
