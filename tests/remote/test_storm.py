"""A storm of bad connections: the beacon stands, nobody honest waits for long, and nothing of it is left."""

from __future__ import annotations

import statistics
from pathlib import Path

import attackers
import pytest
from attackers import LiveBeacon, source
from programs import FACTOR, Program, wait_until

pytestmark = pytest.mark.slow

STORM = Path(attackers.__file__).with_name("storm.py")
MIB = 1 << 20
GROWTH_BYTES = 10 * MIB
LOGIN_SECONDS = 2.0  # at the 99th percentile
HONEST = [source(1_000_000 + number) for number in range(4)]  # where somebody has logged in before the storm
# What a beacon must not do: keep what strangers have said.
HOARD = """
from klyng_mp.remote import daemon
forget = daemon.Beacon._forget
kept = []
def hoard(self, sock, why):
    kept.append(bytearray(b"x" * (1 << 20)))
    forget(self, sock, why)
daemon.Beacon._forget = hoard
"""


def storm(beacon, count, seed=1, rate=0):
    """Return a storm that begins."""
    return Program(STORM, beacon.address, beacon.port, count, seed, rate, cwd=beacon.folder, stdin=None)


def weather(beacon, count, every, rate):
    """Let honest clients log in again and again while a storm goes on; return how long each took, and what it was."""
    with storm(beacon, count, rate=rate) as program:
        seconds = []
        while program.process.poll() is None:
            seconds += [beacon.try_from(address) for address in HONEST]
            try:
                wait_until(lambda: program.process.poll() is not None, every / FACTOR)
            except AssertionError:  # it goes on
                continue
        assert (program.finish(), program.err) == (0, "")
        return seconds, program.out.strip()


def grown(beacon, before):
    return attackers.resident_bytes(beacon.pid) - before


def stand(beacon, count, every, rate=0):
    """Have a storm, and check what is promised."""
    assert None not in [beacon.try_from(address) for address in HONEST]
    with storm(beacon, min(1000, count // 4), seed=2) as program:  # tables get their size, and caches their content
        assert program.finish(300) == 0, program.err
    state, memory = beacon.state(), attackers.resident_bytes(beacon.pid)
    seconds, said = weather(beacon, count, every, rate)
    refused = seconds.count(None)
    took = sorted(one for one in seconds if one is not None)
    late = took[int(len(took) * 0.99)] if took else float("inf")
    beacon.settle(30)
    assert beacon.state() == state
    growth = grown(beacon, memory)
    print(
        f"{said}; {len(seconds)} honest log-ins, {refused} refused, {statistics.median(took):.2f} s, "
        f"at p99 {late:.2f}, at most {took[-1]:.2f}; memory grew by {growth / MIB:.1f} MiB"
    )
    assert refused == 0
    assert len(took) >= 4
    assert late < LOGIN_SECONDS * FACTOR
    assert growth < GROWTH_BYTES, f"memory grew by {growth / MIB:.1f} MiB"


@pytest.mark.parametrize(
    ("count", "every", "rate"),
    [
        pytest.param(200, 0.1, 0, id="some"),
        pytest.param(5000, 1.0, 0, id="many"),
        pytest.param(100_000, 1.0, 0, id="all at once", marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
        pytest.param(100_000, 1.0, 500, id="all", marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
    ],
)
def test_a_beacon_stands_in_a_storm_and_who_is_honest_is_served(tmp_path, count, every, rate):
    with LiveBeacon(tmp_path) as beacon:
        stand(beacon, count, every, rate)
        beacon.is_served()


def test_a_beacon_that_keeps_what_strangers_say_is_found_out(tmp_path):
    with LiveBeacon(tmp_path, hook=HOARD) as beacon, pytest.raises(AssertionError, match="memory grew by"):
        stand(beacon, 100, 0.1)
