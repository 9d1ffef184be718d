"""How the tests of this folder run a driver of a World on MPI: as a process of its own."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.mpiprograms import environment, launcher, run

BEGIN = """
import os, sys, time
import klyng_mp as mp

LAUNCHER = {launcher!r}

def ring(word):
    comm = mp.comm()
    comm.send((word, comm.rank), (comm.rank + 1) % comm.size, 1)
    return comm.recv((comm.rank - 1) % comm.size, 1)

def world(n=3, **more):
    return mp.World(n, engine="mpi", launcher=LAUNCHER, **more)
"""


def drive(python, body):
    """Run a driver; return its lines and then those of its ranks, and its standard error.

    Which of both comes first is the launcher's matter. The one begin with ``driver:``, the others with ``rank:``.
    """
    with TemporaryDirectory() as folder:
        own = {"TMPDIR": folder, "OMPI_MCA_btl_sm_backing_directory": folder}
        program = Path(folder) / "driver.py"
        program.write_text(BEGIN.format(launcher=launcher(python)) + body)
        done = run([python, str(program)], env=environment(**own))
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return [line for who in ("driver: ", "rank: ") for line in lines if line.startswith(who)], done.stderr
