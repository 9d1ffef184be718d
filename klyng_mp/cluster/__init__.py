"""Ranks that MPI has brought to life: programs started by ``mpiexec``, ``mpirun`` or ``srun``.

Layer: cluster, above launch. `member` is a rank's place in its job, with short ways (`lane`) over
`klyng_mp.transports.mpi`; `vigil` finds ranks that wait for each other; `shell` runs a program. Nothing here is
imported before it is known that MPI is wanted (`klyng_mp.launch.launched`).
"""

from __future__ import annotations

__all__: list[str] = []
