"""A client's way to a beacon: connected, and each proved to the other.

Layer: remote.
"""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.deadline import Deadline
from klyng_mp.errors import AuthenticationError, BeaconError, DeadlineError, RemoteProtocolError
from klyng_mp.remote.control import ControlLink
from klyng_mp.remote.login import ClientLogin
from klyng_mp.remote.network import keep_alive
from klyng_mp.remote.records import HEARTBEAT_SECONDS
from klyng_mp.remote.security import ClientKey
from klyng_mp.remote.tls import check_channel, client_context, fingerprint_of
from klyng_mp.remote.trust import KnownBeacons

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from klyng_mp.remote.home import Home
    from klyng_mp.remote.hosts import Host

__all__ = ["Probe", "connect", "log_in", "probe", "wait_for_all"]

CONNECT_SECONDS = 4.0  # then a sentence is due; for the handshake as well
LOGIN_SECONDS = 15.0  # a beacon under attack is slow


class Probe(NamedTuple):
    """What a look at a beacon has found: seconds there and back, and bytes in a second."""

    round_trip: float
    bandwidth: float


def connect(host: Host, home: Home, *, code: str | None = None, timeout: float | None = None) -> ControlLink:
    """Connect to a beacon and log in; a beacon whose password we know becomes a known one.

    Args:
        host: which.
        home: has the client's key and the known beacons.
        code: a pairing code, instead of password or key.
        timeout: seconds to connect, for the handshake, and to log in, each; by default 4, 4 and 15.

    Returns:
        The channel, in the state "open" ("paired" with a code).

    Raises:
        AuthenticationError: it is not the beacon that it should be, or does not know us.
        BeaconError: nobody is there, or not a beacon; the message says what to do. Nothing is left open.
    """
    seconds = CONNECT_SECONDS if timeout is None else timeout
    tls = _shake_hands(host, _reach(host, seconds), Deadline(seconds))
    try:
        return _enter(host, home, tls, code, Deadline(LOGIN_SECONDS if timeout is None else timeout))
    except DeadlineError:
        tls.close()
        raise BeaconError(f"{_who(host)} does not answer: it may be frozen, or busy; try again", host.key) from None
    except RemoteProtocolError as error:
        tls.close()
        raise BeaconError(
            f"{_who(host)} broke off: {error}; see its log (klyng-mp beacon status, there)", host.key
        ) from error
    except BaseException:
        tls.close()
        raise


def _who(host: Host) -> str:
    return f"the beacon at {host.key}"


def _reach(host: Host, seconds: float) -> socket.socket:
    try:
        sock = socket.create_connection((host.address, host.port), seconds)
    except socket.gaierror as error:
        raise BeaconError(f"there is no host {host.address}: {error.strerror}; check its name", host.key) from None
    except ConnectionRefusedError:
        raise BeaconError(
            f"nobody listens at {host.address} port {host.port}: start a beacon there (klyng-mp beacon up, and --host "
            f"for other addresses than loopback), or correct the port",
            host.key,
        ) from None
    except TimeoutError:
        raise BeaconError(
            f"{host.address} port {host.port} did not answer within {seconds:g} s: is it on, and its port open?",
            host.key,
        ) from None
    except OSError as error:
        raise BeaconError(
            f"{host.address} port {host.port} cannot be reached: {error.strerror or error}; check address and network",
            host.key,
        ) from None
    keep_alive(sock)
    return sock


def _shake_hands(host: Host, sock: socket.socket, deadline: Deadline) -> ssl.SSLSocket:
    where = f"what answers at {host.address} port {host.port}"
    try:
        sock.settimeout(deadline.left())
        return client_context().wrap_socket(sock, suppress_ragged_eofs=False)
    except TimeoutError:
        raise BeaconError(
            f"{where} says nothing: it is no beacon, or one that is frozen; correct the port, or look at it there",
            host.key,
        ) from None
    except (ConnectionError, ssl.SSLEOFError):
        raise BeaconError(
            f"{where} ended the connection at once: a beacon does so to strangers when there are too many (then try "
            f"again in a minute), or it is no beacon (correct the port)",
            host.key,
        ) from None
    except OSError as error:
        raise BeaconError(f"{where} is no beacon ({_reason_of(error)}): correct the port", host.key) from None
    finally:
        sock.close()  # nothing, where it was wrapped


def _enter(host: Host, home: Home, tls: ssl.SSLSocket, code: str | None, deadline: Deadline) -> ControlLink:
    check_channel(tls)
    login = log_in(tls, host, home, code, deadline)
    link = ControlLink(tls, login.conversation)
    if host.password is not None or code is not None:
        KnownBeacons(home).add(host.name, fingerprint_of(tls.getpeercert(True)))
    return link


def log_in(tls: ssl.SSLSocket, host: Host, home: Home, code: str | None, deadline: Deadline) -> ClientLogin:
    """Prove this client to a beacon, and the beacon to it; for the errors see `connect`."""
    fingerprint = fingerprint_of(tls.getpeercert(True))
    pinned = host.fingerprint or KnownBeacons(home).lookup(host.name)
    password = None if host.password is None or code is not None else host.password.reveal()
    key = None
    if password is None and code is None:
        try:
            key = ClientKey.load(home.client_key)
        except FileNotFoundError:
            raise AuthenticationError(
                f"no password is given for {host.key}, and there is no key: write passwd or passwd_file in the "
                f"machines file, or pair with it once (klyng-mp beacon pair, there)",
                host.key,
            ) from None
    login = ClientLogin(fingerprint, password=password, code=code, key=key, pinned=pinned, host=host.key)
    with _logging_in(tls, deadline):
        tls.sendall(login.start())
    while not login.done:
        with _logging_in(tls, deadline):
            data = tls.recv(65536)
        if not data:
            login.conversation.feed_eof()
            raise RemoteProtocolError("the connection was closed in the middle of the login")
        if answer := login.feed(data):
            with _logging_in(tls, deadline):
                tls.sendall(answer)
    return login


@contextmanager
def _logging_in(tls: ssl.SSLSocket, deadline: Deadline) -> Iterator[None]:
    tls.settimeout(deadline.left() or 0.001)  # 0 would be: without waiting
    try:
        yield
    except TimeoutError:
        raise deadline.error("logging in") from None
    except OSError as error:
        raise RemoteProtocolError(f"the connection was cut off ({_reason_of(error)})") from None


def _reason_of(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__


def probe(link: ControlLink, *, size_bytes: int = 1 << 20, rounds: int = 5, timeout: float = 5.0) -> Probe:
    """Measure an open channel: the best round trip of a few, and the bandwidth there and back of a large frame.

    Raises:
        KlyngError, OSError: the beacon did not answer, or is gone.
    """
    deadline = Deadline(timeout)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        link.send_now(deadline, "probe", b"x")
        link.receive_now(deadline, "probe_reply")
        best = min(best, time.perf_counter() - began)
    began = time.perf_counter()
    link.send_now(deadline, "probe", bytes(size_bytes))
    link.receive_now(deadline, "probe_reply")
    took = max(1e-9, time.perf_counter() - began - best)
    return Probe(best, 2 * size_bytes / took)


def wait_for_all(opened: Sequence[Future[ControlLink]]) -> list[Exception]:
    """Wait until every channel is open, or cannot be; return the errors.

    A session ends of which nothing is heard: those that wait for slower ones are told that this side lives.
    """
    while (waited := wait(opened, HEARTBEAT_SECONDS)).not_done:
        for future in waited.done:
            with suppress(OSError):  # it is gone, which is met when it is used
                if future.exception() is None:
                    future.result().send("ping")
    return [error for future in opened if isinstance(error := future.exception(), Exception)]
