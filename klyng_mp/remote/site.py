"""The hosts of a job, as its driver speaks to their supervisors: through a channel here, through a session elsewhere.

Layer: remote.

Both say the same tuples (`klyng_mp.launch.zygote` has them); what goes to another host becomes records on its way.
"""

from __future__ import annotations

import os
import select
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.deadline import Deadline
from klyng_mp.errors import (
    BeaconBusyError,
    BeaconError,
    BundleError,
    DeadlineError,
    RemoteProtocolError,
)
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.zygotes import zygote_for
from klyng_mp.remote.records import CHUNK_BYTES, pack_record, unpack_record
from klyng_mp.remote.versions import compare

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.launch.driver import Order
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.bundle import Bundle
    from klyng_mp.remote.control import ControlLink
    from klyng_mp.remote.hosts import Host
    from klyng_mp.remote.protocol import Frame
    from klyng_mp.remote.tls import Credentials

__all__ = ["JobPlan", "LocalSite", "RemoteSite", "Site"]

_BACKLOG_BYTES = 4 << 20  # that waits to leave before more of a content follows
PREPARE_SECONDS = 120.0  # for a bundle to be sent and unpacked
_ERRORS = {"busy": BeaconBusyError, "limit": BeaconBusyError, "bundle": BundleError, "version": BundleError}

Hear = "Callable[[Site, tuple[Any, ...], list[int]], None]"
Lose = "Callable[[Site, str], None]"


class JobPlan(NamedTuple):
    """What every host of a job is told.

    Attributes:
        job_id, join_key: the job's.
        said: the fields of the record "describe", but for what is a site's own.
        bundle: the program.
        needs: what hosts have to have for it.
        credentials: of all ranks; None where connections are not encrypted.
        incarnations: of who were the last at places before, by rank; empty for a job that begins.
    """

    job_id: bytes
    join_key: bytes
    said: dict[str, Any]
    bundle: Bundle
    needs: dict[str, Any]
    credentials: dict[int, Credentials] | None
    incarnations: Mapping[int, int]


class Site:
    """One host of a job.

    Args:
        host: which.
        share: its ranks.

    Attributes:
        living: whether processes of the job may be there.
    """

    far = True
    silent_for = 0.0  # seconds since it was heard last, where it is to be heard

    def __init__(self, host: Host, share: range) -> None:
        self.host = host
        self.share = share
        self.living = True

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.host.key

    def attend(self, endpoint: Endpoint, hear: Any, lose: Any) -> None:
        """Hear it from now on, whenever the endpoint's threads wait or attend.

        Args:
            endpoint: the driver's.
            hear: called with what it says.
            lose: called with the reason when it is gone.
        """
        raise NotImplementedError

    def tell(self, *record: Any) -> None:
        """Say something to its supervisor; one that is gone hears nothing."""
        raise NotImplementedError

    def start(self, serial: int, order: Order, task: int, contents: Sequence[tuple[bytes, int]] = ()) -> None:
        """Have a process started, which does what is in a file, and is given others, whose contents are there."""
        raise NotImplementedError

    def deliver(self, digest: bytes, fd: int) -> Generator[None, None, None]:  # noqa: ARG002 - for those that are elsewhere
        """Have the content of a file there, part by part; each is told when the next one is asked for."""
        yield from ()

    def forget(self, digest: bytes) -> None:
        """No process is given this content any more."""

    @property
    def has_room(self) -> bool:
        """Whether more may be told at once, since most of what was has left."""
        return True

    def close(self) -> None:
        """Part from it; what of the job is still there is ended by it."""
        raise NotImplementedError

    def abandon(self) -> None:
        """In a forked child: close its copies."""
        raise NotImplementedError


class LocalSite(Site):
    """This machine.

    Raises:
        LaunchError: its zygote could not be started.
    """

    far = False

    def __init__(self, host: Host, share: range, spec: RankSpec, preload: Sequence[str], *, label: bool) -> None:
        super().__init__(host, share)
        self._channel, theirs = Channel.pair()
        with theirs:
            stdin = 0 if sys.stdin is not None and sys.stdin is sys.__stdin__ else os.open(os.devnull, os.O_RDONLY)
            try:
                zygote_for(tuple(preload)).channel.send_now(
                    "job", "zygote", spec, label, False, False, fds=[theirs.fileno(), stdin]
                )
            finally:
                if stdin:
                    os.close(stdin)

    def attend(self, endpoint: Endpoint, hear: Any, lose: Any) -> None:
        """See `Site.attend`."""

        def ready(_events: int) -> None:
            try:
                while (received := self._channel.receive()) is not None:
                    hear(self, *received)
            except EOFError:
                endpoint.unwatch(self._channel.fileno())
                if self.living:
                    lose(self, "the process that supervises its ranks is gone (was it killed?)")

        self._unwatch = lambda: endpoint.unwatch(self._channel.fileno())
        endpoint.watch(self._channel.fileno(), ready)

    def tell(self, *record: Any) -> None:
        """See `Site.tell`."""
        self._channel.send_now(*record)

    def start(self, serial: int, order: Order, task: int, contents: Sequence[tuple[bytes, int]] = ()) -> None:
        """See `Site.start`."""
        self._channel.send_now("start", serial, *order, fds=[task, *(fd for _, fd in contents)])

    def offer(self, rank: int, number: int, fd: int) -> None:
        """Hand one end of a channel to a rank."""
        self._channel.send_now("offer", rank, number, fds=[fd])

    def close(self) -> None:
        """See `Site.close`."""
        self._channel.close()

    def abandon(self) -> None:
        """See `Site.abandon`."""
        self._channel.close()


class RemoteSite(Site):
    """A machine with a beacon.

    Args:
        link: the channel to it, in the state "open"; owned from now on.
    """

    def __init__(self, host: Host, share: range, link: ControlLink) -> None:
        super().__init__(host, share)
        self._link = link
        self._heard = monotonic()
        self._contents: set[bytes] = set()  # that are there
        self._endpoint: Endpoint | None = None
        self._watching = select.EPOLLIN
        self._is_watched = False

    # -- the beginning, with waiting

    def prepare(self, plan: JobPlan) -> None:
        """Have the program unpacked and the certificates there, for ranks to be launched.

        Raises:
            BeaconError: it refuses, or is gone; the message says why.
        """
        deadline = Deadline(PREPARE_SECONDS)
        link = self._link
        try:
            link.send_now(deadline, "job", id=plan.job_id, ranks=len(self.share))
            share = {"first": self.share.start, "count": len(self.share)}
            link.send_now(deadline, "record", name="describe", **plan.said, **share)
            wanted = self._next(deadline, "want")
            there = {**wanted.fields["versions"], "packages": wanted.fields["packages"]}
            wrong = compare(plan.needs, there, self.name)
            if wrong is not None:
                raise wrong
            if wanted.fields["bundle"]:
                self._upload(plan.bundle.data, deadline)
            for rank, parts in (plan.credentials or {}).items():
                if rank not in self.share:
                    continue
                sizes = [len(part) for part in parts]
                link.send_now(deadline, "record", b"".join(parts), name="credentials", rank=rank, sizes=sizes)
            who = [{"rank": rank, "incarnation": number} for rank, number in plan.incarnations.items()]
            link.send_now(deadline, "record", name="launch", join_key=plan.join_key, incarnations=who)
        except DeadlineError:
            raise BeaconError(
                f"{self.name} did not get ready within {PREPARE_SECONDS:g} s: is its disk, or its network, slow?",
                self.name,
            ) from None
        except (EOFError, OSError, RemoteProtocolError) as error:
            raise BeaconError(
                f"{self.name} broke off while the job was prepared: {error}; its log says more", self.name
            ) from error

    def _upload(self, data: bytes, deadline: Deadline) -> None:
        for low in range(0, max(1, len(data)), CHUNK_BYTES):
            last = low + CHUNK_BYTES >= len(data)
            self._link.send_now(deadline, "record", data[low : low + CHUNK_BYTES], name="bundle", last=last)
        self._next(deadline, "unpacked")

    def _next(self, deadline: Deadline, name: str) -> Frame:
        frame = self._link.receive_now(deadline, "record", "refused")
        if frame.kind == "refused":
            raise self.refusal(frame)
        if frame.fields["name"] != name:
            raise RemoteProtocolError(f"it said {frame.fields['name']!r} where {name!r} was due")
        return frame

    def refusal(self, frame: Frame) -> BeaconError:
        """Return the error that a refusal means."""
        kind = _ERRORS.get(frame.fields["reason"], BeaconError)
        return kind(f"{self.name} refuses the job: {frame.fields['sentence']}", self.name)

    # -- afterwards, without

    def attend(self, endpoint: Endpoint, hear: Any, lose: Any) -> None:
        """See `Site.attend`."""
        self._endpoint = endpoint
        self._heard = monotonic()  # until now others may have been waited for

        def ready(events: int) -> None:
            try:
                if events & select.EPOLLOUT:
                    self._link.flush()
                for frame in self._link.receive():
                    self._heard = monotonic()
                    self._obey(frame, hear, lose)
            except (EOFError, OSError, RemoteProtocolError) as error:
                ended, cut = "its beacon has ended the session", f"the connection to its beacon was cut off: {error}"
                self._lose(lose, ended if isinstance(error, EOFError) else cut)
                return
            self._watch()

        endpoint.poller.register(self._link.fileno(), select.EPOLLIN, ready)
        self._is_watched = True
        self._watch()

    def _obey(self, frame: Frame, hear: Any, lose: Any) -> None:
        if frame.kind == "ping":
            self._link.send("pong")
        elif frame.kind == "record":
            name = frame.fields.pop("name")
            hear(self, unpack_record(name, frame.fields, frame.data), [])
        elif frame.kind == "refused":
            self._lose(lose, frame.fields["sentence"])

    def _lose(self, lose: Any, reason: str) -> None:
        self._unwatch()
        if self.living:
            lose(self, reason)

    def _unwatch(self) -> None:
        if self._endpoint is not None and self._is_watched:
            self._is_watched = False
            self._endpoint.poller.unregister(self._link.fileno())

    def _watch(self) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if self._link.blocked else 0)
        endpoint = self._endpoint
        if endpoint is not None and events != self._watching and self._is_watched:
            self._watching = events
            endpoint.poller.modify(self._link.fileno(), events)

    def tell(self, *record: Any) -> None:
        """See `Site.tell`."""
        name, fields, data = pack_record(record)
        try:
            if self._link.conversation.state == "job":
                self._link.send("record", data, name=name, **fields)
        except OSError:
            return  # its end is met when it is heard
        self._watch()

    def deliver(self, digest: bytes, fd: int) -> Generator[None, None, None]:
        """See `Site.deliver`; what is there already is not sent again."""
        if digest in self._contents:
            return
        position, size, whole = 0, os.fstat(fd).st_size, False
        try:
            while not position or position < size:
                self.tell("content", digest, os.pread(fd, CHUNK_BYTES, position))
                position += CHUNK_BYTES
                yield
            whole = True
            self._contents.add(digest)
        finally:
            if not whole:  # who was to wait for the next part was interrupted
                self.tell("forget", digest)

    def forget(self, digest: bytes) -> None:
        """See `Site.forget`."""
        if digest in self._contents:
            self._contents.discard(digest)
            self.tell("forget", digest)

    @property
    def has_room(self) -> bool:
        """See `Site.has_room`."""
        return not self.living or self._link.backlog_bytes < _BACKLOG_BYTES

    def start(self, serial: int, order: Order, task: int, contents: Sequence[tuple[bytes, int]] = ()) -> None:
        """See `Site.start`."""
        with open(task, "rb", closefd=False) as file:
            file.seek(0)
            while data := file.read(CHUNK_BYTES):
                self.tell("task", serial, data)
        self.tell("start", serial, *order, [digest for digest, _ in contents])

    @property
    def silent_for(self) -> float:  # type: ignore[override]
        """Seconds since it was heard last; not while what has come waits to be looked at."""
        return monotonic() - self._heard

    def close(self) -> None:
        """See `Site.close`."""
        self._unwatch()
        self._link.close(goodbye=True)

    def abandon(self) -> None:
        """See `Site.abandon`."""
        self._link.abandon()
