"""Messages over connected stream sockets: unix sockets on one host, TCP between hosts.

Layer: transports; drives sockets, but neither makes nor secures them: it is given them connected.

Invariants: one connection carries all that goes to a peer, so its order is kept; a frame that has begun
is finished or its connection ends; what arrived before the end of a connection is delivered before
the end is told; ``EPOLLOUT`` is watched only while something is queued.
"""

from __future__ import annotations

import socket
from collections import deque
from functools import partial
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING, cast

from klyng_mp.errors import PeerLostError, RemoteProtocolError
from klyng_mp.transports.contract import SENT, Ticket, TransportStatistics
from klyng_mp.wire.frames import FrameReader, Message, pack_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.transports.contract import Poller, Sink
    from klyng_mp.transports.secure import SecureSocket

__all__ = ["StreamTransport"]

_IOV_MAX = 1024  # Linux's; sendmsg refuses more
_UNIX_BUFFER_BYTES = 1024 * 1024  # 64 MiB go a quarter faster than with the default of 208 KiB; TCP tunes itself
_READS_PER_EVENT = 16  # then the others get their turn; level-triggered epoll comes back to it
_WITHOUT_END = 1 << 62


class _Parcel(Ticket):
    """A message that is queued, whole or in part."""

    __slots__ = ("link", "parts")

    def __init__(self, link: _Link, parts: list[bytes | memoryview]) -> None:
        super().__init__()
        self.link = link
        self.parts = parts

    def withdraw(self) -> bool:
        if self.started or self.error is not None:
            return False
        self.link.outbox.remove(self)
        self.link.pending -= sum(map(len, self.parts))
        self.parts = []
        return True

    def keep(self) -> None:
        self.parts = [part if type(part) is bytes else bytes(part) for part in self.parts]

    def advance(self, count: int) -> int:
        """Note that up to ``count`` bytes have left; return how many of them were not of this parcel."""
        self.started = True
        parts = self.parts
        for index, part in enumerate(parts):
            size = len(part)
            if count < size:
                parts[index] = memoryview(part)[count:]
                del parts[:index]
                return 0
            count -= size
        parts.clear()
        self.done = True
        return count


class _Connection:
    """One socket and the reader of what comes from it."""

    __slots__ = ("fd", "link", "open", "reader", "recv_into", "reset", "secure", "sock", "watching")

    def __init__(self, link: _Link, sock: socket.socket | SecureSocket) -> None:
        self.link = link
        self.sock = sock
        self.fd = sock.fileno()
        self.reader = FrameReader()
        self.recv_into: Callable[[memoryview], int] = sock.recv_into
        # Only those who have one import its class.
        self.secure = cast("SecureSocket", sock) if hasattr(sock, "held") else None
        self.open = True
        self.reset = False
        self.watching = False  # for when the kernel takes bytes

    @property
    def wants_to_write(self) -> bool:
        """Whether there is anything for when the kernel takes bytes."""
        link = self.link
        return (link.out is self and bool(link.outbox)) or (self.secure is not None and self.secure.waits)

    def close(self, *, goodbye: bool) -> None:
        """Close the socket; a secure one with a goodbye, if that is true."""
        if self.secure is None:
            self.sock.close()
        else:
            self.secure.close(goodbye=goodbye)

    def abandon(self) -> None:
        """Close the child's copy of the socket."""
        if self.secure is None:
            self.sock.close()
        else:
            self.secure.abandon()


class _Link:
    """All that leads to one peer. Two sides that connect at once have two sockets: each sends on its first."""

    __slots__ = ("connections", "earlier", "out", "outbox", "peer", "pending", "send", "sendmsg", "taken", "traffic")

    def __init__(self, peer: int, traffic: list[int]) -> None:
        self.peer = peer
        self.traffic = traffic  # messages that have left whole, and bytes; all links to the peer count there
        self.earlier = traffic[0]  # of those, what earlier links have sent
        self.taken = 0  # messages that have come
        self.connections: list[_Connection] = []
        self.out: _Connection | None = None
        self.send: Callable[[bytes | memoryview], int]
        self.sendmsg: Callable[[list[bytes | memoryview]], int]
        self.outbox: deque[_Parcel] = deque()
        self.pending = 0

    @property
    def held(self) -> int:
        """Bytes that are neither in the outbox nor with the kernel."""
        return 0 if self.out is None or self.out.secure is None else self.out.secure.held

    @property
    def left(self) -> int:
        """Bytes that are not with the kernel."""
        return self.pending + self.held

    def use(self, connection: _Connection) -> None:
        """Send over this connection from now on."""
        self.out = connection
        self.send = connection.sock.send
        self.sendmsg = connection.sock.sendmsg


class StreamTransport:
    """A transport over sockets that somebody else connects.

    Args:
        sink: gets messages and losses.
        poller: watches the sockets.
        connect: is asked once to connect to a peer that something is sent to; it calls `adopt`, at once or later.
    """

    def __init__(self, sink: Sink, poller: Poller, *, connect: Callable[[int], None]) -> None:
        self._sink = sink
        self._poller = poller
        self._connect = connect
        self._links: dict[int, _Link] = {}
        self._messages_sent = self._messages_received = 0
        self._bytes_sent = self._bytes_received = 0
        self._traffic: dict[int, list[int]] = {}

    def adopt(self, peer: int, sock: socket.socket | SecureSocket) -> None:
        """Use a connected stream socket for ``peer`` and own it from now on; flushes what is queued.

        A second socket for the same peer is read too: the other side may have connected at the same time. What a
        `SecureSocket` holds counts as pending, and its peer is told a goodbye when all that was sent has left.
        """
        _prepare(sock)
        link = self._links.get(peer)
        connection = _Connection(link or self._make_link(peer), sock)
        link = connection.link
        link.connections.append(connection)
        self._poller.register(connection.fd, EPOLLIN, partial(self._react, connection))
        if connection.secure is not None:
            connection.secure.on_wait = partial(self._watch, connection)
        if link.out is None:
            link.use(connection)
            self._flush(link)

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        frame = pack_frame(message)
        link = self._links.get(peer)
        self._messages_sent += 1
        if link is None:
            return self._introduce(peer, frame, copy)
        sent = 0
        if len(frame) == 1 and link.out is not None and not link.outbox:
            part = frame[0]
            try:
                sent = link.send(part)
            except BlockingIOError:
                pass
            except OSError as error:
                return self._refused(link, error)
            self._bytes_sent += sent
            link.traffic[1] += sent
            if sent == len(part):
                link.traffic[0] += 1
                return SENT
        parcel = self._queue(link, frame)
        if sent:
            link.pending -= sent
            parcel.advance(sent)
        if link.out is not None and link.outbox[0] is parcel:
            self._flush(link)
        if copy and not parcel.done:
            parcel.keep()
        return parcel

    def is_known(self, peer: int) -> bool:
        """Tell whether there is a connection to a peer, or one was asked for."""
        return peer in self._links

    def give_up(self, peer: int, reason: str) -> None:
        """Take note that no connection to a peer can be had: what waits for one never leaves."""
        link = self._links.get(peer)
        if link is not None:
            self._end(link, reason)

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        link = self._links.get(peer)
        if link is not None:
            for connection in list(link.connections):
                self._read(connection, _WITHOUT_END)

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        if peer is None:
            return sum(link.left for link in self._links.values())
        return self._links[peer].left if peer in self._links else 0

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`."""
        link = self._links.pop(peer, None)
        if link is not None:
            self._drop(link, "was disconnected from", goodbye=not dead and not link.outbox)

    def close(self) -> None:
        """See `Transport.close`."""
        for peer in list(self._links):
            self.disconnect(peer)

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        for link in self._links.values():
            for connection in link.connections:
                connection.abandon()
        self._links.clear()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        connections = sum(len(link.connections) for link in self._links.values())
        return TransportStatistics(
            self._messages_sent, self._messages_received, self._bytes_sent, self._bytes_received, connections
        )

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return {peer: (messages, size) for peer, (messages, size) in self._traffic.items() if size}

    def exchanged(self) -> dict[int, tuple[int, int]]:
        """Return how many messages have left for each peer that there is a connection to, and how many have come."""
        return {peer: (link.traffic[0] - link.earlier, link.taken) for peer, link in self._links.items()}

    # -- out

    def _make_link(self, peer: int) -> _Link:
        link = self._links[peer] = _Link(peer, self._traffic.setdefault(peer, [0, 0]))
        return link

    def _introduce(self, peer: int, frame: list[bytes | memoryview], copy: bool) -> Ticket:
        link = self._make_link(peer)
        parcel = self._queue(link, frame)
        try:
            self._connect(peer)
        except OSError as error:
            self._end(link, f"could not be reached: {error.strerror or error}")
        if copy and not parcel.done:
            parcel.keep()
        return parcel

    def _queue(self, link: _Link, frame: list[bytes | memoryview]) -> _Parcel:
        parcel = _Parcel(link, frame)
        link.outbox.append(parcel)
        link.pending += sum(map(len, frame))
        return parcel

    def _flush(self, link: _Link) -> None:
        """Hand what is queued to the kernel until that is all, or the kernel has enough."""
        outbox = link.outbox
        while outbox or link.held:
            views, size = _gather(outbox)
            try:
                count = link.send(views[0]) if len(views) == 1 else link.sendmsg(views)
            except BlockingIOError:
                break
            except OSError as error:
                self._refused(link, error)
                return
            self._bytes_sent += count
            link.traffic[1] += count
            link.pending -= count
            rest = count
            while rest:
                rest = outbox[0].advance(rest)
                if outbox[0].done:
                    outbox.popleft()
                    link.traffic[0] += 1
            if count < size:
                break
        if link.out is not None:
            self._watch(link.out)

    def _watch(self, connection: _Connection) -> None:
        """Let the poller tell when the kernel takes bytes, if there are any."""
        writing = connection.wants_to_write
        if writing != connection.watching and connection.open:
            connection.watching = writing
            self._poller.modify(connection.fd, EPOLLIN | EPOLLOUT if writing else EPOLLIN)

    def _refused(self, link: _Link, error: OSError) -> Ticket:
        """The peer takes no more: read what it said last, then tell its end."""
        self.drain(link.peer)
        self._end(link, _describe(error))
        ticket = Ticket()
        ticket.error = PeerLostError(link.peer, _describe(error))
        return ticket

    # -- in

    def _react(self, connection: _Connection, events: int) -> None:
        if events != EPOLLIN and events & EPOLLOUT and connection.watching:
            self._flush(connection.link)
        if (events != EPOLLOUT or connection.secure is not None) and connection.open:
            self._read(connection, _READS_PER_EVENT)
            if connection.watching:
                self._watch(connection)  # a secure one that has read may have what it waited for

    def _read(self, connection: _Connection, rounds: int) -> None:
        reader = connection.reader
        peer = connection.link.peer
        while connection.open:
            buffer = reader.buffer()
            room = len(buffer)
            try:
                count = connection.recv_into(buffer)
                messages = reader.received(count)
            except BlockingIOError:
                return
            except OSError as error:
                if isinstance(error, ConnectionResetError) and not connection.reset:
                    # A peer that left something unread: a unix socket says so before it hands out what is there.
                    connection.reset = True
                    continue
                self._closed(connection, _describe(error))
                return
            except RemoteProtocolError as error:
                self._closed(connection, f"broke the protocol: {error}" if count else f"was cut off: {error}")
                return
            self._bytes_received += count
            for message in messages:
                if message.source != peer:
                    self._closed(connection, f"broke the protocol: it sent in the name of {message.source}")
                    return
                self._messages_received += 1
                connection.link.taken += 1
                self._sink.deliver(peer, message)
            if not count:
                self._closed(connection, "closed its connection")
            rounds -= 1
            if connection.secure is not None and (connection.secure.more or rounds > _READS_PER_EVENT):
                continue
            if count < room or not rounds:
                return

    def _closed(self, connection: _Connection, reason: str) -> None:
        """One socket has ended: what its twin still holds comes first, then the peer is lost."""
        link = connection.link
        self._release(connection)
        for other in list(link.connections):
            self._read(other, _WITHOUT_END)
        self._end(link, reason)

    def _end(self, link: _Link, reason: str) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._drop(link, reason)
            self._sink.lost(link.peer, reason)

    def _drop(self, link: _Link, reason: str, *, goodbye: bool = False) -> None:
        for connection in list(link.connections):
            self._release(connection, goodbye=goodbye)
        for parcel in link.outbox:
            parcel.error = PeerLostError(link.peer, reason)
            parcel.parts = []
        link.outbox.clear()
        link.pending = 0

    def _release(self, connection: _Connection, *, goodbye: bool = False) -> None:
        connection.open = False
        link = connection.link
        link.connections.remove(connection)
        if link.out is connection:
            link.out = None
        self._poller.unregister(connection.fd)
        connection.close(goodbye=goodbye)


def _prepare(sock: socket.socket | SecureSocket) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_BUFFER_BYTES)
    elif sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _gather(outbox: deque[_Parcel]) -> tuple[list[bytes | memoryview], int]:
    """Return what of an outbox the kernel takes in one call, and its size."""
    if not outbox:
        return [b""], 0
    views = outbox[0].parts
    if len(outbox) > 1:
        views = []
        for parcel in outbox:
            views.extend(parcel.parts)
            if len(views) >= _IOV_MAX:
                break
    views = views[:_IOV_MAX]
    return views, sum(map(len, views))


def _describe(error: OSError) -> str:
    if isinstance(error, ConnectionError):
        return "closed its connection"
    return f"was cut off: {error.strerror or error}"
