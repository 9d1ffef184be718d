"""Where the ranks of a World come in that MPI has started: a port of the driver's, and what a rank needs to find it.

Layer: cluster. Driver and ranks prove who they are as the ranks of other machines do: by TLS 1.3 under an authority
that lives as long as the job. Who comes without a certificate of it gets no further than the handshake.

The port is on loopback, unless the environment says that a scheduler has given the job several nodes, or names the
address (``KLYNG_MP_DRIVER_HOST``) at which the ranks find the driver.

A rank comes once to stay, as the driver's peer, and again for each *channel* that the driver opens to a process in its
place: then it says the channel's number, and waits until the driver has, too.

Threads: one accepts, and each connection that is being proved has one.
"""

from __future__ import annotations

import base64
import os
import pickle
import socket
import struct
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BeaconError, RemoteProtocolError
from klyng_mp.machine import hostname
from klyng_mp.remote.network import closed_on_error, keep_alive
from klyng_mp.remote.tls import DATA, Credentials, check_channel, peer_number, rank_contexts, rank_name
from klyng_mp.transports.secure import SecureSocket
from klyng_mp.wire.frames import DRIVER

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["OWN", "Door", "Invitation", "enter", "fetch"]

_VARIABLE = "KLYNG_MP_DRIVER_HOST"
_SECONDS = 10.0  # to open a connection, and to prove it
_COURIER = DRIVER - 1  # its number in its certificate
_NUMBER = struct.Struct("<Q")
OWN = 0  # the channel by which a rank is the driver's peer
_SPARE = 64  # connections of strangers that may be at the door at once, beside all ranks


class Invitation(NamedTuple):
    """What a process needs to come to the door.

    Attributes:
        addresses: where it may be: (host, port).
        credentials: who the process is.
    """

    addresses: list[tuple[str, int]]
    credentials: Credentials

    def pack(self) -> str:
        """Return it as the value of an environment variable, which only processes of the same user can read."""
        return base64.b64encode(pickle.dumps(self)).decode()

    @classmethod
    def unpack(cls, packed: str) -> Invitation:
        """Return what was packed."""
        found: Invitation = pickle.loads(base64.b64decode(packed))  # noqa: S301 - from the driver, by the environment
        return found


class Door:
    """The driver's port, open until it is closed.

    Who fetches for all what they are to be is the *courier*: any process with its invitation, as often as it likes.

    Args:
        size: how many ranks there are.
        describe: returns what the courier is given, from the invitations of all ranks.
        welcome: called in a thread with a rank's number and its connection, which it owns then; once for each.

    Raises:
        OSError: there is no such address here, or no descriptors are left.

    Attributes:
        invitation: the courier's.
    """

    def __init__(
        self, size: int, describe: Callable[[list[Invitation]], bytes], welcome: Callable[[int, SecureSocket], None]
    ) -> None:
        from klyng_mp.remote.security import JobAuthority  # noqa: PLC0415 - imports cryptography

        authority = JobAuthority()
        self._context = rank_contexts(authority.issue(DRIVER))[0]
        self._size = size
        self._welcome = welcome
        self._came: set[int] = set()
        self._changed = threading.Condition()
        self._channels: dict[tuple[int, int], Callable[[SecureSocket], None]] = {}  # those that the driver has opened
        self._room = threading.BoundedSemaphore(size + _SPARE)
        name = _own_name()
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        try:
            if name is not None:
                self._sockets.append(socket.create_server((name, 0)))
        except OSError:
            self.close()
            raise
        addresses = [(one.getsockname()[0], one.getsockname()[1]) for one in reversed(self._sockets)]
        self.invitation = Invitation(addresses, authority.issue(_COURIER))
        self._description = describe([Invitation(addresses, authority.issue(rank)) for rank in range(size)])
        for one in self._sockets:
            threading.Thread(target=self._accept, args=(one,), name="klyng_mp connection", daemon=True).start()

    def open_channel(self, rank: int, number: int, opened: Callable[[SecureSocket], None]) -> None:
        """Let a rank come for a channel; ``opened`` is called in a thread with its connection, which it owns then."""
        with self._changed:
            self._channels[rank, number] = opened
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        for one in self._sockets:
            with suppress(OSError):  # nobody was ever there
                one.shutdown(socket.SHUT_RDWR)  # which wakes who accepts
            one.close()

    def abandon(self) -> None:
        """In a forked child: close its copies of the sockets, which its parent goes on to listen at."""
        for one in self._sockets:
            one.close()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:  # it is closed
                return
            if self._room.acquire(blocking=False):
                threading.Thread(target=self._prove, args=(sock,), name="klyng_mp connection", daemon=True).start()
            else:
                sock.close()

    def _seat(self, rank: int, number: int) -> Callable[[SecureSocket], None]:
        """Return what is to be called with the connection of a rank that comes for a channel."""
        with self._changed:
            if number == OWN and rank < self._size and rank not in self._came:
                self._came.add(rank)
                return partial(self._welcome, rank)
            if self._changed.wait_for(lambda: (rank, number) in self._channels, _SECONDS):
                return self._channels.pop((rank, number))
        raise RemoteProtocolError(f"there is nothing for a rank {rank} that comes for a channel {number}")

    def _prove(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(_SECONDS)
            keep_alive(sock)
            tls = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
            with closed_on_error(tls):
                check_channel(tls, DATA)
                rank = peer_number(tls)
                if rank == _COURIER:
                    tls.sendall(_NUMBER.pack(len(self._description)) + self._description)
                    tls.close()
                    return
                (number,) = _NUMBER.unpack(_read(tls, _NUMBER.size))
                take = self._seat(rank, number)
            take(SecureSocket(tls))
        except (OSError, BeaconError, RemoteProtocolError):
            sock.close()  # whoever it was: a rank of this job has all that is asked for
        finally:
            self._room.release()


def fetch(invitation: Invitation) -> bytes:
    """Return, as the courier, what all ranks are to be.

    Raises:
        OSError: the door is not to be reached at any of its addresses, or is closed.
    """
    with _knock(invitation) as tls:
        (size,) = _NUMBER.unpack(_read(tls, _NUMBER.size))
        return _read(tls, size)


def enter(invitation: Invitation, channel: int = OWN) -> SecureSocket:
    """Return a rank's connection to the driver for a channel, proved on both sides.

    Raises:
        OSError: as by `fetch`.
    """
    tls = _knock(invitation)
    tls.sendall(_NUMBER.pack(channel))
    return SecureSocket(tls)


def _knock(invitation: Invitation) -> ssl.SSLSocket:
    context = rank_contexts(invitation.credentials)[1]
    errors = []
    for host, port in invitation.addresses:
        try:
            sock = socket.create_connection((host, port), _SECONDS)
        except OSError as error:
            errors.append(f"{host}:{port}: {error.strerror or error}")
            continue
        keep_alive(sock)
        tls = context.wrap_socket(sock, server_hostname=rank_name(DRIVER), suppress_ragged_eofs=False)
        check_channel(tls, DATA)
        return tls
    raise OSError(f"the driver is not to be reached ({'; '.join(errors)}); {_VARIABLE} can name where it is")


def _read(tls: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := tls.recv(size - len(data))):
            raise OSError("the other side has closed the connection")
        data += more
    return data


def _own_name() -> str | None:
    """Return the name by which ranks on other nodes find this one, if there may be any."""
    if named := os.environ.get(_VARIABLE):
        return named
    nodes = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or "1"
    return hostname() if nodes.isdecimal() and int(nodes) > 1 else None
