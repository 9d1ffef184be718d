"""A World as a multiprocessing context: the processes that are started from it, and the places that they hold.

Layer: above context, below world, which is one. It starts processes, and knows who holds which place; of runs it knows
only what world tells it.

A *session* is the time from a process that takes a place until none holds any. All processes of a session have
communicators of one context, so they can send to each other; it has a number among the World's runs, so that what is
left of it cannot be received in a run, or in the next session.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from functools import cached_property
from multiprocessing.process import active_children, current_process
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.context import BaseContext
from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, KlyngError, LaunchError, WorldBusyError
from klyng_mp.launch.driver import Order
from klyng_mp.launch.surroundings import NO_RANK
from klyng_mp.launch.task import Task, write_task
from klyng_mp.objects.passing import gather_ends, promise_ends
from klyng_mp.process import take_apart
from klyng_mp.reduction import make_codec
from klyng_mp.wire.frames import FIRST_CHANNEL
from klyng_mp.world_job import WorldJob
from klyng_mp.world_objects import WorldObjects
from klyng_mp.world_process import WorldProcess, bind, is_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.popen_zygote import Popen
    from klyng_mp.remote.world_hosts import WorldHosts
    from klyng_mp.wire.codec import Codec
    from klyng_mp.world_job import Maker

__all__ = ["WorldContext"]


class WorldContext(WorldObjects, WorldJob, BaseContext):
    """What a World is to multiprocessing: everything that `klyng_mp.get_context` offers, with start method "zygote"."""

    _name = "zygote"

    def __init__(
        self, spec: RankSpec, method: str, preload: Sequence[str], *, label: bool, hosts: WorldHosts | None = None,
        maker: Maker | None = None,
    ) -> None:  # fmt: skip
        super().__init__(spec, method, preload, label=label, hosts=hosts, maker=maker)
        self._started: dict[Popen, tuple[str, int]] = {}  # name and place of those whose end is not known
        self._session = 0  # the number of the one that goes on, or 0
        self._sessions = 0  # how many numbers they have had that are no runs'
        self._packing = threading.Lock()
        self._channels = FIRST_CHANNEL
        self._pump: threading.Thread | None = None

    @cached_property
    def Process(self) -> type[WorldProcess]:
        """The class of the processes that this World starts; see ``multiprocessing.Process``."""
        self._be_context()
        return bind(self)

    def get_context(self, method: str | None = None) -> Any:
        """Return this World, or the context of another start method."""
        self._be_context()
        return self if method == self._name else super().get_context(method)

    def get_start_method(self, allow_none: bool = False) -> str:
        """Return "zygote"."""
        del allow_none
        self._be_context()
        return self._name

    def _be_context(self) -> None:
        """Let things of ``__main__`` travel by value from now on, also what a pool or queue of it is going to send."""
        _ = self._task_codec

    def __reduce__(self) -> NoReturn:
        raise TypeError("a World belongs to the process that made it; other processes are sent what they need of it")

    def _start_ranks(self) -> None:
        self._session = self._sessions = 0
        super()._start_ranks()
        self._serve_objects()

    # What the class of its processes calls; see `Starter`

    def start_process(self, process_obj: Any, popen: Popen) -> tuple[int, int, int | None]:
        """Start the process of a process object; see `Job.start_process` for what is returned.

        Raises:
            ClosedError: the World is closed.
            CodecError: the target or an argument cannot travel; nothing was started.
            LaunchError: there is no room for another process, or in a World that is spread no free place.
            NotAcrossHostsError: it is started with something that cannot leave this machine; nothing was started.
        """
        wants_rank = not is_server(process_obj)
        with gather_ends() as ends:
            task, fds = popen.gather(lambda: self._pack(process_obj), is_spread=self.is_spread)
        try:
            with self._lock:
                job = self._open_job()
                rank, reason = self._find_place(job) if wants_rank else (NO_RANK, "servers of managers never have one")
                if rank == NO_RANK and job.is_spread:
                    what = f"{process_obj.name} cannot be started, since it would have no rank"
                    raise LaunchError(f"{what}, which it needs where ranks may be on other hosts: {reason}")
                order = Order(process_obj.name, self._run_number, rank, reason)
                with promise_ends(ends, [(rank, job.incarnations.get(rank, 0))]):
                    serial, pid, pidfd = job.start_process(order, task, popen.exit_pipe, fds)
                self._started[popen] = process_obj.name, rank
                if job.forwards_output and not job.is_spread:
                    self._forward_output(job)
        finally:
            os.close(task)
        return serial, pid, pidfd

    def see_out(self, popen: Popen) -> None:
        """Take note that a process has ended; all that it has printed has been written when this returns."""
        self._started.pop(popen, None)
        if (job := self._job) is not None and job.forwards_output:
            with suppress(KlyngError):  # the World is lost or closed: nothing more comes
                job.flush()
            job.endpoint.progress()  # who forwards output may have nothing to do any more

    def signal_process(self, serial: int, signum: int) -> None:
        """Send a signal to a process that was started, if it lives, or with serial 0 to all of them."""
        if self._job is not None:
            self._job.signal_process(serial, signum)

    # What a pool of it calls; see `klyng_mp.pooling.farways.Dialler`

    @property
    def is_spread(self) -> bool:
        """Whether some of its ranks are on other machines, or may be."""
        return self._hosts is not None or self._spec.by_mpi

    @property
    def has_guests(self) -> bool:
        """Whether a process that is started is a guest in a rank, which goes on after it."""
        return self._spec.by_mpi

    def next_channel(self) -> int:
        """Return a number that no channel has had."""
        self._channels += 1
        return self._channels

    def dial(self, process: Any, number: int, opened: Callable[[Any, str], None]) -> None:
        """Open a channel to a process that was started; see `Job.open_channel`."""
        place = self._started.get(process._popen)
        if place is None or self._job is None:
            opened(None, "has ended")
        else:
            self._job.open_channel(place[1], number, opened)

    def left_by(self, process: Any) -> bytes:
        """Return what a process that has ended has left, once; see `Job.take_left`."""
        return b"" if self._job is None else self._job.take_left(process._popen.serial)

    def place_of(self, process: Any) -> tuple[int, str]:
        """Return the rank and the host of a process that was started and lives, or -1."""
        place = self._started.get(process._popen)
        return (-1, "") if place is None or self._job is None else (place[1], self._job.host_of(place[1]))

    def loss_of(self, rank: int) -> str:
        """Return why the host of a rank is lost, or an empty text."""
        job = self._job
        lost = None if job is None else job.unreachable.get(rank) or job.lost
        return "" if lost is None else str(lost)

    def has_place(self) -> bool:
        """Whether another process could be started now.

        Raises:
            ClosedError: the World is closed.
            WorldError: it is lost.
        """
        with self._lock:
            job = self._job
            if job is None or job.lost is not None:
                raise (None if job is None else job.lost) or ClosedError("the World of this Pool is closed")
            return not self._runs() and len(self._holders().keys() | job.unreachable.keys()) < self._spec.size

    # Places

    def _holders(self) -> dict[int, str]:
        """Return the names of the processes that hold places, by rank."""
        for popen in list(self._started):
            popen.poll()
        return {rank: name for name, rank in sorted(self._started.values(), key=lambda one: one[1]) if rank != NO_RANK}

    def _check_places(self) -> None:
        """Raise WorldBusyError if processes hold places."""
        if holders := self._holders():
            raise WorldBusyError(f"{describe_holders(holders)}: join() or terminate() them first", holders)

    def _check_started(self) -> None:
        """Raise WorldBusyError if any process lives that was started."""
        self._check_places()
        if names := [name for name, _ in self._started.values()]:
            raise WorldBusyError(f"{', '.join(names)} of this World still run: join() or terminate() them first")

    def _find_place(self, job: Job) -> tuple[int, str]:
        """Return the lowest place that is free, or NO_RANK and the reason; needs the lock."""
        if self._runs():
            return NO_RANK, "a run was going on when it was started"
        held = self._holders()
        free = next((rank for rank in range(self._spec.size) if rank not in held | job.unreachable), None)
        if free is None:
            places = f"all {self._spec.size} places" if self._spec.size > 1 else "the only place"
            why = next((f", or are not there: {lost}" for lost in job.unreachable.values()), "")
            return NO_RANK, f"{places} of its World were held when it was started{why}"
        if not held:
            self._run_number += 1
            self._sessions += 1
            self._session = self._run_number
        return free, ""

    def _end_session(self, job: Job, *, renew: bool = False) -> None:
        """Give the places that processes have had to warm ranks again; ``renew`` replaces the other ranks, too."""
        if self._session or renew:
            job.refill(self._run_number, renew=renew)
            self._session = 0

    # Inside

    def _pack(self, process_obj: Any) -> int:
        """Return a process object as a file in memory."""
        util = sys.modules["multiprocessing.util"]
        logger = util._logger
        with self._packing:
            work = self._task_codec.encode_run(take_apart(process_obj), name=process_obj.name)
            return write_task(
                Task(
                    name=process_obj.name,
                    by_reference=self._spec.main_by_reference,
                    authkey=bytes(current_process().authkey),
                    log_level=None if logger is None else logger.getEffectiveLevel(),
                    log_to_stderr=util._log_to_stderr,
                    work=work,
                )
            )

    @cached_property
    def _task_codec(self) -> Codec:
        return make_codec(main_by_reference=self._spec.main_by_reference)

    def _forward_output(self, job: Job) -> None:
        """Have the output of processes written while this thread may wait for anything; needs the lock."""
        if self._pump is None or not self._pump.is_alive():
            started = self._started
            self._pump = threading.Thread(target=_pump, args=(job, started), name="klyng output", daemon=True)
            self._pump.start()

    def _see_all_out(self) -> None:
        """Terminate the daemonic processes and wait for the others, as multiprocessing does at the end of a program."""
        children = [child for child in active_children() if getattr(child, "_popen", None) in self._started]
        for child in children:
            if child.daemon:
                child.terminate()
        for child in children:
            child.join()


def _pump(job: Job, started: dict[Popen, tuple[str, int]]) -> None:
    with suppress(KlyngError):
        job.wait(lambda: not started, NEVER, "forwarding the output of processes")


def describe_holders(holders: dict[int, str]) -> str:
    """Return a phrase that says which processes hold which places."""
    named = ", ".join(f"{name} (rank {rank})" for rank, name in holders.items())
    many = len(holders) > 1
    return f"process{'es' if many else ''} {named} hold{'' if many else 's'} place{'s' if many else ''} of this World"
