"""cli.doctor: it tells what it finds, and calls what does not work a problem."""

from __future__ import annotations

import json

import pytest

from klyng_mp import native
from klyng_mp.cli import doctor, main

SOUND_TRIAL = {"works": True, "start_seconds": 0.01, "exchange_seconds": 0.001}


@pytest.fixture
def report():
    """Examine this machine, without starting ranks."""
    return {**doctor.examine(trial=False), "trial": SOUND_TRIAL}


def test_the_report_is_plain_data(report):
    assert json.loads(json.dumps(report)) == report
    assert report["versions"]["dill"]
    assert report["cpus"]["usable"] >= 1
    assert "RLIMIT_NOFILE" in report["limits"]
    assert report["transports"]
    assert report["native_core"] is (native.core is not None)


def test_the_text_has_every_fact(report):
    text = doctor.render(report)
    for word in ("klyng_mp", "Python", "kernel", "usable CPUs", "memory", "RLIMIT_NPROC", "/dev/shm", "transports"):
        assert any(line.startswith(word) for line in text.splitlines()), word
    assert ("locks            notice the death" in text) is (native.core is not None)
    assert ("native core      in use" if native.core is not None else "native core      not ") in text
    assert "two ranks        work: started and answered in 10.0 ms" in text
    assert "problem:" not in text


def test_the_text_says_why(report):
    report["cpus"] = {"usable": 2, "affinity": 8, "quota": 1.5, "quota_from": "/sys/fs/cgroup/job"}
    report["memory"] = {"total_bytes": 8 << 30, "limit_bytes": 1 << 30, "limit_from": "/sys/fs/cgroup/job"}
    report["shared_memory"] = None
    text = doctor.render(report)
    assert "2 (affinity 8 of " in text
    assert "cgroup quota 1.5 in /sys/fs/cgroup/job)" in text
    assert "1.0 GiB by cgroup, /sys/fs/cgroup/job (machine: 8.0 GiB)" in text
    assert "no /dev/shm" in text


@pytest.mark.parametrize(("wish", "why"), [("", "it was not built"), ("0", "KLYNG_MP_NATIVE=0")])
def test_it_is_said_why_the_core_is_not_in_use(report, monkeypatch, wish, why):
    monkeypatch.setenv("KLYNG_MP_NATIVE", wish)
    report["native_core"] = False
    assert f"not in use ({why}): ranks talk through sockets" in doctor.render(report)
    assert "locks            are the standard library's" in doctor.render(report)


def test_what_is_missing_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "installed_version", lambda name: None)
    monkeypatch.setattr("klyng_mp.transports.TRANSPORTS", {})
    monkeypatch.setattr("klyng_mp.machine.resource_limits", lambda: {"RLIMIT_NOFILE": (64, 128)})
    problems = doctor.examine(trial=False, root=str(tmp_path))["problems"]
    assert problems[0] == "dill is not installed: pip install dill"
    assert any(problem.startswith("no transport is there") for problem in problems)
    assert any("only 64 files may be open" in problem and "ulimit -n" in problem for problem in problems)


def test_a_world_that_does_not_start_is_a_problem(monkeypatch, capsys):
    class Broken:
        def __init__(self, size):
            raise OSError("no more processes")

    monkeypatch.setattr("klyng_mp.world.World", Broken)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "two ranks        do not work" in text
    assert text.endswith("problem: two ranks could not exchange a message: OSError: no more processes\n")


def test_wrong_answers_are_a_problem(monkeypatch):
    class Answers:
        def __init__(self, size):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def start(self, function):
            return self

        def result(self, timeout):
            return ["ping pong", "something else"]

    monkeypatch.setattr("klyng_mp.world.World", Answers)
    assert "something else" in doctor.examine()["problems"][-1]


def test_two_real_ranks():
    report = doctor.examine()
    assert report["trial"]["works"], report["trial"]
    assert report["problems"] == []


def test_versions_of_what_is_and_is_not_installed():
    assert doctor.installed_version("pytest") == pytest.__version__
    assert doctor.installed_version("no-such-distribution") is None
