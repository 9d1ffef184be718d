"""The sessions of a beacon: forked, heard, and buried; and the jobs that they have, within its limits.

Layer: remote; part of a beacon, whose one thread calls all of it.
"""

from __future__ import annotations

import glob
import logging
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.deadline import Deadline
from klyng_mp.errors import describe_exitcode
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.surroundings import close_all_but, show_in_ps
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.history import JobHistory, Origin, Verdict
from klyng_mp.remote.hosting import folder_prefix
from klyng_mp.remote.login import Guard
from klyng_mp.remote.pairing import Pairing
from klyng_mp.remote.protocol import KINDS
from klyng_mp.remote.schema import fit
from klyng_mp.remote.security import Verifier
from klyng_mp.remote.session import SessionTools, serve_session
from klyng_mp.remote.sweep import sweep
from klyng_mp.remote.tls import beacon_context
from klyng_mp.remote.trust import AuthorizedClients
from klyng_mp.remote.versions import describe_here

if TYPE_CHECKING:
    from klyng_mp.launch.loop import Loop
    from klyng_mp.remote.admission import Admission
    from klyng_mp.remote.history import JobEntry
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.options import BeaconOptions
    from klyng_mp.remote.security import BeaconIdentity

__all__ = ["Sessions"]

_LOG = logging.getLogger("klyng_mp.beacon")
_END_SECONDS = 5.0
_FROZEN_SECONDS = 30.0  # a session may be at unpacking a large program


class _Session:
    """A session process, as its beacon sees it."""

    __slots__ = ("address", "channel", "client", "doom", "entry", "heard", "job", "pid", "pidfd", "ticket")

    def __init__(self, pid: int, channel: Channel, ticket: int, address: str) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel
        self.ticket: int | None = ticket  # while it has not logged in
        self.address = address
        self.client = Origin("", "", address)
        self.entry: JobEntry | None = None  # of the job that it has asked for
        self.job: bytes | None = None  # that it was granted
        self.doom = ""  # why the beacon has killed it
        self.heard = time.monotonic()

    @property
    def ranks(self) -> int:
        """How many ranks it may have."""
        return 0 if self.entry is None or self.job is None else self.entry.ranks


class Sessions:
    """All sessions of one beacon.

    Args:
        loop: the beacon's.
        admission: is told who has logged in, and who has not.
        home: the beacon's files.
        options: its limits.
        identity: its certificate.

    Attributes:
        password: what is kept of the beacon's password.
    """

    password: Verifier

    def __init__(
        self, loop: Loop, admission: Admission, home: Home, options: BeaconOptions, identity: BeaconIdentity
    ) -> None:
        self._loop = loop
        self._admission = admission
        self._home = home
        self._options = options
        self._fingerprint = identity.fingerprint
        self._context = beacon_context(identity.cert_pem, identity.key_pem)
        self._nobody = Verifier.of_nobody()
        self._pairing = Pairing(home)
        self._limit_seconds = options.max_job_seconds
        self._all: dict[int, _Session] = {}
        self._history = JobHistory()

    def __len__(self) -> int:
        return len(self._all)

    def start(self, sock: socket.socket, ticket: int, address: str) -> None:
        """Fork a session for a connection, which is its own from now on; where that cannot be, it is closed."""
        with sock:
            try:
                session = self._fork(sock, ticket, address)
            except OSError as error:
                _LOG.warning("%s could not be served: %s", address, error)
                self._admission.left(ticket, time.monotonic())
                return
        self._all[session.pid] = session
        self._loop.register(session.channel.fileno(), select.EPOLLIN, partial(self._hear, session))
        self._loop.register(session.pidfd, select.EPOLLIN, lambda _events: self._bury(session))

    def _fork(self, sock: socket.socket, ticket: int, address: str) -> _Session:
        """Return a new session; where there are no descriptors, processes or memory for it, nothing is left of it."""
        ours, theirs = Channel.pair()
        pid = 0
        try:
            with theirs:
                pid = os.fork()
                if pid == 0:
                    self._be_session(sock, theirs, address)
            return _Session(pid, ours, ticket, address)
        except OSError:
            ours.close()
            if pid:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise

    def _be_session(self, sock: socket.socket, theirs: socket.socket, address: str) -> NoReturn:
        """In the fork: be a session, and nothing else of the beacon's."""
        try:
            fd, channel = _leave_beacon(sock, theirs)
            tools = SessionTools(
                self._context,
                self._fingerprint,
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
            offer = self._pairing.current()
            if offer is None:
                return None
            offered.append(offer.verifier)
            return Verifier(offer.verifier[:16], offer.verifier[16:])

        return Guard(
            password=lambda: self.password,
            code=code,
            guess=lambda: bool(offered) and self._pairing.guess(offered[-1]),
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
            method, owner = rest
            session.client = Origin(owner, method, session.address)
            if session.ticket is not None:
                self._admission.authenticated(session.ticket, now)
                session.ticket = None
            _LOG.info("%s logged in by %s%s", session.address, method, f" ({owner})" * bool(owner))
        elif kind == "failed":
            if session.ticket is not None:
                self._admission.failed(session.ticket, now)
                session.ticket = None
            _LOG.warning("%s was not let in: %s", session.address, rest[0])
        elif kind == "job":
            self._take_job(session, *rest)
        elif kind == "status":
            self._tell_status(session)
        elif kind in {"note", "left"}:
            _LOG.info("%s: %s", session.address, rest[0])
        elif kind == "trouble" and session.entry is not None:
            trouble, limit = rest
            if session.entry.note(trouble, limit):
                _LOG.info("%s: %s%s", session.entry, session.entry.trouble, f" ({limit})" if limit else "")
        elif kind == "ended" and session.entry is not None:
            self._conclude(session.entry, Verdict(*rest))

    def _tell_status(self, session: _Session) -> None:
        try:
            session.channel.send("status", self._status())
        except OSError as error:  # there are no descriptors: who has asked waits in vain
            _LOG.warning("%s was not told the status: %s", session.address, error)

    def _conclude(self, entry: JobEntry, verdict: Verdict) -> None:
        line = self._history.end(entry, verdict, time.monotonic())
        if line is not None:
            _LOG.info("%s", line)

    def _take_job(self, session: _Session, job: bytes, ranks: int) -> None:
        session.entry = self._history.begin(job, session.client, ranks, time.monotonic())
        denial = self._deny(job, ranks)
        if denial is not None:
            reason, sentence, limit = denial
            self._conclude(session.entry, Verdict("refused", sentence, limit))
            session.channel.send("denied", reason, sentence, limit)
            return
        session.job = job
        session.channel.send("granted")
        _LOG.info("%s began: %d ranks", session.entry, ranks)
        if self._limit_seconds is not None:
            self._loop.call_later(self._limit_seconds, lambda: self._end_job(session, job))

    def _deny(self, job: bytes, ranks: int) -> tuple[str, str, str | None] | None:
        """Return why a job cannot be taken: a word of `protocol.REASONS`, a sentence, and the limit that says so."""
        options, busy = self._options, [one for one in self._all.values() if one.job is not None]
        running = sum(one.ranks for one in busy)
        if len(busy) >= options.max_jobs:
            sentence = (
                f"{len(busy)} jobs run there already, which is its limit: wait, or raise max_jobs in its beacon.toml"
            )
            return "busy", sentence, "max_jobs"
        if running + ranks > options.max_ranks:
            sentence = (
                f"{ranks} ranks are asked for, {running} run there already, and it takes {options.max_ranks}: ask for "
                f"fewer, wait, or raise max_ranks in its beacon.toml"
            )
            return "busy" if running else "limit", sentence, "max_ranks"
        if any(one.job == job for one in busy):
            return "failed", "a job of this name runs there already", None
        return None

    def _end_job(self, session: _Session, job: bytes) -> None:
        if self._all.get(session.pid) is session and session.job == job:
            sentence = f"the job has lasted {self._limit_seconds:g} s: max_job_seconds in its beacon.toml"
            session.channel.send("denied", "limit", sentence, "max_job_seconds")

    def _status(self) -> dict[str, Any]:
        now = time.monotonic()
        said = {
            "versions": {name: text for name, text in describe_here([]).items() if name != "packages"},
            "cpus": usable_cpus(),
            "ranks": sum(one.ranks for one in self._all.values()),
            "max_ranks": self._options.max_ranks,
            "load_percent": int(os.getloadavg()[0] * 100),
            "jobs": self._history.running(now),
            "ended": self._history.ended(now),
        }
        return dict(fit(KINDS["status_reply"].fields, said))

    def _bury(self, session: _Session) -> None:
        self._hear(session, select.EPOLLIN)  # its last words
        self._loop.unregister(session.pidfd)
        self._loop.unregister(session.channel.fileno())
        del self._all[session.pid]
        if session.ticket is not None:
            self._admission.left(session.ticket, time.monotonic())
        _, status = os.waitpid(session.pid, 0)
        if session.entry is not None:
            end = describe_exitcode(os.waitstatus_to_exitcode(status))
            self._conclude(session.entry, Verdict("killed", session.doom or f"its session {end}"))
        os.close(session.pidfd)
        session.channel.close()
        if orphans := sweep(frozenset(self._all)):  # of a session that was killed
            _LOG.warning("%d processes that a session left were killed", orphans)
        for folder in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), folder_prefix(session.pid) + "*")):
            shutil.rmtree(folder, ignore_errors=True)

    # -- what the beacon says

    def pass_on(self, job: bytes, preface: bytes, fd: int) -> bool:
        """Give a connection between ranks to the session of its job; tell whether there is one that takes it."""
        session = next((one for one in self._all.values() if one.job == job), None)
        if session is None or session.channel.backlogged:
            return False
        session.channel.send("wire", preface, fds=[fd])
        return True

    def drop(self, ticket: int, why: str) -> None:
        """End a session that has not logged in."""
        for session in self._all.values():
            if session.ticket == ticket:
                session.ticket = None
                _LOG.info("%s was dropped: %s", session.address, why)
                signal.pidfd_send_signal(session.pidfd, signal.SIGKILL)

    def look_after(self) -> None:
        """Kill sessions that are frozen, and their jobs with them."""
        for session in self._all.values():
            if session.ticket is None and time.monotonic() - session.heard > _FROZEN_SECONDS:
                session.doom = f"it had not answered for {_FROZEN_SECONDS:.0f} s"
                _LOG.warning("the session of %s does not answer and is killed, with its job", session.address)
                signal.pidfd_send_signal(session.pidfd, signal.SIGKILL)
            session.channel.send("beat")

    def end(self) -> None:
        """Let all of them end, and their jobs; who was at logging in is dropped."""
        for session in self._all.values():
            if session.entry is not None:
                self._conclude(session.entry, Verdict("stopped"))
            session.channel.close()
            if session.ticket is not None:
                signal.pidfd_send_signal(session.pidfd, signal.SIGKILL)
        deadline = Deadline(_END_SECONDS)
        for session in self._all.values():  # they remove the files of their jobs
            poll = select.poll()
            poll.register(session.pidfd, select.POLLIN)
            poll.poll((deadline.left() or 0) * 1000)


def _leave_beacon(*kept: socket.socket) -> list[int]:
    """In the fork: be a process of its own, with copies of these sockets; return their numbers."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    os.setsid()
    copies = [os.dup(sock.fileno()) for sock in kept]
    close_all_but({0, 1, 2, *copies})
    show_in_ps("klyng session")
    return copies
