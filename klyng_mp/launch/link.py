"""A rank's side of its job: its endpoint, and the line to the supervisor that introduces and ends it.

Layer: launch.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.agreement import disagreement
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.current import set_current
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import KlyngError
from klyng_mp.launch.control import CLOSE
from klyng_mp.launch.state import RankState, describe_begin, describe_idle, describe_rank
from klyng_mp.launch.statistics import RankStatistics, collect
from klyng_mp.launch.surroundings import give_up
from klyng_mp.transports.routes import Routes
from klyng_mp.transports.shm import ShmTransport
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, DRIVER, Message, make_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.spec import Network, Wires
    from klyng_mp.launch.surroundings import Place
    from klyng_mp.objects.desk import Desk
    from klyng_mp.transports.contract import Transport

__all__ = ["RankLink", "make_link"]

_SPIN_SECONDS = 60e-6  # what a message needs there and back in a fast network, and less than to sleep and wake up
_ANSWER_SECONDS = 1.0  # for a peer that waits, or makes progress now and then

Kinds = tuple[type[Endpoint], "Callable[..., Communicator]"]


def make_link(place: Place, codec: Codec, kinds: Kinds = (Endpoint, Communicator)) -> RankLink:
    """Return the link of the rank that this process is, or end it where there is no room for one."""
    try:
        return RankLink(place, codec, kinds)
    except OSError as error:
        give_up(place, f"its limits are too low: {error}")


class RankLink:
    """What ties a rank to the others. All of its callbacks run while the endpoint's lock is held.

    Args:
        place: which rank it is.
        codec: of its communicators.
        kinds: of its endpoint and its communicators.

    Attributes:
        wires: lead to other hosts, where there are any.
    """

    def __init__(self, place: Place, codec: Codec, kinds: Kinds = (Endpoint, Communicator)) -> None:
        self.place = place
        self.codec = codec
        self.run = 0
        self.running = self._retired = False
        self.aborted = 0  # runs up to this one were ended before they reached this rank
        self._calls: dict[tuple[int, int, int], str | None] = {}  # what peers say of theirs
        self._asked = 0  # the question that is answered when there is a run to tell of
        make_endpoint, self._make_communicator = kinds
        self.endpoint = make_endpoint(place.rank, incarnation=place.incarnation)
        self._comm: Communicator | None = None
        self._inside_ns = self._began_ns = 0  # within runs; when the present one began
        self._channel = place.channel
        self._transport = StreamTransport(self.endpoint, self.endpoint.poller, connect=self._connect)
        self._memory: ShmTransport | None = None
        self.wires: Wires | None = None
        routes: dict[int, Transport] = {DRIVER: self._transport}
        if place.spec.network is not None:
            self._reach_others(place.spec.network, routes)
        if place.shared is None:
            self.endpoint.use(Routes(self._transport, routes))
        else:
            self._share_memory(*place.shared, routes)
        self.endpoint.on_lost = self._lost
        self._desk = None if place.spec.network is None else _make_desk(self.endpoint, codec)
        self.endpoint.find_call = self._find_call
        self.endpoint.incarnations.update(dict.fromkeys(range(place.spec.size), 1) | place.incarnations)
        if place.start is not None:
            self.endpoint.refresh = self._refresh
            for peer in place.start.absent:
                self.endpoint.expect(peer)
        self.endpoint.watch(place.channel.fileno(), self._hear)
        if place.driver is not None:
            self._transport.adopt(DRIVER, place.driver)
        self.tell("ready")

    def tell(self, *record: Any) -> None:
        """Send a record to the supervisor, which always reads."""
        self._channel.send_now(*record)

    def tell_with(self, kind: str, fd: int) -> None:
        """Send a descriptor to the supervisor."""
        self._channel.send_now(kind, fds=[fd])

    def begin(self, run: int) -> Communicator:
        """Enter a run, which a Ctrl-C may interrupt from now on.

        Returns:
            The communicator of its ranks, which is also ``klyng_mp.comm()`` now.
        """
        with self.endpoint.lock:
            self.run = run
            self.running = True
            asked, self._asked = self._asked, 0
        if asked:
            self.tell("state", asked, describe_begin(self.place.rank))
        self.endpoint.begin_run(make_context(run))
        comm = self._make_communicator(
            self.endpoint,
            self.codec,
            context=make_context(run),
            rank=self.place.rank,
            members=range(self.place.spec.size),
        )
        set_current(comm)
        self._comm = comm
        self._calls.clear()
        self._began_ns = perf_counter_ns()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return comm

    def meet(self, incarnations: dict[int, int]) -> None:
        """Take note of who occupies the places of other hosts now."""
        for peer in set(incarnations).difference(self.place.spec.share):
            self.endpoint.mark_present(peer, incarnations[peer])

    def finish(self) -> None:
        """Leave the run."""
        self._inside_ns += perf_counter_ns() - self._began_ns
        with self.endpoint.lock:
            self.running = False
            aborted = self.endpoint.aborted
        self.endpoint.resume()
        if aborted:
            self._tell_ended(self.run)

    def say_goodbye(self, report: Callable[[], tuple[Any, ...]]) -> None:
        """Let what was sent leave; tell the supervisor that this end is meant, and the others that nothing follows."""
        if self._desk is not None:
            self._desk.retire()
        self.endpoint.flush(Deadline(None))
        for peer, message in self.endpoint.take_early():
            buffers = [bytearray(buffer) for buffer in message.buffers]
            content = message.context, message.source, message.tag, message.code, message.head, buffers
            self.tell("mail", peer, pickle.dumps(content, protocol=5))
        self.tell("goodbye", report())
        if not self._retired:  # else those that it would tell may be others by now, who await its successor
            self.endpoint.close()

    def balance(self) -> tuple[dict[int, int], int]:
        """Return how many of this run's messages were sent to whom, and how many were received."""
        sent = self.endpoint.sent_counts()
        sent.pop(DRIVER, None)
        return sent, self.endpoint.mailbox.taken(self.run)

    def statistics(self) -> RankStatistics:
        """Return what this rank has done until now."""
        found = collect(self.endpoint, self._inside_ns + (perf_counter_ns() - self._began_ns if self.running else 0))
        return found if self.wires is None else found._replace(connections_dropped=self.wires.dropped)

    def unreceived(self) -> list[tuple[int, int | str]]:
        """Return (source, tag) of the messages of this run that nobody has received, oldest first."""
        waiting = self.endpoint.unreceived(make_context(self.run), make_context(self.run + 1))
        return [(message.source, message.tag) for message in waiting]

    def check_agreement(self) -> None:
        """At a program's end, raise the CollectiveMismatchError that nobody has met, as no call waited for it."""
        comm = self._comm
        if comm is not None and comm.call_log.made and not comm.closed:
            self.endpoint.take_in()
            if (error := disagreement(comm, comm.call_log.last, ask=True)) is not None:
                raise error

    def _find_call(self, peer: int, context: int, number: int) -> str | None:
        """Ask a peer what collective call it made; who computes for longer than a second does not answer in time."""
        key = peer, context, number
        self.tell("relay", peer, "which call", context, number)
        try:
            self.endpoint.wait(lambda: key in self._calls, Deadline(_ANSWER_SECONDS), "asking what another rank called")
        except KlyngError:  # too late, or the run is over: the error that is to be raised says less, then
            return None
        return self._calls[key]

    def _relayed(self, peer: int, kind: str, context: int, number: int, text: str | None = None) -> None:
        if kind == "which call":
            log = self.endpoint.call_logs.get(context)
            self.tell("relay", peer, "call", context, number, None if log is None else log.find(number))
        else:
            self._calls[peer, context, number] = text

    def _reach_others(self, network: Network, routes: dict[int, Transport]) -> None:
        """Have routes to the ranks of other hosts, and to the driver where it is not on this one."""
        spec = self.place.spec
        self.wires = network.attach(self.endpoint, lambda peer: self.tell("dial", peer))
        routes.update({peer: self.wires.transport for peer in range(spec.size) if peer not in spec.share})
        if network.far_driver:
            routes[DRIVER] = self.wires.transport
        self.endpoint.attend(_SPIN_SECONDS if spec.may_spin else 0.0)

    def _share_memory(self, memory: int, bell: int, routes: dict[int, Transport]) -> None:
        """Reach the ranks of this host through the memory that all of them share, and others by their routes."""
        place = self.place
        self._memory = ShmTransport(
            self.endpoint,
            self.endpoint.poller,
            place=(memory, bell, place.spec.size, place.rank, place.incarnation),
            spin=place.spec.may_spin,
            call=lambda peer: self.tell("ring", peer),
            progress=self.endpoint.progress,
        )
        self.endpoint.use(Routes(self._memory, routes), self._memory.port, place.spec.share)
        self.endpoint.alert = self._memory.alert

    def _connect(self, peer: int) -> None:
        """Make a connection and let the supervisor hand its other end to the peer.

        What is sent now is with the kernel at once, so that it arrives however long this rank computes next.
        """
        ours, theirs = socket.socketpair()
        self._transport.adopt(peer, ours)
        with theirs:
            self._channel.send_now("connect", peer, fds=[theirs.fileno()])

    def _lost(self, peer: int, reason: str) -> None:
        if peer == DRIVER:
            os._exit(1)  # nobody is left who wants anything of this rank
        # The supervisor of a peer here knows better, and says so when it has seen the process end.
        if self.wires is None or not self.wires.ended(peer):
            self.tell("lost", peer, self.endpoint.incarnations[peer], reason)

    def _bury(self, peer: int, incarnation: int | None, what: str, orderly: bool) -> None:
        """Take note that a peer has ended; what it has sent from another host may come later than the news of that."""

        def bury() -> None:
            self.endpoint.mark_lost(peer, what, incarnation=incarnation, orderly=orderly)

        # Without an incarnation its whole host is lost, from which nothing comes.
        if incarnation is None or self.wires is None or not self.wires.outlast(peer, bury):
            bury()

    def _hear(self, _events: int) -> None:
        try:
            while (received := self._channel.receive()) is not None:
                self._obey(*received)
        except EOFError:
            os.kill(os.getpid(), signal.SIGKILL)  # as the leash does: without a supervisor there is no job

    def _obey(self, record: tuple[Any, ...], fds: list[int]) -> None:
        kind, *rest = record
        if kind == "connected":
            self.endpoint.mark_present(*rest)
            self._transport.adopt(rest[0], socket.socket(fileno=fds[0]))
        elif kind in {"accept", "dial", "offer"} and self.wires is not None:
            getattr(self.wires, kind)(*rest, *fds)
        elif kind == "bell":
            assert self._memory is not None  # noqa: S101 - who has none asks for no bell
            self._memory.learn_bell(rest[0], fds[0])
        elif kind == "present":
            self.endpoint.mark_present(*rest)
        elif kind == "gone":
            self._bury(*rest)
        elif kind == "abort":
            self._abort(*rest)
        elif kind == "mail":
            self._take_mail(rest[0])
        elif kind == "retire":
            self._retire()
        elif kind == "state":
            self._answer(*rest)
        elif kind == "relayed":
            self._relayed(*rest)

    def _answer(self, question: int, run: int, at_once: bool) -> None:
        """Tell the supervisor what this rank does; where it has nothing to do, not before it has."""
        if not self.running and self.run < run and not at_once:
            self._asked = question
        else:
            state = self._state(self.run if at_once and self.running else run)
            others = {} if self.wires is None else self.wires.exchanged()
            self.tell("state", question, state._replace(exchanged=others))

    def _state(self, run: int) -> RankState:
        rank = self.place.rank
        if not self.running:
            self.endpoint.take_in()
            if self.endpoint.has_duties:  # a call that was started here, and goes on all the same
                return describe_begin(rank)
            state = describe_idle(rank, self.balance()[0], self.endpoint.pending(), ended=self.run == run)
            return state._replace(steps=self.endpoint.room.steps)
        return describe_rank(self.endpoint, run) if self.run == run else describe_begin(rank)

    def _take_mail(self, mail: bytes) -> None:
        """Take a message that its sender, which has ended since, sent before this process came."""
        assert self.place.start is not None  # noqa: S101 - ranks of runs are all there when one begins
        context, source, tag, code, head, buffers = pickle.loads(mail)  # noqa: S301 - of a rank, as what others send is
        own = make_context(self.place.start.run) | context % make_context(1)  # the same communicator of this session
        self.endpoint.deliver(source, Message(own, source, tag, self.place.incarnation, code, head, buffers))
        self.endpoint.room.notify()

    def _refresh(self, peer: int, incarnation: int) -> None:
        """Take in what the supervisor has said, if the peer's occupant may have ended."""
        if (port := self.endpoint.port) is None or port.has_ended(peer, incarnation):
            self._hear(0)

    def _retire(self) -> None:
        """End as if the driver had closed the World: a process is to have this place."""
        self._retired = True
        self.endpoint.deliver(DRIVER, Message(CONTROL, DRIVER, CLOSE, self.place.incarnation, 0, b"", []))

    def _abort(self, run: int, rank: int | None, phrase: str) -> None:
        if self.running and self.run == run:
            self.endpoint.abort(phrase, rank)
            return
        self.aborted = max(self.aborted, run)
        self._tell_ended(run)

    def _tell_ended(self, run: int) -> None:
        """Tell that a run is over here, unless an interruption has spoilt the endpoint: then this process's end is."""
        if not self.endpoint.poisoned:
            self.tell("ended", run)


def _make_desk(endpoint: Endpoint, codec: Codec) -> Desk:
    """Let the objects of a World with hosts be used in this process."""
    from klyng_mp.objects.desk import Desk  # noqa: PLC0415 - only ranks of several hosts have one
    from klyng_mp.objects.shared import set_desk  # noqa: PLC0415 - likewise

    own = Codec(main_by_reference=codec.main_by_reference)  # what is put into them must not depend on a run
    desk = Desk(endpoint, own, directory=(DRIVER, 0))
    set_desk(desk)
    return desk
