"""The beacon: one process with one port that lets connections in, and a session for each that wants to log in.

Layer: remote. One thread; it reads no more of a connection than its first byte, or a preface between ranks, and
waits for nobody. All that costs something, or may be attacked, is done in sessions.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BeaconError
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.surroundings import show_in_ps
from klyng_mp.remote.admission import Admission, AdmissionLimits
from klyng_mp.remote.confinement import keep_to_itself
from klyng_mp.remote.groups import JobGroup
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

_TLS = b"\x16"  # the first byte of a handshake
_LOG = logging.getLogger("klyng_mp.beacon")
_MAX_STRANGERS = 256  # that have not said what they want: all ranks of a host may come at once
_SPARE_FDS = 16  # that no connection gets: for sessions on their way, and files
_SESSION_FDS = 2  # that a beacon has of each: its channel, and a pidfd
_REST_SECONDS = 0.1  # after a connection that could not be taken
_WARNING_SECONDS = 60.0  # between warnings that nobody has to read twice
_PREFACE_SECONDS = 5.0  # for the bytes of a preface to come


class _Stranger(NamedTuple):
    """A connection that has not said what it wants: where it is from, until when it may, what it has said."""

    address: str
    timer: Timer
    said: bytearray


class Beacon:
    """A beacon that listens from now on; SIGTERM, SIGINT and SIGHUP are kept for `serve` to act on.

    Args:
        home: its files; the identity and the password are made if they are not there.
        options: its limits.
        password: what it keeps of its password.
        reload: returns that anew, when SIGHUP says that it has changed; it may do more.

    Raises:
        BeaconError: it cannot listen there; nothing is left open, and signals do what they did.

    Threads: the main one.

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
        self._room_fds = _count_room()
        most = max(1, min(options.max_unauthenticated, self._room_fds // (2 * _SESSION_FDS)))
        limits = AdmissionLimits(unauthenticated=most, grace_seconds=options.grace_seconds)
        self._admission = Admission(limits, time.monotonic())
        self._sessions = Sessions(self._loop, self._admission, home, options, identity)
        self._sessions.password = password
        self._strangers: dict[socket.socket, _Stranger] = {}  # oldest first
        self._socket = _listen(options)
        self.address, self.port = self._socket.getsockname()[:2]
        self._next_warning = 0.0
        self._listen()
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._catch_signals()

    def _catch_signals(self) -> None:
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, lambda _signum, _frame: None)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._loop.register(self._wakeup.fileno(), select.EPOLLIN, lambda _events: self._signalled())

    def serve(self) -> None:
        """Serve until SIGTERM or SIGINT; then all jobs are ended, and their processes with them."""
        become_subreaper()
        show_in_ps("klyng beacon")
        keep_to_itself()
        self._patrol()
        gc.collect()
        gc.freeze()  # what is here already is not touched, and so not copied, by collections in sessions
        _LOG.info("%s", _say_how_jobs_end())
        _LOG.info("listening at %s port %d as %s", self.address, self.port, self.fingerprint)
        try:
            self._loop.run()
        finally:
            self._socket.close()
            self._sessions.end()
            sweep()
            _LOG.info("ended")
            signal.set_wakeup_fd(-1)  # another signal is for nobody

    def _signalled(self) -> None:
        signals = set(self._wakeup.recv(4096))
        if signals - {signal.SIGHUP, signal.SIGCHLD}:
            self._loop.stop()
        elif signal.SIGHUP in signals:
            try:
                self._sessions.password = self._reload()
            except BeaconError as error:
                _LOG.error("the old password stays: %s", error)
            else:
                _LOG.info("the password was read anew, and this log opened anew")

    # -- connections

    def _accept(self) -> None:
        try:
            sock, where = self._socket.accept()
        except (BlockingIOError, ConnectionError):  # it has left
            return
        except OSError as error:  # this machine has no descriptors or no memory
            self._warn("connections have to wait: %s", error)
            self._rest()
            return
        if not self._make_room():
            sock.close()
            self._rest()
            return
        sock.setblocking(False)
        timer = self._loop.call_later(_PREFACE_SECONDS, lambda: self._forget(sock, "it said nothing"))
        self._strangers[sock] = _Stranger(where[0], timer, bytearray())
        self._loop.register(sock.fileno(), select.EPOLLIN, lambda _events: self._look(sock))

    def _make_room(self) -> bool:
        """Let the stranger go who came first, if there are too many; return whether one more can be borne."""
        used = len(self._strangers) + _SESSION_FDS * len(self._sessions)
        if used >= self._room_fds or len(self._strangers) >= _MAX_STRANGERS:
            if not self._strangers:
                return False
            oldest = next(iter(self._strangers))
            self._release(oldest)
            oldest.close()
        return True

    def _listen(self) -> None:
        self._loop.register(self._socket.fileno(), select.EPOLLIN, lambda _events: self._accept())

    def _rest(self) -> None:
        """Take no connections for a moment: those that cannot be taken would be told of without a pause."""
        self._loop.unregister(self._socket.fileno())
        self._loop.call_later(_REST_SECONDS, self._listen)

    def _warn(self, form: str, error: OSError) -> None:
        """Log what may come ten times a second, once a minute."""
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _WARNING_SECONDS
            _LOG.warning(form, error)

    def _look(self, sock: socket.socket) -> None:
        """Find out what a connection wants, by its first byte, which stays where it is; a preface is taken."""
        said = self._strangers[sock].said
        try:
            if not said and sock.recv(1, socket.MSG_PEEK) == _TLS:
                self._admit(sock, self._release(sock))
                return
            more = sock.recv(PREFACE_SIZE - len(said))
        except BlockingIOError:
            return
        except OSError as error:
            self._forget(sock, str(error))
            return
        said += more
        if not more or said[: len(MAGIC)] != MAGIC[: len(said)]:
            self._forget(sock, "it left" if not more else f"it began with {bytes(said[:8])!r}")
        elif len(said) == PREFACE_SIZE:
            self._release(sock)
            self._pass_on(sock, bytes(said))

    def _release(self, sock: socket.socket) -> str:
        """Look no more at what a connection wants; return the address that it comes from."""
        stranger = self._strangers.pop(sock)
        stranger.timer.cancel()
        self._loop.unregister(sock.fileno())
        return stranger.address

    def _admit(self, sock: socket.socket, address: str) -> None:
        """Start a session for a connection that wants to log in, if its address may."""
        decision = self._admission.arrived(address, time.monotonic())
        for ticket in decision.dropped:
            self._sessions.drop(ticket, decision.reason)
        if decision.ticket is None:
            _LOG.info("%s was turned away: %s", address, decision.reason)
            sock.close()
        else:
            self._sessions.start(sock, decision.ticket, address)

    def _forget(self, sock: socket.socket, why: str) -> None:
        self._admission.strange(self._release(sock), time.monotonic())
        _LOG.debug("a connection was closed: %s", why)
        sock.close()

    def _pass_on(self, sock: socket.socket, preface: bytes) -> None:
        """Give a connection between ranks to the session of its job, which looks whether it is one.

        Nobody is blamed for one of a job that is not here: it may have ended just now. Nor is anybody trusted for it.
        """
        with sock:
            try:
                taken = self._sessions.pass_on(read_preface(preface).job_id, preface, sock.fileno())
            except OSError as error:  # it would have to wait, and there are no descriptors for that
                _LOG.warning("a connection between ranks was lost: %s", error)
                return
            if not taken:
                _LOG.info("a connection for a job that is not here was closed")

    def _patrol(self) -> None:
        """Drop who takes too long to log in, and sessions that are frozen."""
        for ticket in self._admission.overdue(time.monotonic()):
            self._sessions.drop(ticket, "no login in time")
        self._sessions.look_after()
        self._loop.call_later(1.0, self._patrol)


def _say_how_jobs_end() -> str:
    """Return whether jobs are going to have control groups, as is found out by making one."""
    group = JobGroup.make(f"klyng-{os.getpid()}")
    if group is None:
        return "jobs have no control groups here: what they have started is looked for when they end"
    group.end()
    return "each job has a control group"


def _count_room() -> int:
    """Return how many descriptors connections and sessions may have in all."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - len(os.listdir("/proc/self/fd")) - _SPARE_FDS


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
