"""The main of a rank of a World that MPI has started: finds its driver and serves it, run after run.

Layer: cluster. How the driver is reached is in the environment, which launchers pass on; there rank 0 fetches what all
are to be, and MPI brings it to them.
"""

from __future__ import annotations

import os
import pickle
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.cluster.door import Invitation, enter, fetch
from klyng_mp.cluster.ear import Ear
from klyng_mp.cluster.guest import Guest
from klyng_mp.cluster.member import Member
from klyng_mp.communicator.current import set_current
from klyng_mp.deadline import NEVER
from klyng_mp.launch.launched import Launched, hide_launcher
from klyng_mp.launch.rank import Server
from klyng_mp.launch.started import rebuild_process, tied
from klyng_mp.launch.statistics import RankStatistics, collect
from klyng_mp.launch.surroundings import flush_streams, seed_random_numbers
from klyng_mp.launch.task import read_task, write_copy
from klyng_mp.machine import hostname
from klyng_mp.transports.routes import Routes
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, DRIVER, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from klyng_mp.communicator.communicator import Communicator
    from klyng_mp.deadline import Deadline
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.transports.secure import SecureSocket
    from klyng_mp.wire.frames import Part

__all__ = ["INVITATION", "PROCESS", "SESSION", "SIGNAL", "TOLD", "Description", "main"]

INVITATION = "KLYNG_MP_JOB"
# The tags of what a rank tells its driver besides answers; and of what it is told: that a session begins, that a
# process is its guest, and that this one gets a signal.
TOLD, SESSION, PROCESS, SIGNAL = "told", "session", "process", "signal"
_CAME = "came"  # and of what a rank tells the others when it has a guest


class Description(NamedTuple):
    """What the ranks are told of their World.

    Attributes:
        spec: their surroundings.
        launcher: the command's name.
        invitations: how the driver is reached, by rank.
    """

    spec: RankSpec
    launcher: str
    invitations: list[Invitation]


def main() -> None:
    """Be a rank until the driver asks to close, or is gone."""
    from mpi4py import MPI  # noqa: PLC0415 - to import it is to start MPI

    world = MPI.COMM_WORLD
    rank = world.Get_rank()
    packed = world.bcast(_fetch() if rank == 0 else None)
    if packed is None:  # and rank 0 has said why
        sys.exit(1)
    description: Description = pickle.loads(packed)  # noqa: S301 - from the driver, which this process serves
    spec = description.spec
    if world.Get_size() != spec.size:
        if rank == 0:
            print(
                f"klyng_mp: {description.launcher} has started {world.Get_size()} ranks for a World of {spec.size}: "
                "write {n} in launcher= where the number belongs; and it must be of the MPI that mpi4py uses",
                file=sys.stderr,
            )
        sys.exit(1)
    hide_launcher(Launched(description.launcher, rank, spec.size))
    _adopt(spec)
    link = WorldMember(world, spec, description.invitations[rank])
    server = WorldServer(link)
    server.forward_logs()
    server.serve()
    server.say_goodbye()


def _fetch() -> bytes | None:
    """Return what all ranks are to be, or say why that is not to be had."""
    invitation = os.environ.pop(INVITATION, None)
    why = f"{INVITATION} is not in its environment; Open MPI passes it on to other nodes by -x {INVITATION}"
    if invitation is not None:
        try:
            return fetch(Invitation.unpack(invitation))
        except OSError as error:
            why = str(error)
    print(f"klyng_mp: rank 0 has not found its driver: {why}", file=sys.stderr)
    return None


def _adopt(spec: RankSpec) -> None:
    """Take on the driver's surroundings, but for what the launcher has decided."""
    os.environ.pop(INVITATION, None)
    os.chdir(spec.cwd)
    os.umask(spec.umask)
    sys.path[:] = spec.path
    sys.argv[:] = spec.argv


class WorldMember(Member):
    """A rank's place in a World: as in any job of MPI's, with a driver besides.

    Args:
        world: MPI's communicator of all ranks.
        spec: what the rank is to be.
        invitation: how the driver is reached.

    Attributes:
        spec: likewise.
        aborted: no run is ended early but with its ranks.
        wires: lead to the driver.
    """

    aborted = 0

    def __init__(self, world: Any, spec: RankSpec, invitation: Invitation) -> None:
        super().__init__(world)
        self.spec = spec
        self.codec = Codec(main_by_reference=spec.main_by_reference)
        self.wires = _Wires(invitation)
        self._guest: Guest | None = None
        self._latest = 0  # of the guests that were here
        self._early: dict[int, list[int]] = {}  # signals of those that are about to come
        self._inside_ns = self._began_ns = 0
        endpoint = self.endpoint
        ear = Ear(endpoint, SIGNAL, self._hear_signal)
        stream = StreamTransport(ear, endpoint.poller, connect=lambda _peer: None)
        endpoint.use(Routes(endpoint.transport, {DRIVER: stream}))
        with endpoint.lock:
            stream.adopt(DRIVER, enter(invitation))
        self.tell("here", hostname(), os.getpid())

    def begin(self, run: int = 1, *, is_watched: bool = True) -> Communicator:
        """See `Member.begin`."""
        self._began_ns = perf_counter_ns()
        comm = super().begin(run, is_watched=is_watched)
        for peer in self._others():
            self.endpoint.mark_present(peer, 0)
        return comm

    def host(self, serial: int, task: Part, files: Iterable[Part]) -> None:
        """Have a process as a guest, until it ends; tell the driver.

        Args:
            serial: its number in the World.
            task: what it is to do, as `klyng_mp.launch.task` has it.
            files: the contents of those that come along.
        """
        if self.spec.seed is not None:
            seed_random_numbers(self.spec.seed, -serial, self.rank)
        endpoint = self.endpoint
        self._began_ns = perf_counter_ns()
        with endpoint.lock:
            self._guest = guest = Guest(serial, endpoint.room)
            self._latest = serial
            for signum in self._early.pop(serial, ()):
                guest.signal(signum)
            for peer in self._others():
                endpoint.transport.tell(peer, _CAME)
        endpoint.attend()  # so that its signals are heard while it computes
        with tied(self):
            process = rebuild_process(read_task(write_copy(task)), [write_copy(file) for file in files])
            code = 1 if process is None else guest.live(process)
        self._guest = None
        endpoint.room.dismiss_attendant()  # or each wait from now on would send it away and call it
        self.finish()
        with endpoint.lock:
            for peer in self._others():
                endpoint.transport.say_goodbye(peer)
        self.tell("ended", serial, code)

    def tell_with(self, kind: str, fd: int) -> None:
        """See `klyng_mp.launch.started.Ties`: when a guest is lost, so is the World, and nothing of it is asked for."""

    def _others(self) -> Iterator[int]:
        return (peer for peer in range(self.size) if peer != self.rank)

    def _hear(self, message: Message) -> None:
        if message.tag == _CAME:
            self.endpoint.transport.keep(message.source)
            self.endpoint.mark_present(message.source, 0)
        else:
            super()._hear(message)

    def _hear_signal(self, message: Message) -> None:
        serial, signum = self.codec.decode(message.code, message.head, message.buffers)
        if self._guest is not None and self._guest.serial == serial:
            self._guest.signal(signum)
        elif serial > self._latest:
            self._early.setdefault(serial, []).append(signum)

    def finish(self) -> None:
        """See `Member.finish`."""
        super().finish()
        self._inside_ns += perf_counter_ns() - self._began_ns

    def tell(self, *record: Any) -> None:
        """See `klyng_mp.launch.rank.Link.tell`: the driver is told."""
        message = Message(CONTROL, self.rank, TOLD, 0, *self.codec.encode(record))
        self.endpoint.start_send(DRIVER, message)

    def meet(self, incarnations: dict[int, int]) -> None:
        """See `klyng_mp.launch.rank.Link.meet`; no place is ever another's."""

    def balance(self) -> tuple[dict[int, int], int]:
        """See `klyng_mp.launch.rank.Link.balance`."""
        sent = self.endpoint.sent_counts()
        sent.pop(DRIVER, None)
        return sent, self.endpoint.mailbox.taken(self.run)

    def statistics(self) -> RankStatistics:
        """See `klyng_mp.launch.rank.Link.statistics`."""
        return collect(self.endpoint, self._inside_ns)

    def give_up(self, cause: Cause) -> None:
        """See `Member.give_up`: the driver says it."""
        self.tell("deadlock", self.run, cause.text, cause.cycle)

    def say_goodbye(self, report: Callable[[], tuple[Any, ...]]) -> None:
        """See `klyng_mp.launch.rank.Link.say_goodbye`; the launcher tells the driver of the end."""
        del report
        flush_streams()
        self.endpoint.flush(NEVER)
        self.endpoint.close()
        set_current(None)

    def _lost(self, peer: int, reason: str) -> None:
        if peer == DRIVER:
            self.abort(1)  # nobody is left who wants anything of these ranks
        super()._lost(peer, reason)


class _Wires:
    """What leads to the driver: a channel is a connection of its own."""

    def __init__(self, invitation: Invitation) -> None:
        self._invitation = invitation

    def claim(self, number: int, deadline: Deadline) -> SecureSocket:
        """Return the socket of a channel; see `klyng_mp.launch.started.claim_channel`.

        Raises:
            OSError: the driver is not to be reached.
        """
        del deadline  # connecting has its own
        return enter(self._invitation, number)


class WorldServer(Server):
    """What a rank does that MPI has started; see `Server`."""

    _link: WorldMember

    def __init__(self, link: WorldMember) -> None:
        super().__init__(link, link, link.codec)

    def _obey(self, tag: str, message: Message) -> None:
        if tag == SESSION:  # all ranks begin it, also those that have no guest
            run = self._codec.decode(message.code, message.head, message.buffers)
            self._link.begin(run, is_watched=False)
        elif tag == PROCESS:
            serial = self._codec.decode(message.code, message.head, ())
            task, *files = message.buffers
            self._link.host(serial, task, files)
        else:
            super()._obey(tag, message)
