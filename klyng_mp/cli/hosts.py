"""``klyng-mp hosts``: a look at every host of a machines file.

Layer: cli.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.errors import KlyngError, MachinesError
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.client import connect, probe
from klyng_mp.remote.home import Home
from klyng_mp.remote.hosts import read_hosts
from klyng_mp.remote.versions import describe_here

if TYPE_CHECKING:
    import argparse

    from klyng_mp.remote.hosts import Host

__all__ = ["look_at", "main", "render"]

_COLUMNS = ("HOST", "STATE", "PYTHON", "KLYNG_MP", "FREE", "PLACES", "LOAD", "ROUND TRIP", "BANDWIDTH")


def main(options: argparse.Namespace) -> int:
    """Print what hosts are like; return the exit code.

    Raises:
        MachinesError: they are not named as they should be.
    """
    if (options.machines is None) == (not options.hosts):
        raise MachinesError("name the hosts: klyng-mp hosts -m machines.json, or klyng-mp hosts HOST ...")
    hosts = read_hosts(options.machines if options.machines is not None else options.hosts)
    home = Home()
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as threads:
        found = list(threads.map(lambda host: look_at(host, home), hosts))
    print(json.dumps(found, indent=2) if options.json else render(found))
    return 1 if any(one["error"] for one in found) else 0


def look_at(host: Host, home: Home) -> dict[str, Any]:
    """Return what a host is like, or why it cannot be used: its ``error``."""
    found: dict[str, Any] = {"host": host.key, "error": ""}
    if host.is_local:
        here = describe_here([])
        places = host.max_procs or usable_cpus()
        return found | {"python": here["python"], "klyng_mp": here["klyng_mp"], "free": places, "places": places}
    try:
        link = connect(host, home)
    except KlyngError as error:
        return found | {"error": str(error)}
    try:
        deadline = Deadline(5.0)
        link.send_now(deadline, "status")
        said = link.receive_now(deadline, "status_reply").fields
        measured = probe(link)
    except (KlyngError, OSError, EOFError) as error:
        return found | {"error": f"it broke off: {error}"}
    finally:
        link.close(goodbye=True)
    return found | {
        "python": said["versions"].get("python", ""),
        "klyng_mp": said["versions"].get("klyng_mp", ""),
        "free": max(0, said["max_ranks"] - said["ranks"]),
        "places": host.max_procs or said["cpus"],
        "load": said["load_percent"] / 100,
        "round_trip_seconds": measured.round_trip,
        "bytes_per_second": measured.bandwidth,
    }


def render(found: list[dict[str, Any]]) -> str:
    """Return the table, with what is wrong below it."""
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"{one['host']}: {one['error']}" for one in found if one["error"]]
    return "\n".join(lines)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    def show(key: str, form: str, scale: float = 1.0) -> str:
        return form.format(one[key] * scale) if key in one else "-"

    return (
        one["host"],
        "cannot be used" if one["error"] else "ready",
        one.get("python", "-"),
        one.get("klyng_mp", "-"),
        show("free", "{:.0f}"),
        show("places", "{:.0f}"),
        show("load", "{:.2f}"),
        show("round_trip_seconds", "{:.2f} ms", 1e3),
        show("bytes_per_second", "{:.0f} MB/s", 1e-6),
    )
