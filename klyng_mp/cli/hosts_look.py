"""A look at one host of a machines file, and the table of several.

Layer: cli.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.deadline import Deadline
from klyng_mp.errors import KlyngError
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.client import Probe, connect, probe
from klyng_mp.remote.versions import describe_here

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.hosts import Host

__all__ = ["COLUMNS", "HostLook", "look_at", "render", "row_of", "set_out"]

COLUMNS = ("HOST", "STATE", "PYTHON", "KLYNG_MP", "FREE", "PLACES", "LOAD", "ROUND TRIP", "BANDWIDTH")
_ANSWER_SECONDS = 5.0

Found = dict[str, Any]


def look_at(host: Host, home: Home) -> Found:
    """Return what a host is like, or why it cannot be used: its ``error``."""
    look = HostLook(host, home)
    try:
        return look.take()
    finally:
        look.close()


class HostLook:
    """Looks at a host, as often as it is told to, over one connection as long as that holds.

    Args:
        host: which.
        home: has what is proved to it.

    Threads: one at a time.
    """

    def __init__(self, host: Host, home: Home) -> None:
        self.host = host
        self._home = home
        self._link: ControlLink | None = None
        self._bandwidth: float | None = None  # measured once a connection, as it costs 2 MiB

    def take(self) -> Found:
        """Return what the host is like now, or why it cannot be used: its ``error``."""
        host = self.host
        found: Found = {"host": host.key, "error": ""}
        if host.is_local:
            here = describe_here([])
            places = host.max_procs or usable_cpus()
            return found | {"python": here["python"], "klyng_mp": here["klyng_mp"], "free": places, "places": places}
        try:
            if self._link is None:
                self._link = connect(host, self._home)
        except KlyngError as error:
            return found | {"error": str(error)}
        try:
            return found | self._ask(self._link)
        except (KlyngError, OSError, EOFError) as error:
            self.close()
            return found | {"error": f"it broke off: {error}"}

    def stay(self) -> None:
        """Let the host know that this side is there still; an end is met at the next look."""
        try:
            if self._link is not None:
                self._link.send("ping")
        except (KlyngError, OSError):
            self.close()

    def close(self) -> None:
        """Leave the host."""
        link, self._link, self._bandwidth = self._link, None, None
        if link is not None:
            link.close(goodbye=True)

    def _ask(self, link: ControlLink) -> Found:
        deadline = Deadline(_ANSWER_SECONDS)
        link.send_now(deadline, "status")
        said = link.receive_now(deadline, "status_reply").fields
        if self._bandwidth is None:
            measured = probe(link)
            self._bandwidth = measured.bandwidth
        else:
            measured = Probe(probe(link, size_bytes=1).round_trip, self._bandwidth)
        return {
            "python": said["versions"].get("python", ""),
            "klyng_mp": said["versions"].get("klyng_mp", ""),
            "free": max(0, said["max_ranks"] - said["ranks"]),
            "places": self.host.max_procs or said["cpus"],
            "load": said["load_percent"] / 100,
            "round_trip_seconds": measured.round_trip,
            "bytes_per_second": measured.bandwidth,
        }


def render(found: Sequence[Found]) -> str:
    """Return the table, with what is wrong below it."""
    lines = set_out([COLUMNS, *map(row_of, found)])
    lines += [f"{one['host']}: {one['error']}" for one in found if one["error"]]
    return "\n".join(lines)


def set_out(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of words as lines with columns."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def row_of(one: Found) -> tuple[str, ...]:
    """Return a host's words in the table."""

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
