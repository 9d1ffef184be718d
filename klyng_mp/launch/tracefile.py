"""Writes the events of all ranks as a trace that Perfetto and chrome://tracing open: a lane a rank, an arrow a message.

Layer: launch.

The format is Chrome's "Trace Event Format": an object with ``traceEvents``, times in microseconds. All lanes are
threads of one process, the command, so that they are seen together; a rank's further threads have lanes of their own.
"""

from __future__ import annotations

import marshal
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.tracing import NOBODY, RECEIVES, SENDS
from klyng_mp.launch.outfile import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["RankTrace", "write_trace"]

_Event = tuple[Any, ...]
_Half = tuple[int, int, int]  # of an arrow: by what it is ordered, when, and its lane


class RankTrace(NamedTuple):
    """What one rank hands over.

    Attributes:
        pid: its process.
        thread: the number of its main thread.
        packed: its events, as `Trace.pack` returns them.
        dropped: how many more there were.
    """

    pid: int
    thread: int
    packed: bytes
    dropped: int


def write_trace(path: str, traces: Mapping[int, RankTrace], about: dict[str, Any]) -> None:
    """Write the trace of a program.

    Args:
        path: the file.
        traces: by rank, of those that have handed one over.
        about: what the file says beside the events: "program", "pid" (of the command), "ranks" (how many), "missing".

    Raises:
        OSError: the file cannot be written.
    """
    lanes = {rank: _Lanes(rank, about["ranks"], traces[rank]) for rank in sorted(traces)}
    write_whole(path, _file(lanes, about))


class _Lanes:
    """The lanes of one rank, and its events."""

    def __init__(self, rank: int, size: int, trace: RankTrace) -> None:
        self.rank = rank
        self.pid = trace.pid
        self.dropped = trace.dropped
        self.events: list[_Event] = marshal.loads(trace.packed)  # noqa: S302 - a rank of this command's own wrote it
        self.events.sort(key=lambda event: (event[1], -event[2]))
        self._size = size
        self.threads = {trace.thread: rank}

    def of(self, thread: int) -> int:
        """Return the number of a thread's lane: the rank's for its main thread."""
        return self.threads.setdefault(thread, self.rank + self._size * len(self.threads))

    def names(self) -> Iterator[tuple[int, str]]:
        """Yield each lane's number and name."""
        for index, lane in enumerate(self.threads.values()):
            yield lane, f"rank {self.rank} (pid {self.pid})" + (f", thread {index}" if index else "")


def _file(lanes: Mapping[int, _Lanes], about: dict[str, Any]) -> Iterator[bytes]:
    import json  # noqa: PLC0415 - slow to import, and only who traces needs it

    encode = json.JSONEncoder(separators=(",", ":")).encode
    start = min((one.events[0][1] for one in lanes.values() if one.events), default=0)
    dropped = {str(rank): one.dropped for rank, one in lanes.items() if one.dropped}
    about = {**about, "start_ns": start, "dropped": dropped}
    yield b'{"displayTimeUnit":"ns","otherData":' + encode(about).encode() + b',"traceEvents":[\n'
    yield encode(_meta("process_name", about["pid"], 0, name=f"klyng-mp run {about['program']}")).encode()
    for event in _events(lanes, about["pid"], start):
        yield b",\n" + encode(event).encode()
    yield b"\n]}\n"


def _events(lanes: Mapping[int, _Lanes], pid: int, start: int) -> Iterator[dict[str, Any]]:
    for one in lanes.values():
        for event in one.events:
            yield _span(event, pid, one.of(event[3]), start)
    for number, (sent, received) in enumerate(_arrows(lanes)):
        common = {"name": "message", "cat": "message", "id": number, "pid": pid}
        yield {"ph": "s", "ts": (sent[1] - start) / 1000, "tid": sent[2], **common}
        yield {"ph": "f", "bp": "e", "ts": (received[1] - start) / 1000, "tid": received[2], **common}
    for one in lanes.values():
        for lane, name in one.names():
            yield _meta("thread_name", pid, lane, name=name)
            yield _meta("thread_sort_index", pid, lane, sort_index=one.rank)


def _meta(what: str, pid: int, lane: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": lane, "args": args}


def _span(event: _Event, pid: int, lane: int, start: int) -> dict[str, Any]:
    name, begin, end, _, peer, tag, size, *_ = event
    args: dict[str, Any] = {}
    if peer != NOBODY:
        args["to" if name in SENDS else "from"] = peer
        args["tag"] = tag
    elif tag:
        args["for"] = tag
    if size >= 0:
        args["bytes"] = size
    span = {"ph": "X", "name": name, "cat": "call", "ts": (begin - start) / 1000, "dur": (end - begin) / 1000}
    return {**span, "pid": pid, "tid": lane, "args": args}


def _arrows(lanes: Mapping[int, _Lanes]) -> Iterator[tuple[_Half, _Half]]:
    """Yield both halves of each message: the n-th sent by one rank to another is the n-th that this one received."""
    sent: defaultdict[_Event, list[_Half]] = defaultdict(list)
    received: defaultdict[_Event, list[_Half]] = defaultdict(list)
    for rank, one in lanes.items():
        for event in one.events:
            name, begin, end, thread, peer, tag, _, context, *posted = event
            if peer == NOBODY:
                continue
            if name in SENDS:
                sent[context, rank, peer, tag].append((begin, begin, one.of(thread)))
            elif name in RECEIVES:
                order = posted[0] if posted else begin
                # Just before its end, since an arrow ends in the call that is open at that time.
                received[context, peer, rank, tag].append((order, max(begin, end - 1), one.of(thread)))
    for key, halves in sent.items():
        yield from _pairs(halves, received.get(key, []))


def _pairs(sent: list[_Half], received: list[_Half]) -> Iterable[tuple[_Half, _Half]]:
    pairs = zip(sorted(sent), sorted(received), strict=False)  # some were not received, or are not in the trace
    return (pair for pair in pairs if pair[0][1] <= pair[1][1])
