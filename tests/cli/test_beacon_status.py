"""cli.beacon_status: how a beacon's status reads."""

from __future__ import annotations

import json

import pytest

import klyng_mp as mp
from klyng_mp.cli.beacon_status import running_beacon, show_state, show_status
from klyng_mp.remote.home import Home
from klyng_mp.remote.running import RunState

STATE = RunState(4711, "1@boot", "127.0.0.1", 2222, "SHA256:abc")
JOB = {
    "id": bytes.fromhex("1a2b3c4d") * 4,
    "owner": "",
    "method": "password",
    "address": "10.0.0.7",
    "ranks": 2,
    "troubles": 0,
    "trouble": "",
}
ENDED = {"ago_seconds": 90, "lasted_ms": 2_500, "outcome": "finished", "reason": "", "limit": None}
SAID = {
    "versions": {"python": "3.11", "klyng_mp": "0.1.0"},
    "cpus": 4,
    "ranks": 2,
    "max_ranks": 256,
    "load_percent": 120,
    "jobs": [JOB | {"age_seconds": 61}],
    "ended": [
        JOB | ENDED,
        JOB
        | ENDED
        | {
            "owner": "me@laptop",
            "method": "key",
            "outcome": "limit",
            "reason": "the job has lasted 60 s",
            "limit": "max_job_seconds",
            "troubles": 2,
            "trouble": "rank 1 raised ValueError",
        },
    ],
}
SHOWN = """\
2 of 256 ranks, load 1.20 on 4 CPUs
python 3.11, klyng_mp 0.1.0
job 1a2b3c4d: 2 ranks for password from 10.0.0.7, for 0:01:01
job 1a2b3c4d: 2 ranks for password from 10.0.0.7, finished 0:01:30 ago, after 2.5 s
    its ranks have ended, as its client wanted
job 1a2b3c4d: 2 ranks for me@laptop (key) from 10.0.0.7, limit 0:01:30 ago, after 2.5 s
    limit max_job_seconds
    the job has lasted 60 s
    2 runs were ended early, the last by this: rank 1 raised ValueError"""


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def test_as_text(home):
    state = show_state(STATE, home, made_password=False)
    assert state.splitlines()[:2] == ["beacon at 127.0.0.1:2222, process 4711", "fingerprint SHA256:abc"]
    assert show_status(STATE, SAID, home, as_json=False) == f"{state}\n{SHOWN}"
    assert "beacon at [::1]:2222, process" in show_state(STATE._replace(address="::1"), home, made_password=True)
    assert f"password in {home.password} (made now), log in {home.log}" in show_state(STATE, home, made_password=True)


def test_as_json(home):
    said = json.loads(show_status(STATE, SAID, home, as_json=True))
    assert said["pid"] == 4711
    assert [job["id"] for job in said["jobs"] + said["ended"]] == ["1a2b3c4d" * 4] * 3
    assert said["ended"][1]["limit"] == "max_job_seconds"


def test_where_no_beacon_runs(home):
    with pytest.raises(mp.BeaconError, match=r"start one \(klyng-mp beacon up\)"):
        running_beacon(home)
