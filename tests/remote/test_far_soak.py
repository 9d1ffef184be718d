"""Soak: many jobs on two hosts, some of them killed at random, and nothing grows or is left behind.

By hand: ``python -m pytest -m soak tests/remote/test_far_soak.py``: 1000 jobs in 30 minutes, or as many as fit into
KLYNG_MP_SOAK_SECONDS.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from typing import NamedTuple

import attackers
import pytest
from beacons import beacons_here
from programs import FACTOR, Program, parent_of, still_there, wait_until, write_script

MIB = 1 << 20
LANES = 4
SOAK_SECONDS = float(os.environ.get("KLYNG_MP_SOAK_SECONDS", "1800"))
STOPS = 5  # times at which all lanes wait until the hosts are idle, and look at them
GROWTH_BYTES = 3 * MIB  # of a beacon, between the first stop and the last
VICTIMS = ("rank", "session", "zygote", "driver")
ERRORS = {"rank": "RankDiedError", "session": "HostLostError", "zygote": "HostLostError"}
GONE_SECONDS = 10.0

JOB = """
import json, sys, time
sys.path.append(sys.argv[4])
import klyng_mp as mp
import farwork

def main():
    seconds, seed, gate = float(sys.argv[2]), int(sys.argv[3]), sys.argv[5]
    end = time.monotonic() + seconds
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        print("places:", *(word for pid, zygote, *_ in world.run(farwork.place) for word in (pid, zygote)), flush=True)
        runs = 0
        while time.monotonic() < end or not runs:
            assert world.run(farwork.soaks, seed + runs) == [world.size] * world.size
            runs += 1
        if gate:
            try:
                world.run(farwork.reduces_much, gate)
            except mp.KlyngError as error:
                print(f"error: {type(error).__name__} {error}", flush=True)
        assert world.run(farwork.total) == [sum(range(world.size))] * world.size
        print(f"runs: {runs}", flush=True)

if __name__ == "__main__":
    main()
"""


class Looks(NamedTuple):
    """What a host has while no job is there."""

    memory: int
    fds: int
    threads: int
    files: tuple[str, ...]


def look(beacon):
    files = sorted(path.name for path in (*beacon.home.glob("[!b]*"), *beacon.tmp.iterdir()))
    return Looks(
        attackers.resident_bytes(beacon.pid), len(beacon.fds()), attackers.threads_of(beacon.pid), tuple(files)
    )


def check_flat(looks):
    """Fail if a host had more of something at the end than at its first stop."""
    first = looks[0]
    for later in looks[1:]:
        assert later[1:] == first[1:], looks
    assert looks[-1].memory - first.memory < GROWTH_BYTES, looks


class Soak:
    """Lanes of jobs, one after another, on the same hosts.

    Args:
        folder: for the jobs' programs.
        beacons: of the hosts.
        jobs: how many in all.
        kills: how many of them are killed, by turns of `VICTIMS`.
        seconds: how long all of them are to take; 0: no longer than they must.
    """

    def __init__(self, folder, beacons, jobs, kills, seconds):
        self.folder, self.beacons = folder, beacons
        self.script = write_script(folder, JOB)
        self.entries = json.dumps([beacon.entry(2) for beacon in beacons])
        self.chance = random.Random(5)
        doomed = self.chance.sample(range(jobs), kills)
        self.victims = dict(zip(doomed, itertools.cycle(VICTIMS), strict=False))
        self.per_lane = jobs // LANES
        self.job_seconds = seconds / self.per_lane
        self.per_stop = max(2, self.per_lane // STOPS)
        self.stop = threading.Barrier(LANES, self.look_around)
        self.looks = {beacon.key: [] for beacon in beacons}
        self.ended = Counter()
        self.faults = []

    def run(self):
        self.began = time.monotonic()
        lanes = [threading.Thread(target=self.lane, args=(number,)) for number in range(LANES)]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
        assert self.faults == []

    def lane(self, number):
        try:
            for index in range(self.per_lane):
                job = number * self.per_lane + index
                left = self.began + (index + 1) * self.job_seconds - time.monotonic()
                self.do_job(job, max(0.0, left - 1.0))
                if (index + 1) % self.per_stop == 0:
                    self.stop.wait(120 * FACTOR)
        except BaseException as error:
            self.faults.append(repr(error))
            self.stop.abort()

    def look_around(self):
        for beacon in self.beacons:
            beacon.check_tidy()
            self.looks[beacon.key].append(look(beacon))

    def do_job(self, job, seconds):
        folder = self.folder / f"job{job % LANES}"
        folder.mkdir(exist_ok=True)
        victim = self.victims.get(job)
        gate = folder / f"gate{job}" if victim else ""  # who is to die does something without end, until it has
        words = self.script, self.entries, seconds, job, attackers.TESTS, gate
        with Program(*words, cwd=folder) as program:
            places = [int(word) for word in program.answer("places", seconds=60)]
            if victim is not None:
                wait_until(gate.exists, seconds + 60)
                self.kill(program, victim, places)
            code = program.finish(seconds + 90)
            expected = -signal.SIGKILL if victim == "driver" else 0
            assert (code, program.err) == (expected, ""), f"job {job} ({victim}): {code}\n{program.out}\n{program.err}"
            assert still_there(places[::2], GONE_SECONDS) == []
            error = program.out.partition("error: ")[2].partition(" ")[0]
            assert error == ERRORS.get(victim, ""), f"job {job} ({victim}): {program.out}"
            self.ended[victim or "well"] += 1

    def kill(self, program, victim, places):
        """Kill one of a job's processes, at any time."""
        threading.Event().wait(self.chance.uniform(0, 0.5))
        pid, zygote = self.chance.choice(list(zip(places[::2], places[1::2], strict=True)))
        session = parent_of(zygote)
        os.kill({"rank": pid, "zygote": zygote, "session": session, "driver": program.pid}[victim], signal.SIGKILL)


@pytest.mark.parametrize(
    ("jobs", "kills", "seconds"),
    [
        pytest.param(24, 4, 0, id="some", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
        pytest.param(
            int(1000 * SOAK_SECONDS / 1800) // LANES * LANES,
            max(4, int(10 * SOAK_SECONDS / 1800)),
            SOAK_SECONDS,
            id="all",
            marks=[pytest.mark.soak, pytest.mark.timeout(0)],
        ),
    ],
)
def test_many_jobs_of_which_some_are_killed_leave_nothing_behind(tmp_path, client_home, jobs, kills, seconds):
    with beacons_here(tmp_path) as beacons:
        soak = Soak(tmp_path, beacons, jobs, kills, seconds)
        began = time.monotonic()
        soak.run()
        took = time.monotonic() - began
        for key, looks in soak.looks.items():
            print(f"{key}: {looks[0]}; {looks[-1]}")
        print(f"{sum(soak.ended.values())} jobs in {LANES} lanes and {took:.0f} s: {dict(soak.ended)}")
        assert sum(soak.ended.values()) == jobs
        for looks in soak.looks.values():
            check_flat(looks)
        wait_until(lambda: not any(beacon.sessions() for beacon in beacons))


@pytest.mark.parametrize("change", [{"memory": 4 * MIB}, {"fds": 1}, {"threads": 1}, {"files": ("left",)}], ids=str)
def test_what_grows_is_found(change):
    start = Looks(10 * MIB, 12, 1, ())
    check_flat([start, start._replace(memory=12 * MIB), start])
    ((name, more),) = change.items()
    with pytest.raises(AssertionError):
        check_flat([start, start._replace(**{name: getattr(start, name) + more})])
