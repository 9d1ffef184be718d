"""What ranks print, forwarded line by line, so that no line of one rank is cut by another's.

Layer: launch. Runs in the supervisor, which never waits for a slow reader: what cannot be written
is kept, and past a bound the ranks are made to wait instead.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Loop

__all__ = ["Output", "Sink"]

STDOUT, STDERR = 1, 2
_KEEP_BYTES = 1 << 20  # kept for a slow reader before the ranks are made to wait
_READ_BYTES = 1 << 16
_LINE_BYTES = 1 << 16  # a line is cut there, so that endless ones are forwarded too
_TAIL_LINES = 20
_SAFE_WRITE_BYTES = select.PIPE_BUF  # what a descriptor that polls writable takes without waiting


class Sink:
    """Where lines go: a descriptor that may be slow, or a function that takes bytes."""

    def __init__(self, loop: Loop, target: int | Callable[[bytes], None]) -> None:
        self._loop = loop
        self._fd = target if isinstance(target, int) else None
        self._call = None if isinstance(target, int) else target
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._open_line: object = None
        self.broken = False
        self.on_room: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        """Whether its reader is so far behind that the ranks should wait."""
        return self._queued_bytes > _KEEP_BYTES

    def write(self, owner: object, data: bytes) -> None:
        """Write whole lines, or the beginning of one, of ``owner``."""
        if self._open_line is not None and self._open_line is not owner:
            data = b"\n" + data
        self._open_line = None if data.endswith(b"\n") else owner
        if self._call is not None:
            self._call(data)
            return
        self._queue.append(data)
        self._queued_bytes += len(data)
        self.flush()

    def flush(self, *, wait: bool = False) -> None:
        """Write what is queued, as far as that goes without waiting (or until it is done)."""
        if self._fd is None:
            return
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._queue and not self.broken:
            if not poll.poll(None if wait else 0):
                self._watch()
                return
            self._write_some(self._fd)
        self._unwatch()

    def _write_some(self, fd: int) -> None:
        data = self._queue.popleft()
        try:
            count = os.write(fd, data[:_SAFE_WRITE_BYTES])
        except BlockingIOError:
            count = 0
        except OSError:  # its reader is gone
            self.broken = True
            self._queue.clear()
            self._queued_bytes = 0
            return
        self._queued_bytes -= count
        if count < len(data):
            self._queue.appendleft(data[count:])

    def _watch(self) -> None:
        if self._fd is not None and not self._loop.watches(self._fd):
            self._loop.register(self._fd, select.EPOLLOUT, lambda _events: self._resume())

    def _unwatch(self) -> None:
        if self._fd is not None:
            self._loop.unregister(self._fd)

    def _resume(self) -> None:
        self.flush()
        if not self.full and self.on_room is not None:
            self.on_room()

    def close(self) -> None:
        """Write what is left, waiting for the reader, and close the descriptor."""
        self.flush(wait=True)
        if self._fd is not None:
            self._unwatch()
            os.close(self._fd)


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

    def read(self) -> bool:
        """Forward the lines of one read; return whether there may be more."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            return False
        whole, newline, self.rest = (self.rest + data).rpartition(b"\n")
        if newline:
            self._forward(whole + b"\n")
        if len(self.rest) > _LINE_BYTES:
            self.flush()
        return True

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
        self, loop: Loop, stdout: Sink, stderr: Sink, *, label: Callable[[int], str] | None, prompt_rank: int | None
    ) -> None:
        self._loop = loop
        self._sinks = {STDOUT: stdout, STDERR: stderr}
        self._label = label
        self._prompt_rank = prompt_rank
        self._streams: dict[int, list[_Stream]] = {}
        for sink in self._sinks.values():
            sink.on_room = self._resume

    def attach(self, rank: int, stdout: int, stderr: int) -> None:
        """Forward from the reading ends of a rank's pipes, which are ours from now on."""
        label = self._label(rank).encode() if self._label else b""
        streams = [_Stream(fd, self._sinks[kind], label) for kind, fd in ((STDOUT, stdout), (STDERR, stderr))]
        self._streams[rank] = streams
        for stream in streams:
            os.set_blocking(stream.fd, False)
            self._watch(rank, stream)

    def drain(self, rank: int) -> None:
        """Forward all that the rank has written until now, unfinished lines too."""
        for stream in self._streams.get(rank, ()):
            while stream.read():
                pass
            stream.flush()

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
        return b"".join(streams[1].tail).decode(errors="replace")

    def _watch(self, rank: int, stream: _Stream) -> None:
        self._loop.register(stream.fd, select.EPOLLIN, lambda _events: self._readable(rank, stream))

    def _readable(self, rank: int, stream: _Stream) -> None:
        if stream.sink.full:
            stream.paused = True
            self._loop.unregister(stream.fd)
        elif stream.sink.broken or not stream.read():
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

    def _resume(self) -> None:
        for rank, streams in self._streams.items():
            for stream in streams:
                if stream.paused and not stream.sink.full:
                    stream.paused = False
                    self._watch(rank, stream)
