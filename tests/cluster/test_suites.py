"""Over the real MPI every contract is kept: transport, communicator, collectives, probing, synchronous, awaiting."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.mpiprograms import each_mpi, mpiexec

pytestmark = pytest.mark.slow


@each_mpi
def test_everything_keeps_its_contract(python, tmp_path):
    words = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", "-m", "not soak", "mpi_contracts.py"]
    done = mpiexec(python, 1, *words, module="pytest", cwd=Path(__file__).parent, timeout=110)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
