"""What ranks print, forwarded line by line, so that no line of one rank is cut by another's.

Layer: launch. Runs in the supervisor, which never waits for a slow reader: what cannot be written
is kept, and past a bound the ranks are made to wait instead.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import TYPE_CHECKING

from klyng_mp.launch import pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Loop

__all__ = ["Output", "Sink"]

STDOUT, STDERR = 1, 2
_KEEP_BYTES = 1 << 20  # kept for a slow reader before the ranks are made to wait
_READ_BYTES = 1 << 16
_PIPE_READS = 17  # empty the largest pipe (1 MiB); more is being written meanwhile, and may never end
_LINE_BYTES = 1 << 16  # a line is cut there, so that endless ones are forwarded too
_TAIL_LINES = 20
_SAFE_WRITE_BYTES = select.PIPE_BUF  # what a descriptor that polls writable takes without waiting


class Sink:
    """Where lines go: a descriptor that may be slow, or a function that takes bytes."""

    def __init__(
        self, loop: Loop, target: int | Callable[[bytes], None], *, is_full: Callable[[], bool] | None = None
    ) -> None:
        self._loop = loop
        self._fd = target if isinstance(target, int) else None
        self._call = None if isinstance(target, int) else target
        self._is_full = is_full
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._open_line: object = None
        self.broken = False
        self.on_room: Callable[[], None] | None = None
        self.on_empty: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether its reader is so far behind that the ranks should wait."""
        return self._queued_bytes > _KEEP_BYTES if self._is_full is None else self._is_full()

    @property
    def empty(self) -> bool:
        """Whether everything has been written."""
        return not self._queue

    def write(self, owner: object, data: bytes) -> None:
        """Write whole lines, or the beginning of one, of ``owner``."""
        if self.broken:
            return
        if self._open_line is not None and self._open_line is not owner:
            data = b"\n" + data
        self._open_line = None if data.endswith(b"\n") else owner
        if self._call is not None:
            self._call(data)
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Write what is queued, as far as that goes without waiting."""
        if self._fd is None:
            return
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._queue and not self.broken:
            if not poll.poll(0):
                self._watch(self._fd)
                return
            self._write_some(self._fd)
        self._loop.unregister(self._fd)
        if self.on_empty is not None:
            self.on_empty()

    def _write_some(self, fd: int) -> None:
        data = self._queue.popleft()
        try:
            count = os.write(fd, data[:_SAFE_WRITE_BYTES])
        except BlockingIOError:
            count = 0
        except OSError:  # its reader is gone
            self.discard()
            return
        self._queued_bytes -= count
        if count < len(data):
            self._queue.appendleft(data[count:])

    def _watch(self, fd: int) -> None:
        if not self._loop.watches(fd):
            self._loop.register(fd, select.EPOLLOUT, lambda _events: self._resume())

    def _resume(self) -> None:
        self.flush()
        if not self.full and self.on_room is not None:
            self.on_room()

    def discard(self) -> None:
        """Write no more: nobody reads. Ranks that wait for room are let go, and told by their next write."""
        self.broken = True
        self._queue.clear()
        self._queued_bytes = 0
        if self.on_room is not None:
            self.on_room()

    def close(self) -> None:
        """Close the descriptor; what has not been written is lost."""
        if self._fd is not None:
            self._loop.unregister(self._fd)
            os.close(self._fd)
            self._fd = None


class _Stream:
    """One output stream of one rank."""

    __slots__ = ("fd", "label", "paused", "rest", "sink", "tail")

    def __init__(self, fd: int, sink: Sink, label: bytes) -> None:
        self.fd = fd
        self.sink = sink
        self.label = label
        self.rest = b""
        self.paused = False
        self.tail: deque[bytes] = deque(maxlen=_TAIL_LINES)

    def read(self) -> int | None:
        """Forward the lines of one read; return how many bytes came, 0 at the end, None if none are there now."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            return 0
        whole, newline, self.rest = (self.rest + data).rpartition(b"\n")
        if newline:
            self._forward(whole + b"\n")
        if len(self.rest) > _LINE_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Forward the beginning of a line too."""
        if self.rest:
            rest, self.rest = self.rest, b""
            self._forward(rest)

    def _forward(self, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        lines = [line + b"\n" for line in whole] + ([rest] if rest else [])
        self.tail.extend(lines)
        self.sink.write(self, b"".join(self.label + line for line in lines) if self.label else data)


class Output:
    """All output streams of a job's ranks.

    Args:
        loop: the supervisor's loop.
        stdout, stderr: where the lines go.
        label: gives the text before each line of a rank, or None for none.
        prompt_rank: the rank whose unfinished lines are shown at once, since a person sits at its input.
    """

    def __init__(
        self,
        loop: Loop,
        stdout: Sink,
        stderr: Sink,
        *,
        label: Callable[[int | str], str] | None,
        prompt_rank: int | None,
    ) -> None:
        self._loop = loop
        self._sinks = {STDOUT: stdout, STDERR: stderr}
        self._label = label
        self._prompt_rank = prompt_rank
        self._streams: dict[int, list[_Stream]] = {}
        for sink in self._sinks.values():
            sink.on_room = self.resume

    def attach(self, rank: int, stdout: int, stderr: int, who: str | None = None) -> None:
        """Forward from the reading ends of a rank's pipes, which are ours from now on; ``who`` labels it otherwise."""
        label = self._label(rank if who is None else who).encode() if self._label else b""
        streams = [_Stream(fd, self._sinks[kind], label) for kind, fd in ((STDOUT, stdout), (STDERR, stderr))]
        self._streams[rank] = streams
        for stream in streams:
            os.set_blocking(stream.fd, False)
            self._watch(rank, stream)

    def drain(self, rank: int) -> None:
        """Forward all that the rank has written until now, unfinished lines too."""
        pending.note(self, pending=True)
        for stream in self._streams.get(rank, ()):
            for _ in range(_PIPE_READS):
                if not stream.read():
                    break
            stream.flush()
        self.note_pending()

    def note_pending(self) -> None:
        """Let ranks know whether something that was read from them has not been written yet."""
        held = any(stream.rest for streams in self._streams.values() for stream in streams)
        pending.note(self, pending=held or not all(sink.empty for sink in self._sinks.values()))

    def drain_all(self) -> None:
        """Forward all that any rank has written until now."""
        for rank in self._streams:
            self.drain(rank)

    def detach(self, rank: int) -> str:
        """Forward what is left of a rank that has ended; return the last lines of its stderr."""
        self.drain(rank)
        streams = self._streams.pop(rank)
        for stream in streams:
            self._loop.unregister(stream.fd)
            os.close(stream.fd)
        self.note_pending()
        return b"".join(streams[1].tail).decode(errors="replace")

    def _watch(self, rank: int, stream: _Stream) -> None:
        self._loop.register(stream.fd, select.EPOLLIN, lambda _events: self._readable(rank, stream))

    def _readable(self, rank: int, stream: _Stream) -> None:
        pending.note(self, pending=True)
        self._forward(rank, stream)
        self.note_pending()

    def _forward(self, rank: int, stream: _Stream) -> None:
        if stream.sink.full:
            stream.paused = True
            self._loop.unregister(stream.fd)
        elif stream.sink.broken or stream.read() == 0:
            # Closing our end lets the rank's next write fail, as it would without us in between.
            self._loop.unregister(stream.fd)
            if stream.sink.broken:
                self._replace_by_nothing(stream)
        elif rank == self._prompt_rank:
            stream.flush()

    @staticmethod
    def _replace_by_nothing(stream: _Stream) -> None:
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.dup2(nothing, stream.fd, inheritable=False)
        os.close(nothing)

    def resume(self) -> None:
        """Read again from the ranks that were made to wait, where their sink has room now."""
        for rank, streams in self._streams.items():
            for stream in streams:
                if stream.paused and not stream.sink.full:
                    stream.paused = False
                    self._watch(rank, stream)
