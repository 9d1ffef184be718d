"""The main of a rank of a World that MPI has started: finds its driver, and serves it run after run.

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
from klyng_mp.cluster.member import Member
from klyng_mp.communicator.current import set_current
from klyng_mp.deadline import NEVER
from klyng_mp.launch.launched import Launched, hide_launcher
from klyng_mp.launch.rank import Server
from klyng_mp.launch.statistics import RankStatistics, collect
from klyng_mp.launch.surroundings import flush_streams
from klyng_mp.machine import hostname
from klyng_mp.transports.routes import Routes
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import CONTROL, DRIVER, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.communicator import Communicator
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.transports.secure import SecureSocket

__all__ = ["INVITATION", "TOLD", "Description", "main"]

INVITATION = "KLYNG_MP_JOB"
TOLD = "told"  # the tag of what a rank tells its driver besides answers


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
    link = WorldMember(world, spec, enter(description.invitations[rank]))
    server = Server(link, link, link.codec)
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
        driver: the connection to the driver.

    Attributes:
        spec: likewise.
        aborted: no run is ended early but with its ranks.
    """

    aborted = 0

    def __init__(self, world: Any, spec: RankSpec, driver: SecureSocket) -> None:
        super().__init__(world)
        self.spec = spec
        self.codec = Codec(main_by_reference=spec.main_by_reference)
        self._inside_ns = self._began_ns = 0
        endpoint = self.endpoint
        stream = StreamTransport(endpoint, endpoint.poller, connect=lambda _peer: None)
        endpoint.use(Routes(endpoint.transport, {DRIVER: stream}))
        with endpoint.lock:
            stream.adopt(DRIVER, driver)
        self.tell("here", hostname())

    def begin(self, run: int = 1) -> Communicator:
        """See `Member.begin`."""
        self._began_ns = perf_counter_ns()
        return super().begin(run)

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
