"""What a rank is to be: everything that its process needs, fixed when its World is made.

Layer: launch; data only, so that any launcher, here or on another machine, can bring it to life.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.native import VARIABLE, core, is_wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.deadline import Deadline
    from klyng_mp.transports.contract import Transport

__all__ = ["BLAS_VARIABLES", "Network", "RankSpec", "Wires"]

BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_WARNING = 30  # logging.WARNING
_LIMITS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CORE,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_STACK,
)


class Wires(Protocol):
    """What leads from a rank, or the driver, to those on other hosts."""

    @property
    def transport(self) -> Transport:
        """What reaches them."""

    @property
    def dropped(self) -> int:
        """How many connections were turned away because too many were being proved."""

    def accept(self, source: int, fd: int) -> None:
        """Own the descriptor of a connection that somebody opened, who says to be ``source``."""

    def offer(self, number: int, fd: int) -> None:
        """Own the descriptor of a channel from the driver, which is on this host."""

    def claim(self, number: int, deadline: Deadline) -> Any:
        """Return the socket of a channel that the driver opens, once it is open; None: it is not until then."""

    def outlast(self, peer: int, action: Callable[[], None]) -> bool:
        """Do something when nothing more can come from a peer whose process has ended; False if that is so already."""

    def ended(self, peer: int) -> bool:
        """A connection has ended; tell whether somebody has waited for that."""

    def dial(self, peer: int) -> None:
        """Open a connection to a peer that wants one and is not to open it itself."""

    def exchanged(self) -> dict[int, tuple[int, int]]:
        """Return how many messages went to each rank there, and came from it, over the present connections."""


class Network(Protocol):
    """How the ranks of a World that spans hosts reach each other.

    Attributes:
        far_driver: whether the driver is on another host.
    """

    far_driver: bool

    def attach(self, endpoint: Endpoint, ask: Callable[[int], None]) -> Wires:
        """Return what leads from an endpoint of this process to others.

        Args:
            endpoint: the rank's, or the driver's.
            ask: has a peer open a connection to here.
        """


class RankSpec:
    """The surroundings of the ranks of one World, as they were in the driver at ``World()``.

    Attributes:
        size: number of ranks.
        share: those of them that are on this host.
        network: leads to the others; None where all are here.
        host: name of the machine, for labels and errors.
        incarnations: of those who were the last at places before, where ranks are started for a job that goes on.
        cwd, path, argv, umask: the driver's directory, ``sys.path``, ``sys.argv`` and file mode mask.
        environment: the whole environment of a rank.
        affinity: CPUs a rank may use.
        inherited_fds: descriptors of the driver's that its forked ranks keep, since its objects own them.
        limits: (resource, soft, hard) triples.
        blas_threads: threads that BLAS and OpenMP may use in one rank; None leaves them alone.
        may_spin: whether there is a CPU for each rank, so that one that waits a moment need not sleep.
        seed: base of every rank's random numbers, or None for numbers that cannot be foretold.
        main_by_reference: whether things of ``__main__`` are found in a rank by their name.
        by_mpi: whether MPI starts them, and moves their messages.
        preparation: what ``multiprocessing.spawn.prepare`` needs, where ranks import the main module.
        log_level: level of the root logger from which records are sent to the driver; None for none.
    """

    __slots__ = (
        "affinity", "argv", "blas_threads", "by_mpi", "cwd", "environment", "host", "incarnations", "inherited_fds",
        "limits", "log_level", "main_by_reference", "may_spin", "network", "path", "preparation", "seed", "share",
        "size", "umask",
    )  # fmt: skip

    def __init__(self, size: int, host: str) -> None:
        self.size = size
        self.share = range(size)
        self.network: Network | None = None
        self.host = host
        self.incarnations: dict[int, int] = {}
        self.cwd = os.getcwd()
        self.path = list(sys.path)
        self.argv = list(sys.argv)
        self.umask = _current_umask()
        self.environment = dict(os.environ)
        self.affinity = os.sched_getaffinity(0)
        self.limits = [(kind, *resource.getrlimit(kind)) for kind in _LIMITS]
        self.blas_threads: int | None = None
        self.may_spin = self.by_mpi = False
        self.seed: int | None = None
        self.main_by_reference = False
        self.inherited_fds: set[int] = set()
        self.preparation: dict[str, Any] | None = None
        # A driver that has not imported logging has left it as it is by default.
        logging = sys.modules.get("logging")
        self.log_level: int | None = logging.getLogger().getEffectiveLevel() if logging is not None else _WARNING

    @property
    def shares_memory(self) -> bool:
        """Whether the ranks of one host talk through shared memory, by the native core."""
        wanted = core is not None and is_wanted(self.environment.get(VARIABLE))
        return wanted and len(self.share) > 1 and self.size <= core.MAX_RANKS

    def share_cpus(self, cpus: int) -> None:
        """Share ``cpus`` among the ranks: their BLAS threads, unless the user has set them, and who may spin."""
        self.may_spin = len(self.share) <= cpus
        if any(name in self.environment for name in BLAS_VARIABLES):
            return
        self.blas_threads = max(1, cpus // len(self.share))
        self.environment.update((name, str(self.blas_threads)) for name in BLAS_VARIABLES)


def _current_umask() -> int:
    # os.umask can only be read by setting it, which other threads would see.
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
