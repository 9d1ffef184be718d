"""python -m klyng_mp.beacon: a beacon in the foreground."""

from __future__ import annotations

import signal

from beacons import Beacon


def test_it_says_where_it_is_and_ends_when_it_is_told_to(tmp_path):
    for signum in (signal.SIGTERM, signal.SIGINT):
        with Beacon(tmp_path) as beacon:
            assert beacon.address == "127.0.0.1"
            assert beacon.fingerprint.startswith("SHA256:")
            assert len(beacon.password) >= 16
            beacon.process.send_signal(signum)
            assert beacon.process.wait(30) == 0
            assert beacon.log.rstrip().endswith("ended")


def test_its_words_are_the_commands(run_python):
    done = run_python("-m", "klyng_mp.beacon", "--port=no")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("klyng-mp: error: argument --port: invalid int value: 'no'")
