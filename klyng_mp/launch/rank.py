"""The rank's own main: serves its World's driver, run after run, until it is told to close.

Layer: launch. The driver's messages have the context CONTROL; the tag is the number of the run, or a
word. What a rank answers has the same tag and is an outcome: ("ok", value, left) or
("failed", summary, traceback, exception), the exception encoded by itself so that one that cannot be
rebuilt does not take the rest with it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from klyng_mp.communicator.awaiting import complete
from klyng_mp.communicator.current import set_current
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CodecError
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.control import CLOSE, LOG, PRESENT, STATISTICS, UNRECEIVED
from klyng_mp.launch.link import make_link
from klyng_mp.launch.logs import DriverHandler, mark_records
from klyng_mp.launch.pending import is_quiet
from klyng_mp.launch.program import format_user_traceback, summarize
from klyng_mp.launch.started import run_started
from klyng_mp.launch.surroundings import (
    BodyEnds,
    Place,
    cut_loose,
    end_process,
    flush_streams,
    seed_random_numbers,
    show_in_ps,
    take_place,
)
from klyng_mp.transports.shm import Segment
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, DRIVER, Message, make_context, pack_frame
from klyng_mp.wire.mailbox import ANY_TAG
from klyng_mp.wire.namespace import install_main

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.communicator import Communicator
    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.statistics import RankStatistics

__all__ = ["Server", "rank_main", "spawned"]

_FOREVER = Deadline(None)
_SPOILT_EXIT_CODE = 72


def rank_main(ends: BodyEnds, keep: set[int], rehearsal: RankSpec | None = None) -> NoReturn:
    """Be a rank, whichever it is told to be, until its World closes.

    Args:
        ends: as in ``cut_loose``.
        keep: likewise.
        rehearsal: surroundings to practise in first, where there is time for it.
    """
    channel = cut_loose(ends, keep)
    if rehearsal is not None:
        show_in_ps("klyng spare")
        _rehearse(rehearsal)
    place = take_place(channel)
    if place.spec.preparation is not None:
        _import_main(place.spec.preparation)
    if place.start is not None:
        run_started(place, place.start, ends.leash)
    codec = Codec(main_by_reference=place.spec.main_by_reference)
    server = Server(place, make_link(place, codec), codec)
    server.forward_logs()
    try:
        server.serve()
    except ClosedError:  # an interruption has spoilt the endpoint; whoever is to know has been told
        flush_streams()
        os._exit(_SPOILT_EXIT_CODE)
    set_current(None)
    end_process(0, server.say_goodbye)


def _import_main(preparation: dict[str, Any]) -> None:
    from multiprocessing.spawn import prepare  # noqa: PLC0415 - only ranks that import the main module

    process: Any = multiprocessing.current_process()
    process._inheriting = True  # noqa: SLF001 - by this, multiprocessing refuses what a main guard should prevent
    try:
        prepare(preparation)
    finally:
        del process._inheriting  # noqa: SLF001


def spawned(*fds: int) -> NoReturn:
    """Be a rank in a fresh interpreter."""
    for fd in fds:
        os.set_inheritable(fd, False)
    rank_main(BodyEnds(*fds), set())


def _rehearse(spec: RankSpec) -> None:
    """Do once all that a rank does.

    The memory that it touches is copied from the zygote now, and not while somebody waits: that is half of the
    time that a fresh rank takes to its first result.
    """
    channel, supervisor = Channel.pair()
    place = Place(spec, 0, 1, {}, channel)
    place.driver, driver = socket.socketpair()
    if spec.shares_memory:
        segment = Segment(spec.size)
        place.shared = segment.fd, segment.bells.pop()
        for bell in segment.bells:
            os.close(bell)
    codec = Codec(main_by_reference=spec.main_by_reference)
    link = make_link(place, codec)
    server = Server(place, link, codec)
    work = Codec(main_by_reference=False).encode_run((len, ((),), {}))
    for message in (Message(CONTROL, DRIVER, 1, 1, *work), Message(CONTROL, DRIVER, CLOSE, 1, 0, b"", [])):
        driver.sendall(b"".join(pack_frame(message)))
    server.serve()
    link.endpoint.close()
    channel.close()
    set_current(None)
    supervisor.close()
    driver.close()


class Seat(Protocol):
    """Which rank it is, of whom."""

    spec: RankSpec
    rank: int


class Link(Protocol):
    """What ties a rank to its job; see `RankLink`."""

    @property
    def endpoint(self) -> Endpoint:
        """The rank's."""

    @property
    def aborted(self) -> int:
        """Runs up to this one were ended before they reached this rank."""

    def begin(self, run: int) -> Communicator:
        """Enter a run."""

    def finish(self) -> None:
        """Leave it."""

    def tell(self, *record: Any) -> None:
        """Send a record to who supervises the rank."""

    def meet(self, incarnations: dict[int, int]) -> None:
        """Take note of who occupies the places of other hosts now."""

    def balance(self) -> tuple[dict[int, int], int]:
        """Return how many of this run's messages were sent to whom, and how many were received."""

    def unreceived(self) -> list[tuple[int, int | str]]:
        """Return (source, tag) of the messages of this run that nobody has received."""

    def statistics(self) -> RankStatistics:
        """Return what this rank has done until now."""

    def check_agreement(self) -> None:
        """Raise the CollectiveMismatchError that nobody has met."""

    def say_goodbye(self, report: Callable[[], tuple[Any, ...]]) -> None:
        """Let what was sent leave, and tell that this end is meant."""


class Server:
    """What a warm rank does between two runs, and in one.

    Args:
        place: which rank it is.
        link: what ties it to its job.
        codec: of its communicators.
    """

    def __init__(self, place: Seat, link: Link, codec: Codec) -> None:
        self._place = place
        self._codec = codec
        self._link = link

    def forward_logs(self) -> None:
        """Hand this process's log records to the driver, if it wants them."""
        if self._place.spec.log_level is not None:
            mark_records(self._place.rank)
            root = logging.getLogger()
            root.setLevel(self._place.spec.log_level)
            root.addHandler(DriverHandler(self._send_log))

    def serve(self) -> None:
        """Do what the driver asks for until it asks to close."""
        while True:
            message = self._link.endpoint.receive(
                CONTROL, DRIVER, ANY_TAG, deadline=_FOREVER, doing="waiting for the driver"
            )
            if message.tag == CLOSE:
                return
            if isinstance(message.tag, str):
                self._obey(message.tag, message)
            elif message.tag > self._link.aborted:
                self._serve_run(message.tag, message)

    def _obey(self, tag: str, message: Message) -> None:
        """Do what the driver asks for between runs."""
        if tag == PRESENT:
            self._link.meet(self._codec.decode(message.code, message.head, message.buffers))
        elif tag.startswith(UNRECEIVED):
            self._link.endpoint.progress()
            self._answer(tag, self._codec.encode(self._link.unreceived()))
        elif tag.startswith(STATISTICS):
            self._answer(tag, self._codec.encode(self._link.statistics()))

    def say_goodbye(self) -> None:
        """Let what was sent leave, and tell the supervisor that this end is meant."""
        self._link.say_goodbye(tuple)

    def _serve_run(self, run: int, message: Message) -> None:
        failure: tuple[str, str] | None = None
        try:
            try:
                self._link.begin(run)
                outcome = self._call(run, message)
            finally:  # a Ctrl-C has nothing to interrupt any more, and what follows would not outlive one
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the driver is told
            failure = (summarize(error), format_user_traceback(error))
            outcome = self._codec.encode(("failed", *failure, self._pack_exception(error)))
        flush_streams()
        if failure is None:  # else the supervisor has to see that first, and not what comes of it elsewhere
            self._link.endpoint.conclude(make_context(run), make_context(run + 1))
        self._link.finish()
        try:
            self._answer(run, outcome)
        finally:  # even where an interruption has spoilt the endpoint
            if failure is not None:
                self._link.tell("failed", run, *failure)

    def _call(self, run: int, message: Message) -> tuple[int, bytes, list[Any]]:
        place = self._place
        if place.spec.seed is not None:
            seed_random_numbers(place.spec.seed, run, place.rank)
        func, args, kwargs = self._codec.decode_run(message.code, message.head, message.buffers)
        if self._codec.main_module is not None:
            install_main(self._codec.main_module)
        try:
            value = complete(func(*args, **kwargs))
        except SystemExit as error:
            if error.code:
                raise
            value = None
        self._link.check_agreement()
        try:
            flush_streams()
            left = (*self._link.balance(), is_quiet())
            return self._codec.encode(("ok", value, left), names=("", "result", ""))
        except CodecError as error:
            what = f"in what rank {place.rank} returned, {error}"
            raise CodecError(what, path=error.path) from None  # its cause is in its sentence

    def _pack_exception(self, error: BaseException) -> tuple[int, bytes, list[bytes]] | None:
        try:
            code, head, buffers = self._codec.encode(error)
        except CodecError:
            return None  # its traceback, which travels as text, says what it was
        return code, head, [bytes(buffer) for buffer in buffers]

    def _answer(self, tag: int | str, encoded: tuple[int, bytes, list[Any]]) -> None:
        endpoint = self._link.endpoint
        message = Message(CONTROL, self._place.rank, tag, 0, *encoded)
        endpoint.send(DRIVER, message, deadline=_FOREVER, doing="sending a result to the driver")

    def _send_log(self, data: bytes) -> None:
        message = Message(CONTROL, self._place.rank, LOG, 0, *self._codec.encode(data))
        self._link.endpoint.start_send(DRIVER, message)
