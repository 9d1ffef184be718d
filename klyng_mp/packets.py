"""Connections that carry whole packets, of which many processes may read and many may write.

Layer: above connection and segments.

The kernel gives a packet whole to exactly one reader, and takes it whole from a writer. So neither needs a lock, and
nobody who is killed can leave a half-read message, or a lock that is held, to the others.

A packet is one of three things:

* an ordinary pickle, which begins with the byte 0x80;
* PARTS, the number of buffers and the sizes of the pickle and the buffers, then all of them;
* SEGMENT and the same sizes, and beside it the descriptor of the segment in which they are (segments.py).
"""

from __future__ import annotations

import array
import errno
import io
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

from klyng_mp.connection import Connection
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.reduction import DupFd, ForkingPickler, codec, loads
from klyng_mp.segments import Mapping, SegmentPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


__all__ = ["Content", "PacketConnection", "PacketPipe", "encode", "own", "rebuild_packets"]

Content = list[Any]
"""An object that is to be sent: its pickle, then the buffers beside it."""

_PARTS, _SEGMENT = b"\1", b"\2"
_COUNT = struct.Struct("<BI")
_PICKLE_MARK = 0x80

# Up to here content goes through the socket itself. Beyond it a descriptor, a mapping and its end cost less than to
# copy twice; and a packet must fit into the socket's buffer.
_LARGEST_INSIDE = 1 << 15
_LARGEST_PACKET = 1 << 16
_BUFFER_BYTES = 1 << 22  # asked for; the kernel gives what it allows

_DESCRIPTOR_SPACE = socket.CMSG_SPACE(4)
_CROWDED_SECONDS = 0.01

_segments = SegmentPool()


def encode(obj: object) -> Content:
    """Return what is to be sent of an object.

    Raises:
        CodecError: it cannot travel; names which part.
    """
    buffers: list[memoryview] = []
    return [codec().encode_pickle(obj, buffers), *buffers]


def own(content: Content) -> Content:
    """Return content that does not change with the object any more."""
    return [part if type(part) is bytes else bytes(part) for part in content]


class PacketConnection(Connection):
    """One end of a `PacketPipe`.

    ``send`` and ``recv``, ``send_bytes`` and ``recv_bytes`` are as in `Connection`; all bytes must be pickles.

    Threads: all may send and receive.
    """

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, handle)
        self._socket.setblocking(True)

    def _close(self) -> None:
        self._socket.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_packets, (DupFd(self.fileno()), self.readable, self.writable)

    # Sending

    def send(self, obj: object) -> None:
        """Send an object; see `Connection.send`."""
        self.send_content(encode(obj))

    def send_content(self, content: Content, *, wait: bool = True) -> bool:
        """Send what `encode` has made.

        Args:
            content: may be changed afterwards.
            wait: for room.

        Returns:
            Whether it was sent: without ``wait`` False where there was no room for it.

        Raises:
            OSError: the other end, or this one, is closed; nothing was sent.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_writable()  # type: ignore[attr-defined]
        flags = 0 if wait else socket.MSG_DONTWAIT
        data = content[0]
        try:
            if len(content) == 1 and len(data) <= _LARGEST_INSIDE:
                self._socket.send(data, flags)
                return True
            sizes = [len(part) for part in content]
            front = _COUNT.pack(_PARTS[0], len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)
            if sum(sizes) <= _LARGEST_INSIDE and len(front) <= _LARGEST_INSIDE:
                self._socket.sendmsg([front, *content], (), flags)
            else:
                self._send_segment(_SEGMENT + front[1:], content, flags)
        except BlockingIOError:
            return False
        return True

    def _send_segment(self, front: bytes, content: Content, flags: int) -> None:
        segment = _segments.fill(content)
        descriptors = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [segment.fd]))]
        try:
            self._send_descriptor(front, descriptors, flags)
        except BaseException:
            segment.give_back()
            raise
        finally:
            _segments.keep(segment)

    def _send_descriptor(self, front: bytes, descriptors: list[Any], flags: int) -> None:
        while True:
            try:
                self._socket.sendmsg([front], descriptors, flags)
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    raise
            else:
                return
            # This user has more descriptors on their way than a process may have open. Nothing tells when one arrives.
            if flags:
                raise BlockingIOError(errno.EAGAIN, "too many descriptors are on their way")
            select.select([], [], [], _CROWDED_SECONDS)

    # Receiving

    def recv(self) -> Any:
        """Receive an object; see `Connection.recv`."""
        return self.receive_object(NEVER)

    def receive_object(self, deadline: Deadline, took: Callable[[], object] | None = None) -> Any:
        """Return the next object; of those who wait for it, only one gets it.

        Args:
            deadline: when to stop waiting.
            took: is called when a packet was taken, before its object is rebuilt.

        Raises:
            BlockingIOError: there was nothing in time.
            EOFError: the other end is closed everywhere.
            OSError: this end is closed.
            Exception: whatever unpickling raises; the packet is lost.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_readable()  # type: ignore[attr-defined]
        data, mapping = self._receive(deadline)
        if took is not None:
            took()
        if data[0] == _PICKLE_MARK:
            return loads(data)
        _, count = _COUNT.unpack_from(data)
        sizes = struct.unpack_from(f"<{count}Q", data, _COUNT.size)
        if mapping is not None:
            parts = mapping.parts(sizes)
            del mapping  # the object's memory alone keeps it
            return loads(parts[0], parts[1:])
        return loads(*_split(memoryview(data)[_COUNT.size + 8 * count :], sizes))

    def _receive(self, deadline: Deadline) -> tuple[bytes, Mapping | None]:
        flags = socket.MSG_CMSG_CLOEXEC | (0 if deadline is NEVER else socket.MSG_DONTWAIT)
        while True:
            try:
                data, ancillary, flagged, _ = self._socket.recvmsg(_LARGEST_PACKET, _DESCRIPTOR_SPACE, flags)
            except BlockingIOError:
                left = deadline.left()
                if not left or not self.poll(left):
                    raise
            else:
                break
        if not data:
            raise EOFError
        mapping = None
        for _, _, descriptors in ancillary:
            mapping = Mapping.receive(*array.array("i", descriptors))
        if flagged & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise OSError(errno.EMFILE, "a packet came without its descriptor: this process may have no more open")
        return data, mapping

    # The bytes of plain connections

    def _send_bytes(self, buf: memoryview) -> None:
        self.send_content([bytes(buf)])

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO:
        del maxsize  # a packet is taken whole
        file = io.BytesIO()
        file.write(ForkingPickler.dumps(self.receive_object(NEVER)))
        return file


def _split(data: memoryview, sizes: Sequence[int]) -> tuple[memoryview, list[bytearray]]:
    """Return the pickle, and the buffers as memory of their own."""
    buffers = []
    start = sizes[0]
    for size in sizes[1:]:
        buffers.append(bytearray(data[start : start + size]))
        start += size
    return data[: sizes[0]], buffers


def rebuild_packets(handle: Any, readable: bool, writable: bool) -> PacketConnection:
    """Return an end from what has travelled of it; pickles call this."""
    return PacketConnection(handle.detach(), readable, writable)


def PacketPipe() -> tuple[PacketConnection, PacketConnection]:
    """Return the reading and the writing end of a new pipe of packets.

    Raises:
        OSError: no descriptors are left.
    """
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return PacketConnection(reader.detach(), writable=False), PacketConnection(writer.detach(), readable=False)
