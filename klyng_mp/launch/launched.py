"""How this process was started: whether a launcher of MPI did, and as which of how many.

Layer: launch; looks at the environment only, so that it costs nothing to ask.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Launched", "find_launcher", "hide_launcher", "leave_it_to_the_first"]

_PATIENCE_SECONDS = 2.0
_TAKEN = "KLYNG_MP_MPI_RANK"  # set in a rank, whose own children are none


class Launched(NamedTuple):
    """That a launcher has started this process.

    Attributes:
        launcher: its name for a sentence.
        rank, size: as it has numbered its processes.
    """

    launcher: str
    rank: int
    size: int


# Where each writes the rank and the number of ranks. Slurm's own come last: with a plugin for PMI it sets both. A batch
# script has SLURM_PROCID, too; only what srun starts has SLURM_STEP_NUM_TASKS.
_LAUNCHERS = (
    ("mpiexec", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("mpiexec", "PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, MVAPICH; srun --mpi=pmi2
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def find_launcher(environ: Mapping[str, str] = os.environ) -> Launched | None:
    """Return what has started this process as one rank of several, or None."""
    if _TAKEN in environ:
        return None
    for launcher, rank, size in _LAUNCHERS:
        if environ.get(rank, "").isdecimal() and environ.get(size, "").isdecimal():
            return Launched(launcher, int(environ[rank]), int(environ[size]))
    return None


def leave_it_to_the_first(launched: Launched) -> None:
    """In all ranks but the first: wait to be ended with it, which says what is wrong for all, and fails.

    Whichever fails first is the one that a launcher ends the others for, before they could speak. One that waits until
    all have ended by themselves is not kept waiting for long.
    """
    if launched.rank:
        time.sleep(_PATIENCE_SECONDS)


def hide_launcher(launched: Launched) -> None:
    """Let the processes that this one starts know that they are no ranks."""
    os.environ[_TAKEN] = str(launched.rank)
