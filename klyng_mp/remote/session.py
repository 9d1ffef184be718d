"""The beacon's process for one client: it finds out who is there, answers, and supervises the client's job.

Layer: remote; runs in a process that was forked for one connection, and ends with it.

The zygote of a job is executed afresh, so that no key or password of the beacon is in the memory of a rank. Nothing of
the client is looked at before it is authenticated but the frames of the login, and nothing is ever unpickled here.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from klyng_mp.errors import BeaconError, LocalProtocolError, RemoteProtocolError
from klyng_mp.launch.loop import Loop
from klyng_mp.remote.confinement import Confinement
from klyng_mp.remote.control import ControlLink
from klyng_mp.remote.deliveries import Refusal
from klyng_mp.remote.hosting import HostedJob
from klyng_mp.remote.login import BeaconLogin
from klyng_mp.remote.records import HEARTBEAT_SECONDS, SILENCE_SECONDS
from klyng_mp.remote.sweep import become_subreaper, sweep
from klyng_mp.remote.tls import check_channel
from klyng_mp.remote.trust import AuthorizedClients

if TYPE_CHECKING:
    import socket
    import ssl

    from klyng_mp.launch.channel import Channel
    from klyng_mp.remote.history import Verdict
    from klyng_mp.remote.home import Home
    from klyng_mp.remote.login import Client, Guard
    from klyng_mp.remote.options import BeaconOptions
    from klyng_mp.remote.protocol import Frame

__all__ = ["ANSWER_SECONDS", "SessionTools", "serve_session"]

ANSWER_SECONDS = 0.1  # when a guess is answered, whatever it cost to look at it
_FAREWELL_SECONDS = 2.0
_LATE_SECONDS = 2.0  # after the grace time is over, for the beacon to end a session; then the kernel does


class SessionTools(NamedTuple):
    """What a session is given by its beacon.

    Attributes:
        context: of the beacon's certificate.
        fingerprint: of it.
        guard: who may enter.
        options: limits.
        home: the beacon's files.
        channel: to the beacon.
        address: where the client comes from, for the log.
    """

    context: ssl.SSLContext
    fingerprint: str
    guard: Guard
    options: BeaconOptions
    home: Home
    channel: Channel
    address: str


def serve_session(sock: socket.socket, tools: SessionTools) -> NoReturn:
    """Serve one connection; ends the process."""
    become_subreaper()
    code = 0
    try:
        confinement = Confinement(tools.options.grace_seconds + _LATE_SECONDS)
        link, client = _admit(sock, tools)
        confinement.lift()
        _Session(link, client, tools).serve()
    except _RefusedError as error:
        tools.channel.send_now("failed", str(error))
    except (OSError, EOFError, RemoteProtocolError) as error:
        tools.channel.send_now("left", f"{type(error).__name__}: {error}")
    except BaseException as error:
        code = 1
        tools.channel.send_now("left", f"a fault of the session: {error!r}")
        raise
    finally:
        sweep()
        os._exit(code)


class _RefusedError(Exception):
    """The client has not proved itself."""


def _admit(sock: socket.socket, tools: SessionTools) -> tuple[ControlLink, Client]:
    """Take the handshake and the login; the beacon ends this process when the grace time is over."""
    sock.settimeout(tools.options.grace_seconds)
    tls = tools.context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
    check_channel(tls)
    login = BeaconLogin(tools.fingerprint, tools.guard)
    while not login.done and not login.failure:
        data = tls.recv(65536)
        came = time.monotonic()
        if not data:
            login.feed_eof()
            break
        answer = login.feed(data)
        if login.delayed:  # what a guess costs must not be seen in the time of the answer
            select.select([], [], [], max(0.0, came + ANSWER_SECONDS - time.monotonic()))
        if answer:
            tls.sendall(answer)
    if login.failure or login.client is None:
        tls.close()
        raise _RefusedError(login.failure or "no login")
    tools.channel.send_now("authenticated", login.client.method, login.client.name)
    return ControlLink(tls, login.conversation), login.client


class _Session:
    """A connection whose client is authenticated."""

    def __init__(self, link: ControlLink, client: Client, tools: SessionTools) -> None:
        self._link = link
        self._client = client
        self._tools = tools
        self._loop = Loop()
        self._heard = self._beaten = time.monotonic()
        self._job: HostedJob | None = None
        self._ended = False
        self._loop.register(link.fileno(), select.EPOLLIN, self._ready)
        self._loop.register(tools.channel.fileno(), select.EPOLLIN, lambda _events: self._hear_beacon())
        self._beat()

    def serve(self) -> None:
        """Serve until the client leaves, or is gone, or the beacon is."""
        self._loop.run()

    # -- the client

    def _ready(self, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._link.flush()
            for frame in self._link.receive():
                self._heard = time.monotonic()
                self._obey(frame)
        except (EOFError, OSError, RemoteProtocolError) as error:
            self._end(*(("left", "") if isinstance(error, EOFError) else ("lost", str(error))))
            return
        self._watch()

    def _watch(self) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if self._link.blocked else 0)
        if self._loop.watches(self._link.fileno()):
            self._loop.modify(self._link.fileno(), events)

    def send(self, kind: str, data: bytes = b"", /, **fields: Any) -> None:
        """Send a frame to the client; one that cannot be reached is gone."""
        try:
            self._link.send(kind, data, **fields)
        except (OSError, LocalProtocolError) as error:
            self._end("lost", str(error))
        else:
            self._watch()

    def _obey(self, frame: Frame) -> None:
        kind = frame.kind
        if kind == "ping":
            self.send("pong")
        elif kind == "probe":
            self.send("probe_reply", frame.data)
        elif kind == "status":
            self._tools.channel.send_now("status")
        elif kind == "enrol":
            self._enrol(frame.fields["key"], frame.fields["name"])
        elif kind == "job":
            self._tools.channel.send_now("job", frame.fields["id"], frame.fields["ranks"])
            self._job = HostedJob(self, self._loop, self._tools, frame.fields["id"], frame.fields["ranks"])
        elif kind == "record" and self._job is not None:
            try:
                self._job.obey(frame.fields.pop("name"), frame.fields, frame.data)
            except Refusal as refusal:
                self.refuse(refusal)
        elif kind == "bye":
            self._end("left")

    def refuse(self, refusal: Refusal) -> None:
        """Say why not, and end the session once that has left."""
        if self._job is not None:
            self._judge(self._job.course.refused(str(refusal), refusal.limit))
        self.send("refused", reason=refusal.reason, sentence=str(refusal)[:600], limit=refusal.limit)
        self._loop.call_later(_FAREWELL_SECONDS, lambda: self._end("lost", "the client did not leave"))

    def note(self, trouble: str, limit: str | None) -> None:
        """Tell the beacon what a rank has done."""
        with suppress(OSError):  # the beacon's end is met when it is heard
            self._tools.channel.send_now("trouble", trouble, limit)

    def _judge(self, verdict: Verdict) -> None:
        """Tell the beacon how the job has ended; what is told first holds."""
        with suppress(OSError):
            self._tools.channel.send_now("ended", *verdict)

    def _enrol(self, key: bytes, name: str) -> None:
        try:
            client = AuthorizedClients(self._tools.home).add(key, name)
        except BeaconError as error:
            self.send("refused", reason="failed", sentence=str(error)[:600])
            return
        self._tools.channel.send_now("note", f"the key of {client.name} lets in from now on")
        self.send("enrolled")

    def _beat(self) -> None:
        """Let the client know that this side lives, and end where it does not."""
        now = time.monotonic()
        if now - self._beaten > 2 * HEARTBEAT_SECONDS:  # this side was away, at unpacking or frozen: it could not hear
            self._heard = now
        self._beaten = now
        silence = now - self._heard
        if silence > SILENCE_SECONDS:
            self._end("lost", f"nothing was heard of the client for {silence:.0f} s")
            return
        if self._link.conversation.state in ("open", "job"):
            self.send("ping")
        self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    # -- the beacon

    def _hear_beacon(self) -> None:
        try:
            while (received := self._tools.channel.receive()) is not None:
                self._obey_beacon(*received)
        except EOFError:
            self._end("stopped")

    def _obey_beacon(self, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        if kind == "beat":
            self._tools.channel.send("beat")
        elif kind == "status":
            self.send("status_reply", **rest[0])
        elif kind == "wire" and self._job is not None:
            self._job.hand_over(rest[0], fds.pop())
        elif kind == "granted" and self._job is not None:
            try:
                self._job.grant()
            except Refusal as refusal:
                self.refuse(refusal)
        elif kind == "denied":
            reason, sentence, limit = rest
            self.refuse(Refusal(reason, sentence, limit))
        for fd in fds:
            os.close(fd)

    def _end(self, outcome: str, reason: str = "") -> None:
        if self._ended:
            return
        self._ended = True
        if self._job is not None:
            self._judge(self._job.course.over(outcome, reason))
        self._loop.unregister(self._link.fileno())
        self._link.close(goodbye=True)
        if self._job is not None:
            self._job.end()
        self._loop.stop()
