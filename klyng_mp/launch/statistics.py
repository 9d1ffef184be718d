"""What a rank has done with its time, and what it sent to whom: as data, and as a table for people.

Layer: launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.wire.frames import DRIVER
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.communicator.endpoint import Endpoint

__all__ = ["RankStatistics", "collect", "format_table", "unknown"]

_LARGEST_MATRIX = 16  # ranks; a wider one fits no terminal
_TOP_PAIRS = 10


class RankStatistics(NamedTuple):
    """What one rank has done in all runs since its process was started.

    Messages of collectives count as any other; those to itself, and what driver and rank say to each other, do not.

    Attributes:
        rank: its number.
        computing_s: seconds within the functions that it ran (or the program), less `waiting_s`.
        waiting_s: seconds in calls that had to wait: for a message, for room, for a connection. The time in which what
            is waited for is being moved belongs to it; the first few microseconds of a wait do not, and looking for a
            message by ``iprobe`` or ``test`` does not. Threads that wait at the same time count each.
        waiting_on: of them, by the rank that was waited for; ANY_SOURCE (-1) where it was not a single one.
        waits: how often it waited.
        messages: how many it has sent, by receiver.
        bytes: how many bytes these had on their way, with their headers, by receiver.
        slab_bytes: bytes of shared memory that objects which it received, and has kept, lie in.
        connections_dropped: how many connections from other hosts it has turned away, as too many were being proved; if
            it is not 0, somebody replays what was overheard.
    """

    rank: int
    computing_s: float
    waiting_s: float
    waiting_on: dict[int, float]
    waits: int
    messages: dict[int, int]
    bytes: dict[int, int]
    slab_bytes: int
    connections_dropped: int = 0


def unknown(rank: int) -> RankStatistics:
    """Return the statistics of a rank that has done nothing, as far as is known."""
    return RankStatistics(rank, 0.0, 0.0, {}, 0, {}, {}, 0)


def collect(endpoint: Endpoint, inside_ns: int) -> RankStatistics:
    """Return the statistics of the rank whose endpoint this is, which has spent so many nanoseconds in runs."""
    waited, traffic = endpoint.waited(), endpoint.traffic()
    for counts in (waited, traffic):
        counts.pop(DRIVER, None)
    waiting = sum(nanoseconds for nanoseconds, _ in waited.values())
    return RankStatistics(
        rank=endpoint.number,
        computing_s=max(0, inside_ns - waiting) / 1e9,
        waiting_s=waiting / 1e9,
        waiting_on={whom: nanoseconds / 1e9 for whom, (nanoseconds, _) in sorted(waited.items())},
        waits=sum(waits for _, waits in waited.values()),
        messages={peer: messages for peer, (messages, _) in sorted(traffic.items())},
        bytes={peer: size for peer, (_, size) in sorted(traffic.items())},
        slab_bytes=0 if endpoint.port is None else endpoint.port.living_bytes,
    )


def format_table(ranks: Sequence[RankStatistics]) -> str:
    """Return what the ranks have done as text: a line a rank, then what went from whom to whom."""
    small = max((one.rank for one in ranks), default=0) < _LARGEST_MATRIX
    return "\n\n".join([_times(ranks), _matrix(ranks) if small else _largest(ranks)])


def _times(ranks: Sequence[RankStatistics]) -> str:
    rows = [["rank", "computing", "waiting", "waiting %", "waits", "mostly on"]]
    for one in ranks:
        both = one.computing_s + one.waiting_s
        share = 100 * one.waiting_s / both if both else 0.0
        cells = [f"{one.computing_s:.3f} s", f"{one.waiting_s:.3f} s", f"{share:.1f}", str(one.waits)]
        rows.append([str(one.rank), *cells, _mostly(one)])
    return _grid(rows)


def _mostly(one: RankStatistics) -> str:
    if not one.waiting_s:
        return "-"
    whom, waited = max(one.waiting_on.items(), key=lambda item: item[1])
    return f"{'any' if whom == ANY_SOURCE else f'rank {whom}'} ({100 * waited / one.waiting_s:.0f} %)"


def _matrix(ranks: Sequence[RankStatistics]) -> str:
    rows = [["messages", *(f"to {one.rank}" for one in ranks), "to all"]]
    sizes = [["bytes", *rows[0][1:]]]
    for one in ranks:
        for table, counts, show in ((rows, one.messages, str), (sizes, one.bytes, _binary)):
            cells = [show(counts[other.rank]) if other.rank in counts else "-" for other in ranks]
            table.append([f"from {one.rank}", *cells, show(sum(counts.values()))])
    return f"{_grid(rows)}\n\n{_grid(sizes)}"


def _largest(ranks: Sequence[RankStatistics]) -> str:
    pairs = [(size, one.messages[peer], one.rank, peer) for one in ranks for peer, size in one.bytes.items()]
    rows = [["from", "to", "messages", "bytes"]]
    rows.append(["all", "all", str(sum(pair[1] for pair in pairs)), _binary(sum(pair[0] for pair in pairs))])
    for size, messages, source, dest in sorted(pairs, reverse=True)[:_TOP_PAIRS]:
        rows.append([str(source), str(dest), str(messages), _binary(size)])
    return _grid(rows)


def _grid(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _binary(size: float) -> str:
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"
