"""The job of a World: its ranks, brought to life and, where they are lost, anew.

Layer: above run and launch, below world_context and world.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from klyng_mp.deadline import NEVER
from klyng_mp.errors import ClosedError, ForkedError, WorldError
from klyng_mp.launch.appmodules import AppModules
from klyng_mp.launch.job import LocalJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.world_hosts import WorldHosts
    from klyng_mp.run import Run

__all__ = ["Maker", "WorldJob"]


class Maker(Protocol):
    """What makes the job of a World."""

    def launch(self, spec: RankSpec, *, label: bool) -> Job:
        """Return the job of such ranks."""


class WorldJob:
    """What lies under a World: the processes of its ranks, and the run that they are in.

    Args:
        spec: what the ranks are to be.
        method: "zygote", "fork", "spawn" or "forkserver".
        preload: modules that the zygote imports before it forks.
        label: whether lines of output begin with their rank.
        hosts: where the ranks are; None for this machine.
        maker: what brings them to life, where that is neither this machine nor a beacon.
    """

    def __init__(
        self, spec: RankSpec, method: str, preload: Sequence[str], *, label: bool, hosts: WorldHosts | None = None,
        maker: Maker | None = None,
    ) -> None:  # fmt: skip
        self._spec = spec
        self._hosts = hosts
        self._maker = maker
        self._method = method
        self._preload = preload
        self._label = label
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._run_number = 0
        self._run: Run | None = None
        self._closed = False
        self._job: Job | None = None

    def _start_ranks(self) -> None:
        self._run_number = 0
        if self._maker is not None:
            job: Job = self._maker.launch(self._spec, label=self._label)
        elif self._hosts is None:
            job = LocalJob(self._spec, self._method, self._preload, label=self._label)
        else:
            job = self._hosts.launch(self._spec, label=self._label)
        self._job = job
        self._finalizer = weakref.finalize(self, type(job).dispose, job)
        self._finalizer.atexit = False  # the job's own exit function comes late enough for users' ones
        self._modules = AppModules()

    def _discard_job(self) -> None:
        if self._job is not None:
            self._finalizer()
            self._job = None

    def _kill_ranks(self, doing: str) -> None:
        job = self._job
        if job is not None:
            job.kill()
            job.wait_closed(NEVER, doing)
            self._discard_job()

    def _open_job(self) -> Job:
        """Return a job whose ranks can be spoken to; needs the lock."""
        if self._closed:
            raise ClosedError("this World is closed; make a new one")
        if os.getpid() != self._pid:
            raise ForkedError("this World belongs to the process that made it; make one in this child, too")
        job = self._job
        if job is not None and job.endpoint.poisoned:
            if self._run is not None:
                self._run.abandon("a signal handler raised while its messages were moved")
            job.lost = WorldError("the World is lost: a signal handler raised while its messages were moved")
        if job is not None and job.lost is None:
            job.endpoint.progress()
        if job is None or (job.lost is not None and not self._runs()):
            self._discard_job()
            self._start_ranks()
        assert self._job is not None  # noqa: S101 - _start_ranks makes one or raises
        return self._job

    def _runs(self) -> bool:
        """Whether a run goes on."""
        return self._run is not None and not self._run.done()
