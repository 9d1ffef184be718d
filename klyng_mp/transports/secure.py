"""One TLS connection as the stream transport drives it: like a socket that never waits.

Layer: transports; imported only by whoever has peers on other hosts. It is given the connection with its handshake
done, and neither makes contexts nor knows certificates.

What TLS has tried to write it must try again with the same bytes. So whatever meets a kernel that has enough is *held*:
it counts as accepted, a copy of it waits here, and it leaves before anything else does. It is at most one piece.

The end of a stream is TLS's own close_notify. It is authenticated and has its place among the records, so it says that
all before it has come, which no count of messages could say better; an end without it is an error.

Invariants: bytes come out as they went in, or an error does; one that comes after bytes is told after them; nothing
here waits.

Threads: one caller at a time, as OpenSSL wants it; the endpoint's lock sees to that.
"""

from __future__ import annotations

import errno
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SecureSocket"]

_RECORD_BYTES = 16 * 1024  # of TLS: more never come in one read
_PIECE_BYTES = 4 * _RECORD_BYTES  # written in one call, and held at most: fewer cost calls of Python's
_READ_BYTES = 1024 * 1024  # in one go: then others get their turn

_left_by_parents: list[ssl.SSLSocket] = []


def _nothing() -> None:
    pass


class SecureSocket:
    """The few methods of a socket that `StreamTransport` uses, over TLS.

    Args:
        sock: connected, its handshake done, made with ``suppress_ragged_eofs=False``; owned from now on.

    Raises:
        ValueError: it is not like that; the socket is still the caller's.

    Attributes:
        held: bytes that were accepted and are not with the kernel yet.
        more: whether bytes, or an error, are to be had that the descriptor does not show.
        on_wait: called when `waits` has become true.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        if getattr(sock, "suppress_ragged_eofs", False):
            raise ValueError("a connection whose sudden end would look like a proper one; suppress_ragged_eofs=False")
        if sock.version() is None:
            raise ValueError("a connection whose handshake is not done")
        self.family = sock.family
        self.held = 0
        self.more = False
        self.on_wait: Callable[[], None] = _nothing
        self.fileno = sock.fileno
        self.setblocking = sock.setblocking
        self.setsockopt = sock.setsockopt
        self._sock = sock
        self._write = sock.send
        self._read: Callable[[int, memoryview], int] = sock.read  # type: ignore[assignment]  # `recv_into`, but for a microsecond
        self._pending = sock.pending
        self._kept = b""
        self._needs_input = False  # the write that is held goes on only when something has been read
        self._reading_waits = False
        self._error: OSError | None = None

    @property
    def waits(self) -> bool:
        """Whether it wants to go on as soon as the kernel takes bytes."""
        return self._reading_waits or (bool(self.held) and not self._needs_input)

    def send(self, data: bytes | memoryview) -> int:
        """Accept as much of ``data`` as possible and return how much; of nothing, only push what is held.

        Raises:
            BlockingIOError: nothing, because the kernel has enough.
            OSError: the connection is at its end.
        """
        if self._kept:
            self._push()
        size = len(data)
        if size <= _PIECE_BYTES:
            return self._try(data) if size else 0
        accepted = 0
        view = memoryview(data)
        while accepted < size and not self._kept:
            accepted += self._try(view[accepted : accepted + _PIECE_BYTES])
        return accepted

    def sendmsg(self, parts: Sequence[bytes | memoryview]) -> int:
        """As `send`, with one part after the other; small ones share their records."""
        if self._kept:
            self._push()
        accepted = 0
        small: list[bytes | memoryview] = []
        size = 0
        for part in parts:
            if self._kept:
                return accepted
            if size + len(part) <= _RECORD_BYTES:
                small.append(part)
                size += len(part)
                continue
            if small:
                accepted += self._try(b"".join(small))
            small, size = [], 0
            if self._kept:
                return accepted
            if len(part) < _RECORD_BYTES:
                small, size = [part], len(part)
                continue
            count = self.send(part)
            accepted += count
            if count < len(part):
                return accepted
        if small and not self._kept:
            accepted += self._try(b"".join(small))
        return accepted

    def recv_into(self, buffer: memoryview) -> int:
        """Fill the buffer with what has arrived and return how much that is; 0 at the proper end.

        Less than there is room for says, unless `more`, that the descriptor shows whatever else is there.

        Raises:
            BlockingIOError: nothing has.
            OSError: the stream was damaged, or has ended without a goodbye.
        """
        if self._error is not None:
            raise self._error
        self._reading_waits = self.more = False
        count, room = 0, min(len(buffer), _READ_BYTES)
        try:
            got = count = self._read(room, buffer)
            while got and count < room and (got == _RECORD_BYTES or self._pending()):
                with buffer[count:] as rest:  # one that is left open would keep the reader from its memory
                    got = self._read(room - count, rest)
                count += got
            self.more = self._pending() > 0
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            if isinstance(error, ssl.SSLWantWriteError):
                self._reading_waits = True
                self.on_wait()
            if not count:
                raise BlockingIOError(errno.EAGAIN, "nothing has arrived") from None
        except OSError as error:
            self._error = _translate(error)
            if not count:
                raise self._error from error
            self.more = True
        finally:
            if self._needs_input:
                self._needs_input = False
                self.on_wait()
        return count

    def close(self, *, goodbye: bool = False) -> None:
        """Close; with a goodbye, if that is true: nothing that was accepted is held, and no error was met."""
        if goodbye and self._error is None:
            with suppress(OSError):  # the peer may be gone, and what it has not read of ours with it
                if self._kept:
                    self._push()
                # It writes ours, looks for the peer's, and mostly finds none: that is a WantRead.
                self._sock.unwrap()
        self._sock.close()

    def abandon(self) -> None:
        """In a forked child: close its copy of the descriptor and say nothing.

        Another thread of the parent may have been at work on the connection: its state is left as it is, for good.
        """
        _left_by_parents.append(self._sock)
        os.close(self._sock.detach())

    # -- inside

    def _try(self, data: bytes | memoryview) -> int:
        """Write a piece, or else hold it; return its size."""
        try:
            return self._write(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
            self._kept = bytes(data)
            self.held = len(data)
            self._needs_input = isinstance(error, ssl.SSLWantReadError)
            self.on_wait()
            return self.held
        except OSError as error:
            raise _translate(error) from error

    def _push(self) -> None:
        try:
            self._write(self._kept)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
            self._needs_input = isinstance(error, ssl.SSLWantReadError)
            raise BlockingIOError(errno.EAGAIN, "the kernel has enough") from None
        except OSError as error:
            raise _translate(error) from error
        self._kept = b""
        self.held = 0


def _translate(error: OSError) -> OSError:
    """Return the error that says what it means for a stream of messages."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError):
        return OSError("the stream ended without a goodbye")
    if isinstance(error, ssl.SSLError):
        return OSError(f"what arrived was damaged on its way ({error.reason or error})")
    return error
