"""launch.launched: what a launcher of MPI leaves in the environment is recognised, once."""

from __future__ import annotations

import os

import pytest

from klyng_mp.launch.launched import Launched, find_launcher, hide_launcher


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "2"}, Launched("mpiexec", 2, 4)),
        ({"PMI_RANK": "0", "PMI_SIZE": "8"}, Launched("mpiexec", 0, 8)),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "PMIX_RANK": "3"}, Launched("srun", 3, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, None),  # a batch script, which starts ranks
        ({"PMI_RANK": "0"}, None),
        ({"PMI_RANK": "zero", "PMI_SIZE": "8"}, None),
        ({}, None),
    ],
    ids=["open mpi", "mpich", "srun", "sbatch", "half", "nonsense", "nothing"],
)
def test_a_launcher_is_found_by_what_it_sets(environ, found):
    assert find_launcher(environ) == found


def test_the_children_of_a_rank_are_no_ranks(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("KLYNG_MP_MPI_RANK", "")  # so that it is put back
    monkeypatch.delenv("KLYNG_MP_MPI_RANK")
    launched = find_launcher()
    assert launched == Launched("mpiexec", 1, 2)
    hide_launcher(launched)
    assert find_launcher() is None
    assert os.environ["PMI_RANK"] == "1"  # MPI itself needs it
