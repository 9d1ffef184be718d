"""The beacon: one process with one port that lets connections in, and a session for each that wants to log in.

Layer: remote. One thread; it reads no more of a connection than its first byte, or a preface between ranks, and
waits for nobody. All that costs something, or may be attacked, is done in sessions.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.errors import BeaconError
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.surroundings import close_all_but, show_in_ps
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.admission import Admission, AdmissionLimits
from klyng_mp.remote.login import Guard
from klyng_mp.remote.pairing import Pairing
from klyng_mp.remote.preface import MAGIC, PREFACE_SIZE, read_preface
from klyng_mp.remote.security import BeaconIdentity, Verifier
from klyng_mp.remote.session import SessionTools, serve_session
from klyng_mp.remote.sweep import become_subreaper, sweep
from klyng_mp.remote.tls import beacon_context
from klyng_mp.remote.trust import AuthorizedClients
from klyng_mp.remote.versions import describe_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.loop import Timer
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.options import BeaconOptions

__all__ = ["Beacon"]

_TLS = 0x16  # the first byte of a handshake
_LOG = logging.getLogger("klyng_mp.beacon")
_PREFACE_SECONDS = 5.0  # for the bytes of a preface to come
_FROZEN_SECONDS = 30.0  # a session may be at unpacking a large program


class _Session:
    """A session process, as its beacon sees it."""

    __slots__ = ("address", "channel", "heard", "job", "method", "owner", "pid", "pidfd", "ranks", "since", "ticket")

    def __init__(self, pid: int, channel: Channel, ticket: int, address: str) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.ticket: int | None = ticket  # while it has not logged in
        self.address = address
        self.method = ""
        self.owner = ""
        self.job: bytes | None = None
        self.ranks = 0
        self.since = 0.0
        self.heard = time.monotonic()


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
        self._home = home
        self._options = options
        self._password = password
        self._reload = reload
        self._nobody = Verifier.of_nobody()
        self._context = beacon_context(identity.cert_pem, identity.key_pem)
        self._pairing = Pairing(home)
        self._loop = Loop()
        limits = AdmissionLimits(unauthenticated=options.max_unauthenticated, grace_seconds=options.grace_seconds)
        self._admission = Admission(limits, time.monotonic())
        self._sessions: dict[int, _Session] = {}
        self._strangers: dict[socket.socket, tuple[int, Timer]] = {}
        self._limit_seconds = options.max_job_seconds
        self._stopping = False
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
            for session in list(self._sessions.values()):
                session.channel.close()  # it ends its job
            sweep()

    def _signalled(self, wakeup: socket.socket) -> None:
        signals = set(wakeup.recv(4096))
        if signals - {signal.SIGHUP, signal.SIGCHLD}:
            self._loop.stop()
        elif signal.SIGHUP in signals:
            try:
                self._password = self._reload()
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
            self._start_session(sock, ticket, address)
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
            session = next((one for one in self._sessions.values() if one.job == job), None)
            now = time.monotonic()
            if session is None or session.channel.backlogged:
                self._admission.failed(ticket, now)
                _LOG.info("a connection for a job that is not here was closed")
                return
            self._admission.authenticated(ticket, now)
            session.channel.send("wire", preface, fds=[sock.fileno()])

    # -- sessions

    def _start_session(self, sock: socket.socket, ticket: int, address: str) -> None:
        ours, theirs = Channel.pair()
        pid = os.fork()
        if pid == 0:
            self._be_session(sock, theirs, address)
        theirs.close()
        sock.close()
        session = _Session(pid, ours, ticket, address)
        self._sessions[pid] = session
        self._loop.register(ours.fileno(), select.EPOLLIN, partial(self._hear, session))
        self._loop.register(session.pidfd, select.EPOLLIN, lambda _events: self._bury(session))

    def _be_session(self, sock: socket.socket, theirs: socket.socket, address: str) -> NoReturn:
        """In the fork: be a session, and nothing else of the beacon's."""
        try:
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            os.setsid()
            fd, channel = os.dup(sock.fileno()), os.dup(theirs.fileno())
            close_all_but({0, 1, 2, fd, channel})
            show_in_ps("klyng session")
            tools = SessionTools(
                self._context,
                self.fingerprint,
                self._guard(),
                self._options,
                self._home,
                Channel(socket.socket(fileno=channel)),
                address,
            )
            serve_session(socket.socket(fileno=fd), tools)
        finally:
            os._exit(70)

    def _guard(self) -> Guard:
        offered: list[bytes] = []

        def code() -> Verifier | None:
            kept = self._pairing.guess()
            if kept is None:
                return None
            offered.append(kept)
            return Verifier(kept[:16], kept[16:])

        return Guard(
            password=lambda: self._password,
            code=code,
            redeem=lambda: bool(offered) and self._pairing.redeem(offered[-1]),
            authorized=AuthorizedClients(self._home).name_of,
            nobody=self._nobody,
        )

    def _hear(self, session: _Session, events: int) -> None:
        if events & select.EPOLLOUT:
            session.channel.flush()
        try:
            while (received := session.channel.receive()) is not None:
                self._obey(session, *received[0])
        except EOFError:
            self._loop.unregister(session.channel.fileno())

    def _obey(self, session: _Session, kind: str, *rest: Any) -> None:
        now = session.heard = time.monotonic()
        if kind == "authenticated":
            session.method, session.owner = rest
            if session.ticket is not None:
                self._admission.authenticated(session.ticket, now)
                session.ticket = None
            _LOG.info(
                "%s logged in by %s%s", session.address, session.method, f" ({session.owner})" * bool(session.owner)
            )
        elif kind == "failed":
            if session.ticket is not None:
                self._admission.failed(session.ticket, now)
                session.ticket = None
            _LOG.warning("%s was not let in: %s", session.address, rest[0])
        elif kind == "job":
            self._take_job(session, *rest)
        elif kind == "status":
            session.channel.send("status", self._status())
        elif kind in {"note", "left"}:
            _LOG.info("%s: %s", session.address, rest[0])
        elif kind == "ended" and session.job is not None:
            _LOG.info("job %s of %s ended: %s", session.job.hex()[:8], session.address, rest[0])

    def _take_job(self, session: _Session, job: bytes, ranks: int, owner: str) -> None:
        options, busy = self._options, [one for one in self._sessions.values() if one.job is not None]
        running = sum(one.ranks for one in busy)
        if len(busy) >= options.max_jobs:
            sentence = (
                f"{len(busy)} jobs run there already, which is its limit: wait, or raise max_jobs in its beacon.toml"
            )
            session.channel.send("denied", "busy", sentence, "max_jobs")
        elif running + ranks > options.max_ranks:
            sentence = (
                f"{ranks} ranks are asked for, {running} run there already, and it takes {options.max_ranks}: ask for "
                f"fewer, wait, or raise max_ranks in its beacon.toml"
            )
            session.channel.send("denied", "busy" if running else "limit", sentence, "max_ranks")
        elif any(one.job == job for one in busy):
            session.channel.send("denied", "failed", "a job of this name runs there already", None)
        else:
            session.job, session.ranks, session.since = job, ranks, time.time()
            session.channel.send("granted")
            _LOG.info("job %s of %s%s: %d ranks", job.hex()[:8], session.address, f" ({owner})" * bool(owner), ranks)
            if self._limit_seconds is not None:
                self._loop.call_later(self._limit_seconds, lambda: self._end_job(session, job))

    def _end_job(self, session: _Session, job: bytes) -> None:
        if self._sessions.get(session.pid) is session and session.job == job:
            sentence = f"the job has lasted {self._limit_seconds:g} s: max_job_seconds in its beacon.toml"
            session.channel.send("denied", "limit", sentence, "max_job_seconds")

    def _status(self) -> dict[str, Any]:
        busy = [one for one in self._sessions.values() if one.job is not None]
        now = time.time()
        return {
            "versions": {name: text for name, text in describe_here([]).items() if name != "packages"},
            "cpus": usable_cpus(),
            "ranks": sum(one.ranks for one in busy),
            "max_ranks": self._options.max_ranks,
            "load_percent": int(os.getloadavg()[0] * 100),
            "jobs": [
                {
                    "id": one.job,
                    "owner": one.owner or f"{one.method} from {one.address}",
                    "ranks": one.ranks,
                    "age_seconds": int(now - one.since),
                }
                for one in busy
            ],
        }

    def _bury(self, session: _Session) -> None:
        self._hear(session, select.EPOLLIN)  # its last words
        self._loop.unregister(session.pidfd)
        self._loop.unregister(session.channel.fileno())
        del self._sessions[session.pid]
        if session.ticket is not None:
            self._admission.left(session.ticket, time.monotonic())
        with suppress(ChildProcessError):
            os.waitpid(session.pid, 0)
        os.close(session.pidfd)
        session.channel.close()
        if orphans := sweep(frozenset(self._sessions)):  # of a session that was killed
            _LOG.warning("%d processes that a session left were killed", orphans)

    def _drop(self, ticket: int, why: str) -> None:
        """Close a connection that has not logged in."""
        for sock, (theirs, _) in list(self._strangers.items()):
            if theirs == ticket:
                self._release(sock)
                sock.close()
        for session in self._sessions.values():
            if session.ticket == ticket:
                session.ticket = None
                _LOG.info("%s was dropped: %s", session.address, why)
                signal.pidfd_send_signal(session.pidfd, signal.SIGKILL)

    def _patrol(self) -> None:
        """Drop who takes too long to log in, and sessions that are frozen."""
        now = time.monotonic()
        for ticket in self._admission.overdue(now):
            self._drop(ticket, f"no login within {self._options.grace_seconds:g} s")
        for session in self._sessions.values():
            if session.ticket is None and now - session.heard > _FROZEN_SECONDS:
                _LOG.warning("the session of %s does not answer and is killed, with its job", session.address)
                signal.pidfd_send_signal(session.pidfd, signal.SIGKILL)
            session.channel.send("beat")
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
