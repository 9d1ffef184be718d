"""What ``World(engine="mpi", launcher=...)`` asks for.

Layer: cluster; the only part that World knows.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec

__all__ = ["Engine"]

_MEANINGLESS = {
    "method": "MPI's launcher brings the ranks to life",
    "preload": "import in the function that runs",
    "hosts": "MPI's launcher decides where the ranks are: name them in launcher=",
    "green": "green ranks are no processes",
    "schedule": "it is for green ranks",
    "label": "what ranks print goes by MPI's launcher, which may have an option for it (-l, --tag-output)",
}


class Engine:
    """What a World on MPI is asked for.

    Args:
        engine: ``World``'s.
        launcher: likewise.
        others: those of its arguments that have no meaning here.

    Attributes:
        command: the words that start the ranks, with ``{n}`` for their number.

    Raises:
        TypeError, ValueError: an argument is not what it should be, or has no meaning here.
    """

    def __init__(self, engine: str | None, launcher: Sequence[str] | None, **others: Any) -> None:
        if engine is None:
            raise ValueError("launcher= is for ranks that MPI starts: give engine='mpi', too")
        if engine != "mpi":
            raise ValueError(f"engine must be 'mpi' or None, not {engine!r}")
        for name, why in _MEANINGLESS.items():
            if others[name] or (name == "schedule" and others[name] is not None):
                raise ValueError(f"{name}= has no meaning with engine='mpi': {why}")
        if launcher is None:
            by_slurm = "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None
            launcher = ["srun", "-n", "{n}"] if by_slurm else ["mpiexec", "-n", "{n}"]
        if isinstance(launcher, str) or not all(isinstance(word, str) for word in launcher) or not launcher:
            raise TypeError(
                f"launcher needs the words of a command, for instance ['mpiexec', '-n', '{{n}}'], not {launcher!r}"
            )
        self.command = list(launcher)

    def launch(self, spec: RankSpec, *, label: bool) -> Job:
        """Return the job of such ranks.

        Raises:
            LaunchError: there is no such launcher.
        """
        del label  # it was refused
        from klyng_mp.cluster.job import MpiJob  # noqa: PLC0415 - imports TLS

        return MpiJob(spec, self.command)
