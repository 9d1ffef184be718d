"""A control channel as it is used: frames over one TLS connection, without waiting or with a deadline.

Layer: remote.

Threads: one caller at a time.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import LocalProtocolError, RemoteProtocolError
from klyng_mp.transports.secure import SecureSocket

if TYPE_CHECKING:
    import ssl

    from klyng_mp.deadline import Deadline
    from klyng_mp.remote.protocol import Conversation, Frame

__all__ = ["ControlLink"]

_READ_BYTES = 1 << 18


class ControlLink:
    """One side of a control channel whose handshake is done.

    Args:
        sock: the connection; owned from now on.
        conversation: its state.

    Attributes:
        conversation: see there.
    """

    def __init__(self, sock: ssl.SSLSocket, conversation: Conversation) -> None:
        self.conversation = conversation
        self._sock = SecureSocket(sock)
        self._sock.setblocking(False)
        self._buffer = bytearray(_READ_BYTES)
        self._frames: deque[Frame] = deque()
        self._out: deque[memoryview] = deque()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._sock.fileno()

    @property
    def blocked(self) -> bool:
        """Whether something waits for the other side to read."""
        return bool(self._out) or self._sock.waits

    @property
    def backlog_bytes(self) -> int:
        """How much of it there is."""
        return sum(map(len, self._out))

    def send(self, kind: str, data: bytes = b"", /, **fields: Any) -> None:
        """Send a frame, or queue it.

        Raises:
            LocalProtocolError: it may not be sent; nothing was.
            OSError: the connection is at its end.
        """
        self._out.append(memoryview(self.conversation.pack(kind, data, **fields)))
        self.flush()

    def flush(self) -> None:
        """Hand over what the kernel takes now of what is queued."""
        try:
            while self._out or self._sock.held:
                view = self._out[0] if self._out else memoryview(b"")
                count = self._sock.send(view)
                if self._out:
                    if count < len(view):
                        self._out[0] = view[count:]
                    else:
                        self._out.popleft()
                if self._sock.held:
                    return
        except BlockingIOError:
            return

    def receive(self) -> list[Frame]:
        """Return the frames that have come, without waiting.

        Raises:
            EOFError: the other side has said goodbye and left.
            RemoteProtocolError: it sent what cannot be, or was cut off.
            OSError: the connection is at its end.
        """
        frames: list[Frame] = []
        with memoryview(self._buffer) as view:
            while True:
                try:
                    count = self._sock.recv_into(view)
                except BlockingIOError:
                    return frames
                if not count:
                    if frames:
                        return frames  # the end is met again
                    self.conversation.feed_eof()
                    raise EOFError("the other side has left")
                frames += self.conversation.feed(view[:count])
                if count < _READ_BYTES and not self._sock.more:
                    return frames

    # -- with waiting

    def send_now(self, deadline: Deadline, kind: str, data: bytes = b"", /, **fields: Any) -> None:
        """Send a frame and wait until all that is queued is with the kernel.

        Raises:
            DeadlineError: a part of it may have left.
            OSError, LocalProtocolError: as in `send`.
        """
        self.send(kind, data, **fields)
        while self.blocked:
            self._wait(deadline, select.POLLOUT, f"sending {kind!r}")
            self.flush()

    def receive_now(self, deadline: Deadline, *kinds: str) -> Frame:
        """Wait for the next frame, which is to be one of these kinds; pings are answered.

        Raises:
            DeadlineError: it has not come in time.
            RemoteProtocolError: another one came.
            EOFError, OSError: as in `receive`.
        """
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.kind == "ping":
                    self.send("pong")
                elif frame.kind in kinds:
                    return frame
                elif frame.kind != "pong":
                    raise RemoteProtocolError(f"the other side sent {frame.kind!r} where {' or '.join(kinds)} was due")
            self._frames.extend(self.receive())
            if not self._frames:
                self._wait(deadline, select.POLLIN, f"waiting for {' or '.join(kinds)}")

    def _wait(self, deadline: Deadline, events: int, doing: str) -> None:
        left = deadline.left()
        poll = select.poll()
        poll.register(self.fileno(), events | select.POLLIN)
        if left == 0 or not poll.poll(None if left is None else left * 1000):
            raise deadline.error(doing)

    def interrupt(self) -> None:
        """Let another thread, which waits here, see the end of the connection."""
        with socket.socket(fileno=os.dup(self.fileno())) as same:  # the TLS layer is that thread's
            same.shutdown(socket.SHUT_RDWR)

    def close(self, *, goodbye: bool = False) -> None:
        """Close the connection; with a farewell, where the state allows one. Nothing, where it is closed."""
        if self.fileno() < 0:
            return
        if goodbye:
            with suppress(LocalProtocolError, OSError):
                self.send("bye")
        self._sock.close(goodbye=goodbye)

    def abandon(self) -> None:
        """In a forked child: close its copy."""
        self._sock.abandon()
