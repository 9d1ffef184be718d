"""history: what a beacon tells of its jobs, by itself and of a beacon that runs."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest
from beacons import Beacon
from drivers import Driver
from programs import wait_until

import klyng_mp as mp
from klyng_mp.cli.beacon_status import ask
from klyng_mp.remote.history import (
    KEPT_JOBS,
    LISTED_JOBS,
    LOGGED_TROUBLES,
    OUTCOMES,
    Course,
    JobHistory,
    Origin,
    Verdict,
    say_duration,
)
from klyng_mp.remote.home import Home
from klyng_mp.remote.protocol import KINDS
from klyng_mp.remote.running import find_beacon
from klyng_mp.remote.schema import fit, write_json

pytestmark = pytest.mark.slow

KEY = Origin("ada@box", "key", "10.0.0.7")
PASSWORD = Origin("", "password", "::1")


@pytest.fixture
def history():
    return JobHistory()


def test_a_job_runs_and_then_has_ended(history):
    entry = history.begin(b"j" * 16, KEY, 3, 100.0)
    assert str(entry) == "job 6a6a6a6a of ada@box (key) from 10.0.0.7"
    (running,) = history.running(160.5)
    assert running == {
        "id": b"j" * 16,
        "owner": "ada@box",
        "method": "key",
        "address": "10.0.0.7",
        "ranks": 3,
        "troubles": 0,
        "trouble": "",
        "age_seconds": 60,
    }
    line = history.end(entry, Verdict("limit", "too long", "max_job_seconds"), 165.25)
    assert line == f"{entry} ended after 0:01:05: limit (max_job_seconds): too long"
    assert history.running(170.0) == []
    (ended,) = history.ended(170.0)
    assert ended == {name: value for name, value in running.items() if name != "age_seconds"} | {
        "ago_seconds": 4,
        "lasted_ms": 65250,
        "outcome": "limit",
        "reason": "too long",
        "limit": "max_job_seconds",
    }


def test_what_is_told_first_of_its_end_holds(history):
    entry = history.begin(b"j" * 16, PASSWORD, 3, 1.0)
    assert history.end(entry, Verdict("finished"), 2.0) == f"{entry} ended after 1 s: finished"
    assert history.end(entry, Verdict("killed"), 3.0) is None
    assert [one["outcome"] for one in history.ended(4.0)] == ["finished"]


def test_a_refusal_says_how_many_ranks_were_wanted(history):
    entry = history.begin(b"j" * 16, PASSWORD, 300, 1.0)
    line = history.end(entry, Verdict("refused", "it takes 256", "max_ranks"), 1.0)
    assert line == "job 6a6a6a6a of password from ::1 (300 ranks) was refused (max_ranks): it takes 256"


def test_troubles_are_counted_and_few_of_them_logged(history):
    entry = history.begin(b"j" * 16, KEY, 3, 1.0)
    logged = [entry.note(f"rank {number} raised E", None) for number in range(LOGGED_TROUBLES + 5)]
    assert logged == [True] * LOGGED_TROUBLES + [False] * 5
    entry.note("rank 1 raised MemoryError", "max_rank_memory_bytes")
    entry.note("rank 2 raised E", None)
    assert history.end(entry, Verdict("finished"), 2.0).endswith(
        f"finished; its runs had {LOGGED_TROUBLES + 7} troubles"
    )
    (ended,) = history.ended(2.0)
    assert (ended["trouble"], ended["limit"]) == ("rank 2 raised E", "max_rank_memory_bytes")


def test_what_a_program_has_called_an_exception_reaches_neither_log_nor_terminal(history):
    entry = history.begin(b"j" * 16, KEY, 3, 1.0)
    entry.note("rank 1 raised \x1b[2J\nroot logged in" + "x" * 1000, None)
    assert entry.trouble.startswith("rank 1 raised \ufffd[2J\ufffdroot")
    assert len(entry.trouble.encode()) == 300
    line = history.end(entry, Verdict("failed", "a\nb" * 1000), 2.0)
    assert "\n" not in line
    assert len(line) < 800


def test_it_is_bounded_and_a_status_of_it_fits_into_a_frame(history):
    worst = Origin('"' * 128, "password", "\\" * 128)
    for number in range(LISTED_JOBS + KEPT_JOBS + 10):
        entry = history.begin(number.to_bytes(16, "big"), worst, 1 << 20, 1.0)
        entry.note("\u20ac" * 300, "l" * 128)
        if number < KEPT_JOBS + 5:
            history.end(entry, Verdict("refused", '"' * 600, "l" * 128), 2.0)
    ended = history.ended(3.0)
    assert [int.from_bytes(one["id"], "big") for one in ended] == list(range(KEPT_JOBS + 4, 4, -1))
    said = {
        "versions": {"python": "3.11"},
        "cpus": 1,
        "ranks": 1,
        "max_ranks": 1,
        "load_percent": 1,
        "jobs": history.running(3.0),
        "ended": ended,
    }
    assert len(said["jobs"]) == LISTED_JOBS
    row = KINDS["status_reply"]
    assert len(write_json(row.fields.encode(fit(row.fields, said), "status"))) <= row.json_limit


@pytest.mark.parametrize(
    ("course", "outcome", "verdict"),
    [
        ({}, "left", Verdict("left", "before its ranks were started")),
        ({"begun": True}, "left", Verdict("left")),
        ({"begun": True}, "lost", Verdict("lost")),
        ({"begun": True}, "stopped", Verdict("stopped")),
        ({"begun": True, "closed": True}, "left", Verdict("finished")),
        ({"begun": True, "terminated": True}, "left", Verdict("terminated")),
        ({"begun": True, "terminated": True, "closed": True}, "left", Verdict("terminated")),
        ({"begun": True, "closed": True}, "lost", Verdict("lost")),
    ],
)
def test_how_far_it_has_come_says_how_it_has_ended(course, outcome, verdict):
    made = Course()
    for name, value in course.items():
        setattr(made, name, value)
    assert made.over(outcome, "") == verdict


def test_a_refusal_is_a_limit_or_a_failure_where_ranks_were_there():
    course = Course()
    assert course.refused("no", "max_bundle_bytes") == Verdict("refused", "no", "max_bundle_bytes")
    course.begun = True
    assert course.refused("too long", "max_job_seconds") == Verdict("limit", "too long", "max_job_seconds")
    assert course.refused("it is gone", None) == Verdict("failed", "it is gone")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0 s"), (9.96, "10 s"), (59.9, "59 s"), (60, "0:01:00"), (90061, "25:01:01")]
)
def test_how_long_something_was(seconds, said):
    assert say_duration(seconds) == said


# -- a beacon that runs ------------------------------------------------------------------------------


@pytest.fixture
def beacon(tmp_path, client_home):
    with Beacon(tmp_path / "there", "max_ranks = 4\n") as made:
        yield made


def status_of(beacon):
    """Return the jobs that a beacon tells of: running, and ended."""
    home = Home(beacon.home)
    said = ask(find_beacon(home), home, beacon.password)
    return said["jobs"], said["ended"]


def last_of(beacon, count=1):
    """Return how the last jobs have ended, once so many have; none may be there still."""
    wait_until(lambda: beacon.log.count(" ended after ") + beacon.log.count(" ranks) was refused") == count)
    running, ended = status_of(beacon)
    assert (running, len(ended)) == ([], count)
    return [(one["outcome"], one["limit"]) for one in ended]


def fail():
    raise ValueError("what only the program knows")


def wait_for_ever():
    threading.Event().wait()


def test_jobs_that_finish_are_terminated_and_are_refused(beacon):
    with mp.World(hosts=[beacon.entry()]) as world:
        with pytest.raises(mp.RankFailedError):
            world.run(fail)
        (job,), ended = status_of(beacon)
        assert ended == []
        assert (job["owner"], job["method"], job["address"]) == ("", "password", "127.0.0.1")
        assert (job["ranks"], job["troubles"]) == (2, 1)
        assert job["trouble"].endswith(" raised ValueError")
    world = mp.World(hosts=[beacon.entry()])
    world.terminate()
    world.join()
    with pytest.raises(mp.BeaconBusyError, match="max_ranks"):
        mp.World(hosts=[beacon.entry(max_procs=5)])
    with pytest.raises(mp.BeaconBusyError, match="allow_plaintext"):
        mp.World(hosts=[beacon.entry()], encrypt=False)
    assert set(last_of(beacon, 4)) == {  # in which order they end is their sessions' business
        ("finished", None),
        ("terminated", None),
        ("refused", "max_ranks"),
        ("refused", "allow_plaintext"),
    }
    assert beacon.log.count(" of password from 127.0.0.1 began: 2 ranks\n") == 3
    assert ": finished; its runs had 1 troubles\n" in beacon.log
    assert " raised ValueError\n" in beacon.log
    assert ": terminated\n" in beacon.log
    assert " (5 ranks) was refused (max_ranks): 5 ranks are asked for" in beacon.log
    assert "only the program knows" not in beacon.log


def test_who_was_killed_is_told(beacon, tmp_path):
    with Driver(tmp_path, [beacon.entry()]) as driver:
        driver.wait_for_run()
        driver.process.kill()
    (outcome, _limit) = last_of(beacon)[0]
    assert outcome in {"left", "lost"}  # it depends on whether something was unread
    with Driver(tmp_path, [beacon.entry()]) as driver:
        driver.wait_for_run()
        os.kill(driver.pids[0], signal.SIGKILL)
        assert driver.error()[0] == "RankDiedError"
        os.kill(beacon.sessions()[0], signal.SIGKILL)
        assert last_of(beacon, 2)[0] == ("killed", None)
        job = status_of(beacon)[1][0]
        assert job["trouble"].endswith(" was killed by SIGKILL (the kernel does that when memory runs out)")
        assert job["reason"].startswith("its session was killed by SIGKILL")
        driver.process.stdin.close()
        driver.finish()


def test_limits_of_a_job_that_runs_and_the_end_of_the_beacon(tmp_path, client_home):
    limits = 'max_job_seconds = 2\nmax_rank_memory_bytes = "4 GiB"\n'
    with Beacon(tmp_path / "there", limits) as beacon:
        with mp.World(hosts=[beacon.entry()]) as world:
            with pytest.raises(mp.RankFailedError, match="MemoryError"):
                world.run(bytearray, 1 << 40)
            with pytest.raises(mp.HostLostError, match="the job has lasted 2 s: max_job_seconds"):
                world.run(wait_for_ever)
        assert last_of(beacon) == [("limit", "max_job_seconds")]
        assert status_of(beacon)[1][0]["trouble"].endswith(" raised MemoryError")
        assert beacon.log.count(" raised MemoryError (max_rank_memory_bytes)\n") == 1
        with mp.World(hosts=[beacon.entry()]):
            beacon.stop()
        assert beacon.log.count(": stopped\n") == 1


def test_the_page_has_all_the_ways_a_job_ends():
    page = (Path(__file__).resolve().parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
    table = page.partition("| how it ended |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(OUTCOMES)
    assert f"the last {KEPT_JOBS} that have ended" in page
