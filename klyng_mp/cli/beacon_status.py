"""``klyng-mp beacon status``: the beacon of this user on this machine, what it does, and what became of its last jobs.

Layer: cli.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.errors import BeaconError
from klyng_mp.remote.client import connect
from klyng_mp.remote.history import OUTCOMES, Origin, say_duration
from klyng_mp.remote.hosts import Host, Secret
from klyng_mp.remote.running import find_beacon

if TYPE_CHECKING:
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.running import RunState

__all__ = ["ask", "running_beacon", "show_state", "show_status"]

_ANSWER_SECONDS = 5.0


def running_beacon(home: Home) -> RunState:
    """Return the beacon that runs.

    Raises:
        BeaconError: there is none.
    """
    state = find_beacon(home)
    if state is None:
        raise BeaconError("no beacon runs here: start one (klyng-mp beacon up)")
    return state


def ask(state: RunState, home: Home, password: str) -> dict[str, Any]:
    """Return what a beacon says of itself, as a client of it.

    Raises:
        BeaconError: it does not let us in, or does not answer.
    """
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(state.address, state.address)  # noqa: S104 - it is asked, not bound
    name = f"{address}:{state.port}"
    host = Host(name, address, state.port, password=Secret(password), fingerprint=state.fingerprint)
    link = connect(host, home)
    try:
        deadline = Deadline(_ANSWER_SECONDS)
        link.send_now(deadline, "status")
        return link.receive_now(deadline, "status_reply").fields
    finally:
        link.close(goodbye=True)


def show_state(state: RunState, home: Home, *, made_password: bool) -> str:
    """Return lines that say where a beacon is, who it is, and where its password and its log are."""
    where = f"[{state.address}]:{state.port}" if ":" in state.address else f"{state.address}:{state.port}"
    made = " (made now)" * made_password
    return (
        f"beacon at {where}, process {state.pid}\n"
        f"fingerprint {state.fingerprint}\n"
        f"password in {home.password}{made}, log in {home.log}"
    )


def show_status(state: RunState, said: dict[str, Any], home: Home, *, as_json: bool) -> str:
    """Return what is printed of what a beacon has said of itself."""
    if as_json:
        jobs = {name: [{**job, "id": job["id"].hex()} for job in said[name]] for name in ("jobs", "ended")}
        return json.dumps({**state._asdict(), **said, **jobs})
    lines = [
        show_state(state, home, made_password=False),
        f"{said['ranks']} of {said['max_ranks']} ranks, load {said['load_percent'] / 100:.2f} on {said['cpus']} CPUs",
        ", ".join(f"{name} {text}" for name, text in said["versions"].items()),
    ]
    for job in said["jobs"]:
        lines += [f"{_name(job)}, for {say_duration(job['age_seconds'])}", *_troubles(job)]
    for job in said["ended"]:
        lasted, ago = say_duration(job["lasted_ms"] / 1000), say_duration(job["ago_seconds"])
        lines.append(f"{_name(job)}, {job['outcome']} {ago} ago, after {lasted}")
        lines += [f"    {line}" for line in _reasons(job)] + _troubles(job)
    return "\n".join(lines)


def _name(job: dict[str, Any]) -> str:
    client = Origin(job["owner"], job["method"], job["address"])
    return f"job {job['id'].hex()[:8]}: {job['ranks']} ranks for {client}"


def _reasons(job: dict[str, Any]) -> list[str]:
    limit = [f"limit {job['limit']}"] if job["limit"] else []
    return [*limit, job["reason"] or OUTCOMES[job["outcome"]]]


def _troubles(job: dict[str, Any]) -> list[str]:
    if not job["troubles"]:
        return []
    runs = "a run was" if job["troubles"] == 1 else f"{job['troubles']} runs were"
    return [f"    {runs} ended early, the last by this: {job['trouble']}"]
