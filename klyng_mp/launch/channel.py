"""The thin line between a supervisor and one of its ranks, or its driver: small records and descriptors.

Layer: launch; sockets, but no ranks' messages: those go directly between the ranks.

A channel is a ``SOCK_SEQPACKET`` pair without a name. A record is a pickled tuple whose first item
says what it is; a long one travels in a memfd. The two ends belong to the same user and the same
job, so that unpickling them trusts nobody new. Nothing here waits, except the methods that say so.
"""

from __future__ import annotations

import array
import errno
import os
import pickle
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FDS_PER_RECORD", "Channel", "reserve_standard_fds"]

FDS_PER_RECORD = 250  # the kernel takes at most 253 (SCM_MAX_FD) a call; one is for the memfd
_INLINE_BYTES = 32 * 1024  # a seqpacket must fit the socket's buffer whole
_BACKLOG_RECORDS = 64
_LOST = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED, errno.EBADF}
_ANCILLARY = socket.CMSG_SPACE((FDS_PER_RECORD + 1) * array.array("i").itemsize)


class Channel:
    """One end of the line. Not thread-safe: its owner holds a lock or has one thread."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._outbox: deque[tuple[bytes, list[int]]] = deque()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return this side's end, and the other side's as a socket that is not inheritable."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Return the descriptor to poll for reading (and for writing while ``blocked``)."""
        return self.socket.fileno()

    @property
    def blocked(self) -> bool:
        """Whether records wait for the other side to read earlier ones."""
        return bool(self._outbox)

    @property
    def backlogged(self) -> bool:
        """Whether so many records wait that what can wait should."""
        return len(self._outbox) > _BACKLOG_RECORDS

    def send(self, *record: Any, fds: Sequence[int] = ()) -> None:
        """Send a record, or queue it if the other side is slow to read; the caller keeps its ``fds``.

        A lost peer is not an error here: it is seen when reading.
        """
        data = pickle.dumps(record, protocol=5)
        handed = list(fds)
        if spilled := len(data) > _INLINE_BYTES:
            handed.append(_spill(data))
            data = b""
        if self._outbox or not self._push(data, handed):
            self._outbox.append((data, [os.dup(fd) for fd in handed]))
        if spilled:
            os.close(handed[-1])

    @staticmethod
    def pack(*record: Any) -> bytes:
        """Return a short record as the packet that carries it."""
        return b"I" + pickle.dumps(record, protocol=5)

    def flush(self) -> None:
        """Hand over what the kernel takes now of what is queued."""
        while self._outbox and self._push(*self._outbox[0]):
            for fd in self._outbox.popleft()[1]:
                os.close(fd)

    def _push(self, data: bytes, fds: list[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            # An empty packet would read as the end: the first byte says where the record is.
            self.socket.sendmsg([b"I" + data if data else b"M"], ancillary)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # A lost peer is told to the reader of this channel; anything else may pass.
            return error.errno in _LOST
        return True

    def send_now(self, *record: Any, fds: Sequence[int] = ()) -> None:
        """Send a record and wait until it is with the kernel; for a side whose peer always reads."""
        self.send(*record, fds=fds)
        while self._outbox:
            poll = select.poll()
            poll.register(self.socket, select.POLLOUT)
            poll.poll()
            self.flush()

    def receive(self) -> tuple[tuple[Any, ...], list[int]] | None:
        """Return the next record and its descriptors (now the caller's), or None if none has come.

        Raises:
            EOFError: the other side is gone.
            OSError: descriptors were cut off because this process may open no more files.
        """
        try:
            data, ancillary, flags = self._receive()
        except (BlockingIOError, InterruptedError):
            return None
        fds = array.array("i")
        for _level, _kind, packed in ancillary:
            fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
        if flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise OSError("descriptors were lost on their way: this process has too many open files (see ulimit -n)")
        if not data:
            raise EOFError("the other side of the channel is gone")
        if data == b"M":
            with open(fds.pop(), "rb") as file:
                file.seek(0)
                return pickle.load(file), list(fds)  # noqa: S301 - both ends are this job's
        return pickle.loads(data[1:]), list(fds)  # noqa: S301 - both ends are this job's

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        arguments = (_INLINE_BYTES + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
        try:
            return self.socket.recvmsg(*arguments)[:3]
        except ConnectionResetError:
            # The other side left something unread; the kernel says so once, before what it had sent itself.
            return self.socket.recvmsg(*arguments)[:3]

    def receive_now(self) -> tuple[tuple[Any, ...], list[int]]:
        """Wait for the next record and return it as ``receive`` does."""
        while (received := self.receive()) is None:
            self.wait_readable()
        return received

    def wait_readable(self) -> None:
        """Wait until there is a record to receive, or the end."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        poll.poll()

    def forget(self) -> None:
        """Drop what is queued: nobody will read it."""
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()

    def close(self) -> None:
        """Close this end; what is still queued is forgotten."""
        self.forget()
        self.socket.close()


def _spill(data: bytes) -> int:
    memfd = os.memfd_create("klyng-record", os.MFD_CLOEXEC)
    with open(memfd, "wb", closefd=False) as file:
        file.write(data)
    return memfd


def reserve_standard_fds() -> None:
    """Open /dev/null where standard input, output or error is closed, or a pipe of ours could get its number."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
