"""How ranks of different hosts reach each other: one connection for each pair that talks, opened when it first does.

Layer: remote; imported by every rank of a World that spans hosts, so the standard library only.

A connection goes to the one port of the other host's beacon. Its first bytes, the preface, say for which rank of which
job it is, and the beacon hands the socket to that rank. Then both prove who they are: by TLS under the job's own
authority, or, where beacon and job both allow plain text, by the job's join key.

Who opens it is fixed, so that two never cross: the launching side, which has no port; else the lower rank. The other
asks for it through its supervisor.

The driver may open further connections to a rank, *channels* (`remote.channels`), which are no endpoint's.

Threads: connections are made and proved in a short-lived thread each; what comes of it is handed to the endpoint under
its lock.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.deadline import Deadline
from klyng_mp.errors import BeaconError, RemoteProtocolError
from klyng_mp.remote.channels import Channels, is_channel
from klyng_mp.remote.preface import pack_preface
from klyng_mp.remote.proving import Proving
from klyng_mp.remote.tls import DATA, check_channel, peer_number, rank_contexts, rank_name
from klyng_mp.transports.secure import SecureSocket
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import DRIVER

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.remote.tls import Credentials

__all__ = ["RankNetwork", "Site", "closed_on_error", "keep_alive"]

_SECONDS = 10.0  # to open a connection, and to prove it
_DEAD_MILLISECONDS = 10_000  # what was sent and is not acknowledged for so long ends a connection
_OPEN = b"\x01"  # what the accepting side says when it is content: in TLS 1.3 the other one cannot know
_INCARNATION = struct.Struct(">I")  # both say which occupant of their place they are
_LAST_SECONDS = 2.0  # in which what a process has sent last, and the end of its connection, come after its end
_NONCE = 16
_PROOF = 32


class Site(NamedTuple):
    """A host of a job, as the ranks see it.

    Attributes:
        name: for errors.
        first, size: its ranks, from the first.
        address, port: of its beacon; no address for the launching side, which has none.
    """

    name: str
    first: int
    size: int
    address: str
    port: int

    @property
    def ranks(self) -> range:
        """Its ranks."""
        return range(self.first, self.first + self.size)


class _End(NamedTuple):
    """What is to be done when nothing more can come from a peer, or when it has been waited for too long."""

    peer: int
    action: Callable[[], None]
    timer: threading.Timer


class RankNetwork:
    """The network of one job, as one host's ranks, or the driver, know it; see `klyng_mp.launch.spec.Network`.

    Args:
        job_id: 16 bytes.
        join_key: what prefaces are made with.
        sites: all hosts of the job.
        credentials: of those who use it here, by number; None where the connections are not encrypted.
        far_driver: whether the driver is on another host.
    """

    def __init__(
        self,
        job_id: bytes,
        join_key: bytes,
        sites: Sequence[Site],
        credentials: Mapping[int, Credentials] | None,
        *,
        far_driver: bool,
    ) -> None:
        self.job_id = job_id
        self.join_key = join_key
        self.sites = tuple(sites)
        self.credentials = credentials
        self.far_driver = far_driver

    def attach(self, endpoint: Endpoint, ask: Callable[[int], None]) -> _Wires:
        """See `klyng_mp.launch.spec.Network.attach`."""
        return _Wires(self, endpoint, ask)

    def site_of(self, number: int) -> Site | None:
        """Return the host of a rank; None for the driver."""
        return next((site for site in self.sites if number in site.ranks), None)

    def __repr__(self) -> str:
        return f"<RankNetwork of {len(self.sites)} hosts>"


class _Wires:
    """The connections of one rank, or of the driver, to those of other hosts."""

    def __init__(self, network: RankNetwork, endpoint: Endpoint, ask: Callable[[int], None]) -> None:
        self._network = network
        self._endpoint = endpoint
        self._ask = ask
        self._number = endpoint.number
        self._opening: set[int] = set()
        self._accepting: Counter[int] = Counter()  # connections that are being proved, by source
        self._ends: dict[int, _End] = {}
        self._channels = Channels()
        self._proving = Proving(sum(one.size for one in network.sites))
        site = network.site_of(self._number)
        self._launches = site is None or not site.address
        self._contexts = None if network.credentials is None else rank_contexts(network.credentials[self._number])
        self.transport = StreamTransport(endpoint, endpoint.poller, connect=self._connect)

    def accept(self, source: int, fd: int) -> None:
        """See `klyng_mp.launch.spec.Wires.accept`."""
        sock = socket.socket(fileno=fd)
        if self._proving.begin(source):
            self._accepting[source] += not is_channel(source)
            self._start(self._accept, source, sock)
        else:
            sock.close()

    def outlast(self, peer: int, action: Callable[[], None]) -> bool:
        """See `klyng_mp.launch.spec.Wires.outlast`."""
        if not (peer in self._opening or self._accepting[peer] or self.transport.is_known(peer)):
            return False
        self.ended(peer)  # which was another one's
        timer = threading.Timer(_LAST_SECONDS, lambda: self._expire(end))
        end = self._ends[peer] = _End(peer, action, timer)
        timer.daemon = True
        timer.start()
        return True

    def ended(self, peer: int) -> bool:
        """See `klyng_mp.launch.spec.Wires.ended`."""
        end = self._ends.pop(peer, None)
        if end is None:
            return False
        end.timer.cancel()
        end.action()
        return True

    def _expire(self, end: _End) -> None:
        with self._endpoint.lock:
            if self._ends.get(end.peer) is end:
                self.ended(end.peer)

    def offer(self, number: int, fd: int) -> None:
        """See `klyng_mp.launch.spec.Wires.offer`."""
        sock = socket.socket(fileno=fd)
        if is_channel(number):
            self._channels.offer(number, sock)
        else:
            sock.close()

    def claim(self, number: int, deadline: Deadline) -> Any:
        """See `klyng_mp.launch.spec.Wires.claim`."""
        return self._channels.claim(number, deadline)

    def open_channel(self, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        """As the driver, open a channel to a rank of another host.

        Args:
            rank: whose.
            number: of the channel.
            opened: called in a thread, with a socket that is owned by it and "", or None and the reason.
        """
        self._start(self._open_channel, rank, number, opened)

    def open_here(self, offer: Callable[[int], None], opened: Callable[[Any, str], None]) -> None:
        """As the driver, open a channel to a rank of this host: ``offer`` hands it an end; see `open_channel`."""
        self._start(self._open_here, offer, opened)

    def dial(self, peer: int) -> None:
        """See `klyng_mp.launch.spec.Wires.dial`."""
        if peer not in self._opening and not self.transport.is_known(peer):
            self._opening.add(peer)
            self._start(self._open, peer)

    def exchanged(self) -> dict[int, tuple[int, int]]:
        """See `klyng_mp.launch.spec.Wires.exchanged`."""
        exchanged = self.transport.exchanged()
        exchanged.pop(DRIVER, None)
        return exchanged

    @property
    def dropped(self) -> int:
        """See `klyng_mp.launch.spec.Wires.dropped`."""
        return self._proving.dropped

    # -- with the endpoint's lock held

    def _connect(self, peer: int) -> None:
        if not self._opens(peer):
            self._ask(peer)
        elif peer not in self._opening:
            self._opening.add(peer)
            self._start(self._open, peer)

    def _opens(self, peer: int) -> bool:
        """Whether connections with a peer are opened here."""
        other = self._network.site_of(peer)
        if other is None or not other.address:
            return False
        return self._launches or self._number < peer

    @staticmethod
    def _start(function: Callable[..., None], *args: object) -> None:
        threading.Thread(target=function, args=args, name="klyng_mp connection", daemon=True).start()

    # -- in threads of their own

    def _open(self, peer: int) -> None:
        sock, incarnation, reason = self._connect_to(peer, self._number)
        if sock is None:
            self._fail(peer, reason)
        else:
            self._adopt(peer, sock, incarnation)

    def _open_channel(self, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        sock, _, reason = self._connect_to(rank, number)
        opened(sock, reason)

    @staticmethod
    def _open_here(offer: Callable[[int], None], opened: Callable[[Any, str], None]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            offer(theirs.fileno())
        opened(ours, "")

    def _connect_to(self, peer: int, source: int) -> tuple[socket.socket | SecureSocket | None, int, str]:
        """Return a connection to a peer, proved on both sides, and which occupant it is; or None and the reason."""
        site = self._network.site_of(peer)
        assert site is not None  # noqa: S101 - `_opens` has looked
        sock = None
        try:
            sock = socket.create_connection((site.address, site.port), _SECONDS)
            keep_alive(sock)
            sock.sendall(pack_preface(self._network.job_id, source, peer, self._network.join_key))
            return *self._prove_opened(sock, peer, source), ""
        except (OSError, BeaconError, RemoteProtocolError) as error:
            if sock is not None:
                sock.close()
            return None, 0, f"could not be reached at {site.name} ({site.address}:{site.port}): {_describe(error)}"

    def _prove_opened(self, sock: socket.socket, peer: int, source: int) -> tuple[socket.socket | SecureSocket, int]:
        incarnation = _INCARNATION.pack(self._endpoint.incarnation)
        if self._contexts is None:
            ours = os.urandom(_NONCE)
            sock.sendall(ours)
            theirs = _read(sock, _NONCE + _PROOF)
            self._check(theirs[_NONCE:], b"accept", ours + theirs[:_NONCE], (source, peer))
            sock.sendall(self._prove(b"open", ours + theirs[:_NONCE], (source, peer)) + incarnation)
            return sock, _read_opened(sock)
        tls = self._contexts[1].wrap_socket(sock, server_hostname=rank_name(peer), suppress_ragged_eofs=False)
        with closed_on_error(tls):
            check_channel(tls, DATA)
            tls.sendall(incarnation)
            other = _read_opened(tls)
        return SecureSocket(tls), other

    def _accept(self, source: int, sock: socket.socket) -> None:
        try:
            sock.settimeout(_SECONDS)
            keep_alive(sock)
            proved, incarnation = self._prove_accepted(sock, source)
        except (OSError, BeaconError, RemoteProtocolError):
            sock.close()  # whoever it was: who is of this job tries again, or is told of the loss
            with self._endpoint.lock:
                self._accepting[source] -= not is_channel(source)
        else:
            if is_channel(source):
                self._channels.offer(source, proved)
            else:
                self._adopt(source, proved, incarnation, accepted=True)
        finally:
            self._proving.end(source)

    def _prove_accepted(self, sock: socket.socket, source: int) -> tuple[socket.socket | SecureSocket, int]:
        content = _OPEN + _INCARNATION.pack(self._endpoint.incarnation)
        if self._contexts is None:
            theirs = _read(sock, _NONCE)
            both = theirs + os.urandom(_NONCE)
            sock.sendall(both[_NONCE:] + self._prove(b"accept", both, (source, self._number)))
            self._check(_read(sock, _PROOF), b"open", both, (source, self._number))
            incarnation = _read_incarnation(sock)
            sock.sendall(content)
            return sock, incarnation
        tls = self._contexts[0].wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        with closed_on_error(tls):
            check_channel(tls, DATA)
            if peer_number(tls) != (DRIVER if is_channel(source) else source):
                raise RemoteProtocolError(f"rank {peer_number(tls)} says to be {source}")
            incarnation = _read_incarnation(tls)
            tls.sendall(content)
        return SecureSocket(tls), incarnation

    def _prove(self, label: bytes, nonces: bytes, pair: tuple[int, int]) -> bytes:
        text = b"klyng-mp plain" + label + nonces + b"".join(number.to_bytes(4, "big") for number in pair)
        return hmac.digest(self._network.join_key, text, hashlib.sha256)

    def _check(self, proof: bytes, label: bytes, nonces: bytes, pair: tuple[int, int]) -> None:
        if not hmac.compare_digest(proof, self._prove(label, nonces, pair)):
            raise RemoteProtocolError("the other side does not know the job's key")

    def _adopt(
        self, peer: int, sock: socket.socket | SecureSocket, incarnation: int, *, accepted: bool = False
    ) -> None:
        with self._endpoint.lock:
            self._opening.discard(peer)
            self._accepting[peer] -= accepted
            if self._endpoint.room.closed:
                sock.close()
                return
            if DRIVER in (peer, self._number):  # who is never replaced, and is told of others by their hosts
                self.transport.adopt(peer, sock)
            elif not self._endpoint.mark_present(peer, incarnation, lambda: self.transport.adopt(peer, sock)):
                sock.close()
            self._endpoint.progress()
            self._endpoint.room.notify()  # what waited for the connection has left just now, or never will

    def _fail(self, peer: int, reason: str) -> None:
        with self._endpoint.lock:
            self._opening.discard(peer)
            self.transport.give_up(peer, reason)
            self._endpoint.progress()
            self._endpoint.room.notify()  # what waited for the connection has left just now, or never will


@contextmanager
def closed_on_error(tls: ssl.SSLSocket) -> Iterator[None]:
    """Close a connection that comes to nothing; the socket that it was made of is closed already."""
    try:
        yield
    except BaseException:
        tls.close()
        raise


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other end is gone, with data on its way or without."""
    with suppress(OSError):  # not a TCP socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MILLISECONDS)


def _read(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes; all of them have to come in time, so that who sends one now and then gains none."""
    data, deadline = b"", Deadline(_SECONDS)
    while len(data) < size:
        sock.settimeout(deadline.left())
        more = sock.recv(size - len(data))
        if not more:
            raise RemoteProtocolError("the other side closed the connection")
        data += more
    sock.settimeout(_SECONDS)
    return data


def _read_opened(sock: socket.socket) -> int:
    """Return the incarnation of who has accepted."""
    if _read(sock, 1) != _OPEN:
        raise RemoteProtocolError("the other side did not accept the connection")
    return _read_incarnation(sock)


def _read_incarnation(sock: socket.socket) -> int:
    incarnation: int = _INCARNATION.unpack(_read(sock, _INCARNATION.size))[0]
    return incarnation


def _describe(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
