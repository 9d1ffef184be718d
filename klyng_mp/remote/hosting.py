"""A job's share of one host: prepared, launched by the local launcher, and spoken for to the driver.

Layer: remote; part of a session.

The zygote is executed afresh and inherits nothing; what it and its supervisor say (as tuples on a channel) goes to the
driver as records, and back.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.errors import BeaconBusyError, BundleError, LaunchError
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.spec import RankSpec
from klyng_mp.launch.zygotes import ZygoteProcess
from klyng_mp.machine import usable_cpus
from klyng_mp.remote.bundle import Limits
from klyng_mp.remote.cache import BundleCache
from klyng_mp.remote.deliveries import Deliveries, Refusal, untimely
from klyng_mp.remote.groups import JobGroup
from klyng_mp.remote.history import Course
from klyng_mp.remote.network import RankNetwork, Site
from klyng_mp.remote.preface import read_preface
from klyng_mp.remote.records import BEGINNING, CHUNK_BYTES, pack_record, unpack_record
from klyng_mp.remote.tls import Credentials
from klyng_mp.remote.versions import describe_here

if TYPE_CHECKING:
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.loop import Loop
    from klyng_mp.remote.bundle import Unpacked
    from klyng_mp.remote.cache import Lease
    from klyng_mp.remote.options import BeaconOptions
    from klyng_mp.remote.session import SessionTools

__all__ = ["HostedJob", "Voice", "folder_prefix"]

_UNWRITTEN_BYTES = 4 << 20  # then ranks that print wait for whoever reads it
_EARLY_WIRES = 1024  # connections that may come before the ranks are there: one from each of many
_EXPANSION = 10  # a program may be so many times larger than its bundle


def folder_prefix(pid: int) -> str:
    """Return what the names of the folders begin with that a session has for its jobs."""
    return f"klyng-job-{pid}-"


class Voice(Protocol):
    """The session, as its job speaks through it."""

    def send(self, kind: str, data: bytes = b"", /, **fields: Any) -> None:
        """Send a frame to the driver."""

    def refuse(self, refusal: Refusal) -> None:
        """Say why not, and end the session."""

    def note(self, trouble: str, limit: str | None) -> None:
        """Tell the beacon what a rank has done, and which limit it has met if one."""


class HostedJob:
    """One job on this host, from its first word to its last.

    Args:
        voice: speaks to the driver.
        loop: of the session.
        tools: of the session.
        job_id, ranks: what the driver has announced.
    """

    def __init__(self, voice: Voice, loop: Loop, tools: SessionTools, job_id: bytes, ranks: int) -> None:
        self._voice = voice
        self._loop = loop
        self._tools = tools
        self._job_id = job_id
        self._ranks = ranks
        self._granted = False
        self._said: dict[str, Any] | None = None
        self._share = range(0)
        self._join_key = b""
        self._credentials: dict[int, Credentials] = {}
        limits = Limits(bytes=tools.options.max_bundle_bytes * _EXPANSION)
        self._cache = BundleCache(tools.home.cache, tools.options.cache_bytes, limits)
        self._upload = bytearray()
        self._lease: Lease | None = None
        self._folder = tempfile.mkdtemp(prefix=folder_prefix(os.getpid()))
        self.course = Course()  # how far it has come
        self._unwritten = 0  # bytes of output that the driver has not acknowledged
        self._group = JobGroup.make(f"klyng-{job_id.hex()}")
        self._zygote: ZygoteProcess | None = None
        self._channel: Channel | None = None
        self._early: list[tuple[bytes, int]] = []  # connections that have overtaken the word to launch
        self._deliveries = Deliveries(tools.options.max_bundle_bytes * _EXPANSION)

    # -- before it runs

    def grant(self) -> None:
        """The beacon has room for it."""
        self._granted = True
        self._answer()

    def obey(self, name: str, fields: dict[str, Any], data: bytes) -> None:
        """Do what a record of the driver says.

        Raises:
            Refusal: it cannot be done.
        """
        if name == "written":
            self._unwritten -= fields["size"]
            self._watch()
        elif (self._channel is None) is not (name in BEGINNING):
            raise untimely(name)
        elif self._channel is not None:
            self.course.terminated |= name == "kill"
            self._obey_running(self._channel, name, fields, data)
        elif name == "describe" and self._said is None:
            self._describe(fields)
        elif name == "bundle" and self._granted and self._said is not None and self._lease is None:
            self._take_bundle(data, last=fields["last"])
        elif name == "credentials":
            self._take_credentials(fields["rank"], fields["sizes"], data)
        elif name == "launch" and self._lease is not None:
            self._join_key = fields["join_key"]
            self._launch({one["rank"]: one["incarnation"] for one in fields["incarnations"]})
        else:
            raise untimely(name)

    def _describe(self, said: dict[str, Any]) -> None:
        self._share = range(said["first"], said["first"] + said["count"])
        here = [site for site in said["sites"] if (site["first"], site["size"]) == (said["first"], said["count"])]
        if said["count"] != self._ranks or self._share.stop > said["size"] or not here:
            raise Refusal("failed", "the job says two things of its ranks: both sides must run the same klyng_mp")
        _check_limits(said, self._tools.options)
        self._said = said
        self._answer()

    def _answer(self) -> None:
        """Say whether the bundle is wanted, once the beacon has room and the job is described."""
        said = self._said
        if self._granted and said is not None:
            self._lease = self._fetch(said["bundle"].hex())
            versions = describe_here([(one["module"], one["distribution"]) for one in said["packages"]])
            packages = versions.pop("packages")
            self._voice.send("record", name="want", bundle=self._lease is None, versions=versions, packages=packages)

    def _fetch(self, digest: str) -> Lease | None:
        try:
            return self._cache.fetch(digest, os.path.join(self._folder, "program"))
        except BundleError as error:
            raise Refusal("bundle", str(error)) from error

    def _take_bundle(self, data: bytes, *, last: bool) -> None:
        assert self._said is not None  # noqa: S101 - `obey` has looked
        self._upload += data
        if len(self._upload) > self._said["bundle_bytes"]:
            raise Refusal("limit", "the program is larger than was said", "max_bundle_bytes")
        if not last:
            return
        digest = self._said["bundle"].hex()
        try:
            self._cache.store(digest, bytes(self._upload))
        except BeaconBusyError as error:
            raise Refusal("busy", str(error), "cache_bytes") from error
        except BundleError as error:
            raise Refusal("bundle", str(error)) from error
        self._upload.clear()
        self._lease = self._fetch(digest)
        if self._lease is None:
            raise Refusal("bundle", "the program was damaged on this beacon's disk: try again, and look at its disk")
        self._voice.send("record", name="unpacked")

    def _take_credentials(self, rank: int, sizes: list[int], data: bytes) -> None:
        if rank not in self._share or len(sizes) != 3 or sum(sizes) != len(data):
            raise Refusal("failed", "a certificate that fits no rank: both sides must run the same klyng_mp")
        first, second, _ = sizes
        self._credentials[rank] = Credentials(data[:first], data[first : first + second], data[first + second :])

    # -- while it runs

    def _obey_running(self, channel: Channel, name: str, fields: dict[str, Any], data: bytes) -> None:
        if name == "task":
            self._deliveries.add_task(fields["serial"], data)
        elif name == "content":
            self._deliveries.add_content(fields["digest"], data)
        elif name == "forget":
            self._deliveries.forget(fields["digest"])
        elif name == "start":
            self._start_process(channel, fields)
        else:
            channel.send(*unpack_record(name, fields, data))
        self._watch()

    def _start_process(self, channel: Channel, fields: dict[str, Any]) -> None:
        if fields["rank"] not in self._share:
            raise untimely("start")
        fds = self._deliveries.hand_out(fields["serial"], fields["contents"])
        kind, *words, _contents = unpack_record("start", fields, b"")
        channel.send(kind, *words, fds=fds)
        os.close(fds[0])

    def _launch(self, incarnations: dict[int, int]) -> None:
        try:
            self._zygote = ZygoteProcess(())
            if self._group is not None:
                self._group.add(self._zygote.pid)
            self._channel, theirs = Channel.pair()
            self.course.begun = True
            with theirs, open(os.devnull, "rb") as nothing:
                spec, label = self._make_spec(incarnations), self._said is not None and self._said["label"]
                self._zygote.channel.send_now(
                    "job", "zygote", spec, label, False, False, fds=[theirs.fileno(), nothing.fileno()]
                )
        except (OSError, LaunchError) as error:
            raise Refusal("failed", f"ranks could not be started there: {error}") from error
        self._loop.register(self._channel.fileno(), select.EPOLLIN, self._ready)
        early, self._early = self._early, []
        for preface, fd in early:
            self.hand_over(preface, fd)

    def _make_spec(self, incarnations: dict[int, int]) -> RankSpec:
        said, lease = self._said, self._lease
        assert said is not None  # noqa: S101 - `obey` has looked
        assert lease is not None  # noqa: S101 - `obey` has looked
        network = RankNetwork(
            self._job_id,
            self._join_key,
            [Site(**one) for one in said["sites"]],
            self._credentials if said["encrypt"] else None,
            far_driver=True,
        )
        spec = _spec_of(said, self._share, network, lease.unpacked)
        spec.incarnations = incarnations
        _limit_memory(spec, self._tools.options.max_rank_memory_bytes)
        return spec

    def hand_over(self, preface: bytes, fd: int) -> None:
        """Give a connection, whose preface the beacon has read, to the rank that it is for; owns the descriptor.

        The driver's may overtake its word to launch, which comes another way.
        """
        channel = self._channel
        if channel is None and len(self._early) < _EARLY_WIRES:
            self._early.append((preface, fd))
            return
        try:
            said = read_preface(preface)
            wanted = said.dest in self._share and said.is_from(self._join_key)
            if wanted and channel is not None and not channel.backlogged:
                channel.send("accept", said.dest, said.source, fds=[fd])
                self._watch()
        finally:
            os.close(fd)

    def _ready(self, events: int) -> None:
        channel = self._channel
        if channel is None:  # the end has come in the same round
            return
        if events & select.EPOLLOUT:
            channel.flush()
        try:
            while self._unwritten < _UNWRITTEN_BYTES and (received := channel.receive()) is not None:
                record, fds = received
                for fd in fds:
                    os.close(fd)
                self._tell(record)
                if self._channel is None:  # the driver could not be told, so all has ended
                    return
        except EOFError:
            self._loop.unregister(channel.fileno())
            if not self.course.closed:
                self._voice.refuse(Refusal("failed", "the process that supervises its ranks is gone (was it killed?)"))
            return
        self._watch()

    def _tell(self, record: tuple[Any, ...]) -> None:
        self.course.closed |= record[0] == "closed"
        if record[0] == "caused" and record[2].rank in self._share:
            self._voice.note(*_trouble_of(record[2], self._tools.options))
        if record[0] == "output":
            data = record[2]
            self._unwritten += len(data)
            for low in range(0, len(data), CHUNK_BYTES):
                self._voice.send("record", bytes(data[low : low + CHUNK_BYTES]), name="output", stream=record[1])
        else:
            name, fields, data = pack_record(record)
            self._voice.send("record", data, name=name, **fields)

    def _watch(self) -> None:
        channel = self._channel
        if channel is not None and self._loop.watches(channel.fileno()):
            reading = select.EPOLLIN if self._unwritten < _UNWRITTEN_BYTES else 0
            self._loop.modify(channel.fileno(), reading | (select.EPOLLOUT if channel.blocked else 0))

    def end(self) -> None:
        """End everything that is left of it, and give back what it had."""
        for _preface, fd in self._early:
            os.close(fd)
        self._deliveries.close()
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.unregister(channel.fileno())  # what it says at last is for nobody
            channel.close()
        if self._zygote is not None:
            self._zygote.stop()
        if self._group is not None:
            self._group.end()
        if self._lease is not None:
            self._lease.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _spec_of(said: dict[str, Any], share: range, network: RankNetwork, program: Unpacked) -> RankSpec:
    """Return what ranks here are to be."""
    site = next(site for site in said["sites"] if site["first"] == said["first"] and site["size"])
    spec = RankSpec(said["size"], site["name"])
    spec.share = share
    spec.network = network
    spec.cwd = program.cwd
    spec.path = [*program.path, *(folder for folder in sys.path if folder)]
    spec.argv = [program.main, *said["argv"][1:]] if program.main else said["argv"]
    spec.environment |= said["environment"]
    spec.seed = None if said["seed"] is None else int(said["seed"])
    spec.log_level = said["log_level"]
    spec.main_by_reference = said["by_reference"]
    spec.share_cpus(usable_cpus())
    return spec


def _limit_memory(spec: RankSpec, most_bytes: int | None) -> None:
    if most_bytes is not None:
        spec.limits = [(kind, soft, hard) for kind, soft, hard in spec.limits if kind != resource.RLIMIT_AS]
        spec.limits.append((resource.RLIMIT_AS, most_bytes, most_bytes))


def _trouble_of(cause: Cause, options: BeaconOptions) -> tuple[str, str | None]:
    """Return what the beacon is told of why a rank has ended a run, and the limit that it has met, if it has one."""
    if cause.kind != "failed":
        return f"rank {cause.rank} {cause.detail}", None
    name = cause.detail.partition(":")[0]  # what the exception says is the program's own business
    limited = name == "MemoryError" and options.max_rank_memory_bytes is not None
    return f"rank {cause.rank} raised {name}", "max_rank_memory_bytes" if limited else None


def _check_limits(said: dict[str, Any], options: BeaconOptions) -> None:
    """Refuse what this beacon does not allow."""
    if not said["encrypt"] and not options.allow_plaintext:
        raise Refusal(
            "limit",
            "this beacon does not allow data between ranks in plain text: leave encrypt=False out, or set "
            "allow_plaintext = true in its beacon.toml",
            "allow_plaintext",
        )
    if said["bundle_bytes"] > options.max_bundle_bytes:
        raise Refusal(
            "limit",
            f"the program has {said['bundle_bytes']} bytes packed, and {options.max_bundle_bytes} are allowed: "
            f"let less travel, or raise max_bundle_bytes in its beacon.toml",
            "max_bundle_bytes",
        )
