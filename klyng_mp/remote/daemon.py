"""The beacon: one process with one port that lets connections in, and a session for each that wants to log in.

Layer: remote. One thread; it reads no more of a connection than its first byte, or a preface between ranks, and
waits for nobody. All that costs something, or may be attacked, is done in sessions.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from klyng_mp.errors import BeaconError
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.surroundings import show_in_ps
from klyng_mp.remote.admission import Admission, AdmissionLimits
from klyng_mp.remote.preface import MAGIC, PREFACE_SIZE, read_preface
from klyng_mp.remote.sessions import Sessions
from klyng_mp.remote.sweep import become_subreaper, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Timer
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.options import BeaconOptions
    from klyng_mp.remote.security import BeaconIdentity, Verifier

__all__ = ["Beacon"]

_TLS = 0x16  # the first byte of a handshake
_LOG = logging.getLogger("klyng_mp.beacon")
_PREFACE_SECONDS = 5.0  # for the bytes of a preface to come


class Beacon:
    """A beacon that listens from now on.

    Args:
        home: its files; the identity and the password are made if they are not there.
        options: its limits.
        password: what it keeps of its password.
        reload: returns that anew, when SIGHUP says that it has changed.

    Raises:
        BeaconError: it cannot listen there; nothing is left open.

    Attributes:
        address, port: where it listens.
        fingerprint: of its certificate.
    """

    def __init__(
        self,
        home: Home,
        options: BeaconOptions,
        identity: BeaconIdentity,
        password: Verifier,
        reload: Callable[[], Verifier],
    ) -> None:
        self.fingerprint = identity.fingerprint
        self._reload = reload
        self._loop = Loop()
        limits = AdmissionLimits(unauthenticated=options.max_unauthenticated, grace_seconds=options.grace_seconds)
        self._admission = Admission(limits, time.monotonic())
        self._sessions = Sessions(self._loop, self._admission, home, options, identity)
        self._sessions.password = password
        self._strangers: dict[socket.socket, tuple[int, Timer]] = {}
        self._socket = _listen(options)
        self.address, self.port = self._socket.getsockname()[:2]
        self._loop.register(self._socket.fileno(), select.EPOLLIN, lambda _events: self._accept())

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT; then all jobs are ended, and their processes with them."""
        become_subreaper()
        show_in_ps("klyng beacon")
        wakeup, wakeup_end = socket.socketpair()
        for end in (wakeup, wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup_end.fileno(), warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda _signum, _frame: None)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.register(wakeup.fileno(), select.EPOLLIN, lambda _events: self._signalled(wakeup))
        self._patrol()
        _LOG.info("listening at %s port %d as %s", self.address, self.port, self.fingerprint)
        try:
            self._loop.run()
        finally:
            _LOG.info("ended")
            self._socket.close()
            self._sessions.end()
            sweep()

    def _signalled(self, wakeup: socket.socket) -> None:
        signals = set(wakeup.recv(4096))
        if signals - {signal.SIGHUP, signal.SIGCHLD}:
            self._loop.stop()
        elif signal.SIGHUP in signals:
            try:
                self._sessions.password = self._reload()
            except BeaconError as error:
                _LOG.error("the old password stays: %s", error)
            else:
                _LOG.info("the password was read anew")

    # -- connections

    def _accept(self) -> None:
        try:
            sock, where = self._socket.accept()
        except OSError as error:  # it has left, or there are no descriptors
            _LOG.warning("a connection was lost before it was taken: %s", error)
            return
        now = time.monotonic()
        decision = self._admission.arrived(where[0], now)
        for ticket in decision.dropped:
            self._drop(ticket, decision.reason)
        if decision.ticket is None:
            _LOG.info("%s was turned away: %s", where[0], decision.reason)
            sock.close()
            return
        sock.setblocking(False)
        ticket = decision.ticket
        timer = self._loop.call_later(_PREFACE_SECONDS, lambda: self._forget(sock, "it said nothing"))
        self._strangers[sock] = ticket, timer
        self._loop.register(sock.fileno(), select.EPOLLIN, lambda _events: self._look(sock, where[0]))

    def _look(self, sock: socket.socket, address: str) -> None:
        """Find out what a connection wants, by its first bytes, which stay where they are."""
        try:
            first = sock.recv(PREFACE_SIZE, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            self._forget(sock, str(error))
            return
        if first[:1] == bytes([_TLS]):
            ticket = self._release(sock)
            self._sessions.start(sock, ticket, address)
        elif not first or first[: len(MAGIC)] != MAGIC[: len(first)]:
            self._forget(sock, "it left" if not first else f"it began with {first[:8]!r}")
        elif len(first) == PREFACE_SIZE:
            ticket = self._release(sock)
            self._pass_on(sock, ticket)

    def _release(self, sock: socket.socket) -> int:
        ticket, timer = self._strangers.pop(sock)
        timer.cancel()
        self._loop.unregister(sock.fileno())
        return ticket

    def _forget(self, sock: socket.socket, why: str) -> None:
        ticket = self._release(sock)
        self._admission.left(ticket, time.monotonic())
        _LOG.debug("a connection was closed: %s", why)
        sock.close()

    def _pass_on(self, sock: socket.socket, ticket: int) -> None:
        """Give a connection between ranks to the session of its job."""
        with sock:
            preface = sock.recv(PREFACE_SIZE)
            job = read_preface(preface).job_id
            if self._sessions.pass_on(job, preface, sock.fileno()):
                self._admission.authenticated(ticket, time.monotonic())
            else:
                self._admission.failed(ticket, time.monotonic())
                _LOG.info("a connection for a job that is not here was closed")

    def _drop(self, ticket: int, why: str) -> None:
        """Close a connection that has not logged in."""
        for sock, (theirs, _) in list(self._strangers.items()):
            if theirs == ticket:
                self._release(sock)
                sock.close()
        self._sessions.drop(ticket, why)

    def _patrol(self) -> None:
        """Drop who takes too long to log in, and sessions that are frozen."""
        for ticket in self._admission.overdue(time.monotonic()):
            self._drop(ticket, "no login in time")
        self._sessions.look_after()
        self._loop.call_later(1.0, self._patrol)


def _listen(options: BeaconOptions) -> socket.socket:
    try:
        found = socket.getaddrinfo(options.host or None, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BeaconError(
            f"there is no address {options.host!r} to listen at: {error.strerror}; check --host"
        ) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise BeaconError(
            f"port {options.port} at {options.host or 'all addresses'} cannot be listened at: {error.strerror}; "
            f"choose another with --port, or end who has it"
        ) from None
    return sock
