"""Partitions and freezes in the middle of what moves: a send, a collective operation, the upload of a program."""

from __future__ import annotations

import json
import os
import time

import badlinks
import pytest
from beacons import Beacon, beacon_on
from drivers import Driver
from programs import start_script, still_there, wait_until

pytestmark = pytest.mark.slow

LOST_SECONDS = 15.0
GONE_SECONDS = 20.0
LOCAL = {"host": "local", "max_procs": 1}
UPLOAD = """
import json, sys, time
import klyng_mp as mp

def main():
    print("begins: 1", flush=True)
    try:
        with mp.World(hosts=json.loads(sys.argv[1]), files=["large.bin"]):
            print("up: 1", flush=True)
    except mp.KlyngError as error:
        print(f"error: {type(error).__name__} {error}", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("what", "work"), [("cut", "sends_much"), ("cut", "reduces_much"), ("freeze", "sends_much")], ids=str
)
def test_what_moves_when_a_host_is_lost_ends_in_time(network, what, work, time_limit):
    laptop, lab = network.add_hosts("laptop", "lab")
    beacon = beacon_on(lab)
    with Driver(laptop.home, [LOCAL, beacon.entry(1)], start=laptop.run, work=work) as driver:
        here, there = driver.wait_for_run()
        getattr(lab, what)()
        began = time.monotonic()
        kind, _ = driver.error(LOST_SECONDS + 10)
        took = time.monotonic() - began
        assert kind == "HostLostError", driver.out
        assert beacon.key in driver.out
        assert still_there([here], 5.0) == []
        if what == "freeze":
            lab.thaw()
        assert still_there([there], GONE_SECONDS) == []
        driver.process.stdin.close()
        driver.finish()
        print(f"{what} during {work}: told after {took:.1f} s")
        assert took < time_limit(LOST_SECONDS)
    if what == "cut":
        lab.mend()
    beacon.check_tidy()
    beacon.kill()


def test_a_partition_during_an_upload_ends_it_in_time_and_leaves_nothing(network, time_limit):
    if (reason := badlinks.skip_reason()) is not None:
        pytest.skip(reason)
    laptop, lab = network.add_hosts("laptop", "lab")
    link = badlinks.BadLink(network, laptop, lab)
    with Beacon(lab.home, address=link.address(lab), start=lab.run) as beacon:
        (laptop.home / "large.bin").write_bytes(os.urandom(32 << 20))
        link.set(rate_bytes=2e6)
        before = link.counts(lab)["packets"]
        with start_script(laptop.home, UPLOAD, json.dumps([beacon.entry(1)]), start=laptop.run) as program:
            program.wait_for("begins: ")
            wait_until(lambda: link.counts(lab)["packets"] - before > 1000)  # more than a megabyte
            link.set(partition=True)
            began = time.monotonic()
            kind, *_ = program.answer("error", seconds=LOST_SECONDS + 10)
            took = time.monotonic() - began
            program.finish()
        print(f"{kind} after {took:.1f} s: {program.out}")
        assert "up: " not in program.out
        assert beacon.key in program.out
        assert took < time_limit(LOST_SECONDS)
        wait_until(lambda: not beacon.leftovers(), GONE_SECONDS)
        link.set()
        beacon.check_tidy()
