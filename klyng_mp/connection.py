"""Connections, pipes, listeners and clients that carry anything; multiprocessing.connection's names.

Layer: above reduction. The standard module makes the sockets and authenticates; what it makes is taken over.
"""

from __future__ import annotations

import multiprocessing.connection as standard
from multiprocessing.connection import (  # type: ignore[attr-defined]
    answer_challenge,
    arbitrary_address,
    deliver_challenge,
    wait,
)
from typing import Any

from klyng_mp.reduction import DupFd, ForkingPickler

__all__ = [
    "Client",
    "Connection",
    "Listener",
    "Pipe",
    "answer_challenge",
    "arbitrary_address",
    "deliver_challenge",
    "rebuild_connection",
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


def rebuild_connection(handle: Any, readable: bool, writable: bool) -> Connection:
    """Return a connection from what has travelled of it; pickles call this."""
    return Connection(handle.detach(), readable, writable)


def _take_over(connection: Any) -> Connection:
    """Return a connection of ours in the place of a standard one, which is closed for whoever still has it."""
    own = Connection(connection.fileno(), connection.readable, connection.writable)
    connection._handle = None
    return own


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connections that are the ends of one pipe; see ``multiprocessing.Pipe``."""
    first, second = standard.Pipe(duplex)
    return _take_over(first), _take_over(second)


class Listener(standard.Listener):
    """Something that listens for clients; see ``multiprocessing.connection.Listener``."""

    def accept(self) -> Connection:
        """Wait for a client, and return the connection to it."""
        return _take_over(super().accept())


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Connection:
    """Return a connection to a listener; see ``multiprocessing.connection.Client``."""
    return _take_over(standard.Client(address, family, authkey))
