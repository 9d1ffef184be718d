"""Where a supervising process can be asked by others what its ranks do: for ``klyng-mp ps``.

Layer: launch. The address is an abstract unix socket, which is no file and vanishes with the process. Only the same
user and root are answered: one report for a connection, as JSON, without reading anything of theirs.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.loop import Loop
    from klyng_mp.launch.watch import Watch

__all__ = ["ADDRESS", "Listener", "peer_of"]

ADDRESS = "\0klyng-mp/{uid}/{pid}"
_MOST_CLIENTS = 16
_CLIENT_SECONDS = 10.0  # after which a client that does not read is given up
_CREDENTIALS = struct.Struct("3i")


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Return the process and the user at the other end of a unix socket, as the kernel knows them."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(packed)
    return pid, uid


class Listener:
    """Answers whoever connects with what the ranks of this process's supervisors do.

    Args:
        loop: the supervisors' loop.
        driver: the process whose ranks they are.
        watches: returns those of the supervisors.

    A process that cannot have the address goes without: then ``klyng-mp ps`` does not see it.
    """

    def __init__(self, loop: Loop, driver: int, watches: Callable[[], Sequence[Watch]]) -> None:
        self._loop = loop
        self._driver = driver
        self._watches = watches
        self._clients: set[_Client] = set()
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(ADDRESS.format(uid=os.geteuid(), pid=os.getpid()))
            self._socket.listen()
        except OSError:  # in another container with this network there is a process of this number
            self._socket.close()
            self._socket = None
            return
        loop.register(self._socket.fileno(), select.EPOLLIN, lambda _events: self._accept())

    def close(self) -> None:
        """Answer nobody any more."""
        for client in list(self._clients):
            client.close()
        if self._socket is not None:
            self._loop.unregister(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None  # noqa: S101 - it is what was registered
        try:
            sock, _ = self._socket.accept()
        except OSError:  # it has gone, or this process may open no more files
            return
        if len(self._clients) >= _MOST_CLIENTS or peer_of(sock)[1] not in (os.geteuid(), 0):
            sock.close()
            return
        client = _Client(self._loop, sock, self._clients)
        self._describe(client.send)

    def _describe(self, then: Callable[[dict[str, Any]], None]) -> None:
        """Ask all ranks, and call ``then`` when the last has answered, or has not in time."""
        watches = list(self._watches())
        report: dict[str, Any] = {"supervisor": os.getpid(), "driver": self._driver, "worlds": []}

        def note(world: dict[str, Any]) -> None:
            report["worlds"].append(world)
            if len(report["worlds"]) == len(watches):
                then(report)

        if not watches:
            then(report)
        for watch in watches:
            watch.describe(note)


class _Client:
    """One who has connected."""

    def __init__(self, loop: Loop, sock: socket.socket, clients: set[_Client]) -> None:
        self._loop = loop
        self._socket = sock
        self._clients = clients
        self._left = b""
        sock.setblocking(False)
        clients.add(self)
        self._timer = loop.call_later(_CLIENT_SECONDS, self.close)

    def send(self, report: dict[str, Any]) -> None:
        """Send the report, as fast as it is read, and close."""
        import json  # noqa: PLC0415 - most processes are never asked

        if self in self._clients:
            self._left = json.dumps(report).encode()
            self._loop.register(self._socket.fileno(), select.EPOLLOUT, lambda _events: self._push())

    def _push(self) -> None:
        try:
            self._left = self._left[self._socket.send(self._left) :]
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self._left = b""
        if not self._left:
            self.close()

    def close(self) -> None:
        """Be done with it; may be called again."""
        if self in self._clients:
            self._clients.discard(self)
            self._timer.cancel()
            self._loop.unregister(self._socket.fileno())
            self._socket.close()
