"""A job as its driver speaks to it: the messages to its ranks and from them, wherever they are.

Layer: launch; how ranks are brought to life, and how their supervisors are spoken to, is for subclasses.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.launch.balance import count_unreceived
from klyng_mp.launch.hangs import render_report
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.frames import CONTROL, DRIVER, Message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from klyng_mp.deadline import Deadline
    from klyng_mp.errors import HostLostError, WorldError
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.launch.state import RankState
    from klyng_mp.transports.contract import Sink, Transport
    from klyng_mp.transports.secure import SecureSocket
    from klyng_mp.wire.codec import Codec

__all__ = ["Job", "Line", "Order", "write_output"]


class Order(NamedTuple):
    """A process that is to be started.

    Attributes:
        name: its own.
        run: the number that the contexts of its communicator are made of.
        rank: its place, or NO_RANK.
        no_rank: why it has none, or an empty string.
    """

    name: str
    run: int
    rank: int
    no_rank: str


class Line:
    """What the driver of one World and its ranks say to each other.

    Args:
        spec: what the ranks are to be.

    Attributes:
        endpoint: the driver's end of the messages.
        closed: whether every process of the job has ended.
        lost: the error that says why the job can do nothing more, or None.
        unreachable: why there is nobody at a place, by rank: its host is lost, and the job goes on without it.
    """

    def __init__(self, spec: RankSpec) -> None:
        self.spec = spec
        self.closed = False
        self.lost: WorldError | None = None
        self.unreachable: dict[int, HostLostError] = {}
        self._incarnations = dict.fromkeys(range(spec.size), 1)
        self.endpoint = Endpoint(DRIVER)
        self._transport = StreamTransport(self._sink(), self.endpoint.poller, connect=lambda _peer: None)
        self._ways: Transport = self._transport
        self.endpoint.use(self._ways)
        self.endpoint.on_lost = lambda _peer, _reason: None  # the supervisor says what it means

    def _sink(self) -> Sink:
        """Return what takes the messages of ranks that come by streams."""
        return self.endpoint

    @property
    def incarnations(self) -> dict[int, int]:
        """Which occupant each place has, by rank, as far as is known."""
        return dict(self._incarnations)

    def host_of(self, rank: int) -> str:
        """Return the name of a rank's host."""
        del rank
        return self.spec.host

    def submit(self, run: int | str, encoded: tuple[int, bytes, list[Any]], ranks: Sequence[int] | None = None) -> None:
        """Send the same message to ranks (by default all) without waiting."""
        for rank in range(self.spec.size) if ranks is None else ranks:
            self.endpoint.start_send(rank, Message(CONTROL, DRIVER, run, self._incarnations[rank], *encoded))

    def all_sent(self) -> bool:
        """Tell whether all that was submitted is with the kernel."""
        return not self._ways.pending()

    def answer(self, tag: int | str) -> Message | None:
        """Return the next answer that has come with this tag, or None."""
        with self.endpoint.lock:
            return self.endpoint.mailbox.take(CONTROL, -1, tag)

    def wait(self, ready: Callable[[], bool], deadline: Deadline, doing: str) -> None:
        """Wait until ``ready()``, or the job is lost, or the deadline is over (DeadlineError)."""
        self.endpoint.wait(lambda: ready() or self.lost is not None or self.closed, deadline, doing)

    def _welcome(self, rank: int, incarnation: int, sock: socket.socket | SecureSocket) -> None:
        """Take note that a rank has come to life, and how it is reached; with the endpoint's lock held."""
        self._incarnations[rank] = incarnation
        self.endpoint.mark_present(rank, incarnation)
        self._transport.adopt(rank, sock)


class Job(Line):
    """The ranks of one World, as its driver sees them; see `Line` for the rest of its attributes.

    Args:
        spec: what the ranks are to be.

    Attributes:
        settled: causes of the runs that ended early, by run.
        fenced: the last run whose output has been forwarded whole.
        forwards_output: whether output comes by way of this process, to be written here.
        has_started: whether processes were started from it.
        is_spread: whether some of its ranks are on other hosts, where no descriptor of this one means anything.
        is_here: whether its ranks are in this process, and use the modules that it has imported.
    """

    has_started = False
    is_spread = False
    is_here = False

    def __init__(self, spec: RankSpec) -> None:
        super().__init__(spec)
        self.settled: dict[int, Cause] = {}
        self.fenced = 0
        self.forwards_output = False

    def pack_run(
        self, codec: Codec, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[int, bytes, list[Any]]:
        """Return what is to be submitted for a function to be called in all ranks.

        Raises:
            CodecError, NotAcrossHostsError: it cannot travel.
        """
        return codec.encode_run((func, args, kwargs), names=("func", "args", "kwargs"))

    def count_unreceived(self, reports: Mapping[int, tuple[dict[int, int], int]]) -> dict[int, int]:
        """Return how many messages each rank has left; see `klyng_mp.launch.balance.count_unreceived`."""
        return count_unreceived(reports)

    def end_run(self, run: int, wish: str, phrase: str, *, grace: float, signum: int | None = None) -> None:
        """Ask for a run to be ended early; ``settled`` tells when it has been."""
        raise NotImplementedError

    def fence(self, run: int) -> None:
        """Say that a run is over, and ask for all its output to be written; ``fenced`` tells when it has been."""
        raise NotImplementedError

    def over(self, run: int) -> None:
        """Say that a run is over and has left no output to wait for."""
        raise NotImplementedError

    def start_process(self, order: Order, task: int, exit_pipe: int, fds: Sequence[int]) -> tuple[int, int, int | None]:
        """Start a process.

        Args:
            order: which, where.
            task: a file with what it is to do.
            exit_pipe: where its exit code is to be written, once all that it has printed is.
            fds: descriptors that it needs.

        Returns:
            its serial number in this job, its process number, and a descriptor that means it, where it is on this host
            and one of its own.

        Raises:
            LaunchError: it could not be started.
            WorldError: the job is lost, or over.
        """
        raise NotImplementedError

    def signal_process(self, serial: int, signum: int) -> None:
        """Send a signal to a process that was started, if it lives, or with serial 0 to all of them."""
        raise NotImplementedError

    def take_left(self, serial: int) -> bytes:
        """Return what a process that has ended has left (see `bequeath`), once; nothing where nobody knows."""
        del serial
        return b""

    def open_channel(self, rank: int, number: int, opened: Callable[[Any, str], None]) -> None:
        """Open a connection to a process in a place that is not its endpoint's, where the job is spread.

        Args:
            rank: its place; it is opened when the process has come there, and never if that ends before.
            number: by which the process claims it; see `klyng_mp.remote.channels`.
            opened: called in a thread of its own with a socket, and "", or with None and the reason.
        """
        raise NotImplementedError

    def refill(self, run: int, *, renew: bool) -> None:
        """Give the places that processes have had to ranks again; ``renew`` replaces the other ranks, too."""
        raise NotImplementedError

    def flush(self) -> None:
        """Wait until all has been written that processes have printed which have ended."""
        raise NotImplementedError

    def report(self, deadline: Deadline) -> list[RankState]:
        """Ask what each rank does now.

        Raises:
            DeadlineError: there was no answer in time.
            WorldError: the job is lost, or over.
        """
        raise NotImplementedError

    def render(self, deadline: Deadline) -> str:
        """Return as text what each rank does now; see `report`."""
        return render_report(self.report(deadline))

    def show_report(self) -> None:
        """Have what each rank does written to standard error; may be called by a signal handler."""
        raise NotImplementedError

    def close(self) -> None:
        """Ask the ranks to end by themselves; ``closed`` tells when they have."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the ranks at once; ``closed`` tells when they have."""
        raise NotImplementedError

    def wait_closed(self, deadline: Deadline, doing: str) -> None:
        """Wait until every process of the job has ended."""
        raise NotImplementedError

    def dispose(self) -> None:
        """Give the job up: what still runs of it is killed, and nothing more is heard of it."""
        raise NotImplementedError

    def forget(self) -> None:
        """Close what this process inherited of its parent's job by being forked."""
        raise NotImplementedError


def write_output(name: str, data: bytes) -> None:
    """Write what ranks have printed to this program's "stdout" or "stderr"."""
    if (stream := getattr(sys, name)) is not None:
        stream.write(data.decode(errors="replace"))
