"""cluster.engine: what a World on MPI may be asked for."""

from __future__ import annotations

import pytest

import klyng_mp as mp
from klyng_mp.cluster.engine import Engine

NOTHING = {"method": None, "preload": (), "hosts": None, "green": False, "schedule": None, "label": False}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("method", "fork", "MPI's launcher brings the ranks to life"),
        ("preload", ["json"], "import in the function that runs"),
        ("hosts", ["local"], "name them in launcher="),
        ("green", True, "green ranks are no processes"),
        ("schedule", 0, "it is for green ranks"),
        ("label", True, "which may have an option for it"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(name, value, why):
    with pytest.raises(ValueError, match=f"{name}= has no meaning with engine='mpi': .*{why}"):
        mp.World(2, engine="mpi", **{name: value})


@pytest.mark.parametrize("engine", ["MPI", "", 5])
def test_another_engine_is_refused(engine):
    with pytest.raises(ValueError, match="engine must be 'mpi' or None"):
        mp.World(2, engine=engine)


def test_a_launcher_without_an_engine_is_refused():
    with pytest.raises(ValueError, match="give engine='mpi', too"):
        mp.World(2, launcher=["mpiexec"])


@pytest.mark.parametrize("launcher", ["mpiexec -n 4", [], ["mpiexec", 4]])
def test_a_launcher_is_the_words_of_a_command(launcher):
    with pytest.raises(TypeError, match="launcher needs the words of a command"):
        mp.World(2, engine="mpi", launcher=launcher)


def test_a_launcher_that_is_not_there_is_named_and_leaves_nothing():
    with pytest.raises(mp.LaunchError, match="no-such-mpiexec could not be started: No such file or directory; give"):
        mp.World(2, engine="mpi", launcher=["no-such-mpiexec", "-n", "{n}"])


def test_the_usual_launcher_is_mpis_or_slurms(monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert Engine("mpi", None, **NOTHING).command == ["mpiexec", "-n", "{n}"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Engine("mpi", None, **NOTHING).command == ["srun", "-n", "{n}"]
