"""Connections, pipes, listeners and clients that carry anything; multiprocessing.connection's names.

Layer: above reduction. The standard module binds sockets and authenticates; connections are made here.
"""

from __future__ import annotations

import multiprocessing.connection as standard
import os
import socket
import sys
from multiprocessing.connection import (  # type: ignore[attr-defined]
    BUFSIZE,
    CONNECTION_TIMEOUT,
    MESSAGE_LENGTH,
    AuthenticationError,
    BufferTooShort,
    ConnectionWrapper,
    _check_timeout,
    _ConnectionBase,
    _init_timeout,
    _validate_family,
    address_type,
    answer_challenge,
    arbitrary_address,
    default_family,
    deliver_challenge,
    families,
    wait,
)
from typing import Any

from klyng_mp.objects.doors import DoorAddress
from klyng_mp.reduction import DupFd, ForkingPickler

if sys.version_info < (3, 12):
    from multiprocessing.connection import CHALLENGE, FAILURE, WELCOME  # type: ignore[attr-defined]

__all__ = [
    "Client",
    "Connection",
    "ConnectionWrapper",
    "Listener",
    "Pipe",
    "SocketClient",
    "SocketListener",
    "XmlClient",
    "XmlListener",
    "address_type",
    "answer_challenge",
    "arbitrary_address",
    "deliver_challenge",
    "rebuild_connection",
    "reduce_connection",
    "wait",
]


class Connection(standard.Connection):
    """One end of a pipe or socket; see ``multiprocessing.connection.Connection``.

    What `send` writes is an ordinary pickle, so the other end may be a plain multiprocessing Connection.
    """

    def send(self, obj: object) -> None:
        """Send an object; also lambdas, closures, local classes, and things of a notebook's ``__main__``.

        Raises:
            CodecError: it cannot travel; names which part. Nothing was sent.
            OSError, ValueError: as in the standard library.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_writable()  # type: ignore[attr-defined]
        self._send_bytes(ForkingPickler.dumps(obj))  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_connection, (DupFd(self.fileno()), self.readable, self.writable)


def reduce_connection(conn: Connection) -> tuple[Any, ...]:
    """Return what travels of a connection."""
    return conn.__reduce__()


def rebuild_connection(df: Any, readable: bool, writable: bool) -> Connection:
    """Return a connection from what has travelled of it; pickles call this."""
    return Connection(df.detach(), readable, writable)


def _connection_of(end: socket.socket) -> Connection:
    end.setblocking(True)
    return Connection(end.detach())


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connections that are the ends of one pipe; see ``multiprocessing.Pipe``."""
    if duplex:
        first, second = socket.socketpair()
        return _connection_of(first), _connection_of(second)
    reader, writer = os.pipe()
    return Connection(reader, writable=False), Connection(writer, readable=False)


class SocketListener(standard.SocketListener):  # type: ignore[misc, name-defined]
    """The socket of a `Listener`."""

    def accept(self) -> Connection:
        """Wait for a client, and return the connection to it."""
        accepted, self._last_accepted = self._socket.accept()
        return _connection_of(accepted)


def SocketClient(address: Any) -> Connection:
    """Return a connection to a socket, before anybody has proved anything."""
    with socket.socket(getattr(socket, address_type(address))) as end:
        end.connect(address)
        return _connection_of(end)


class Listener(standard.Listener):
    """Something that listens for clients; see ``multiprocessing.connection.Listener``."""

    _listener: Any

    def __init__(
        self, address: Any = None, family: str | None = None, backlog: int = 1, authkey: bytes | None = None
    ) -> None:
        super().__init__(address, family, backlog, authkey)
        self.take_over(self)

    @classmethod
    def take_over(cls, listener: Any) -> None:
        """Make a standard listener one of this class, with the socket that it has: what it accepts is ours."""
        listener.__class__ = cls
        listener._listener.__class__ = SocketListener


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Any:
    """Return a connection to a listener; see ``multiprocessing.connection.Client``."""
    if isinstance(address, DoorAddress):
        if (far := address.dial()) is not None:
            return far
        address = str(address)
    _validate_family(family or address_type(address))
    if authkey is not None and not isinstance(authkey, bytes):
        raise TypeError("authkey should be a byte string")
    connection = SocketClient(address)
    try:
        if authkey is not None:
            answer_challenge(connection, authkey)
            deliver_challenge(connection, authkey)
    except BaseException:
        connection.close()
        raise
    return connection


def _xml_dumps(obj: object) -> bytes:
    from xmlrpc.client import dumps  # noqa: PLC0415 - slow to import, and few need it

    return dumps((obj,), allow_none=True).encode()  # type: ignore[arg-type]  # what cannot travel is refused


def _xml_loads(data: bytes) -> Any:
    from xmlrpc.client import loads  # noqa: PLC0415 - likewise

    return loads(data)[0][0]


def _as_xml(connection: Any) -> Any:
    return ConnectionWrapper(connection, _xml_dumps, _xml_loads)


class XmlListener(Listener, standard.XmlListener):  # type: ignore[misc, name-defined]
    """A `Listener` whose connections carry what XML-RPC can, and no pickles."""

    def accept(self) -> Any:
        """Wait for a client, and return the connection to it."""
        return _as_xml(Listener.accept(self))


def XmlClient(*args: Any, **kwds: Any) -> Any:
    """Return a connection to an `XmlListener`."""
    return _as_xml(Client(*args, **kwds))
