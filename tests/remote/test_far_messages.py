"""Messages between hosts over a bad link: none is lost, doubled or overtaken, and every byte is right."""

from __future__ import annotations

import contextlib
import json
import select
import socket

import badlinks
import pytest
from beacons import Beacon
from programs import start_script

FAULTS = badlinks.Faults(delay=0.01, jitter=0.02, loss=0.02, duplicate=0.01, reorder=0.02, corrupt=0.01)
KINDS = ("lost", "duplicated", "reordered", "corrupted")
LOCAL = {"host": "local", "max_procs": 1}
SCRIPT = """
import json, sys, time
sys.path.append(sys.argv[3])
import klyng_mp as mp
import farwork

def main():
    count, seed = int(sys.argv[2]), 7
    window = min(500, count // 12)
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        print("up: 1", flush=True)
        began = time.monotonic()
        for wrong, sent, came in world.run(farwork.exchange_numbered, count, seed, window):
            print(f"rank: {json.dumps([wrong, sent, came])}", flush=True)
        print(f"took: {time.monotonic() - began:.1f}", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def hosts(network):
    if (reason := badlinks.skip_reason()) is not None:
        pytest.skip(reason)
    return network.add_hosts("laptop", "lab")


@pytest.fixture
def link(network, hosts):
    return badlinks.BadLink(network, *hosts, seed=11)


@pytest.mark.parametrize(
    ("count", "seconds"),
    [
        pytest.param(600, 30, id="some", marks=pytest.mark.slow),
        pytest.param(50_000, 1800, id="all", marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
    ],
)
def test_no_message_is_lost_doubled_overtaken_or_damaged(network, hosts, link, count, seconds):
    laptop, lab = hosts
    link.set(FAULTS)
    with Beacon(lab.home, address=link.address(lab), start=lab.run) as beacon:
        entries = json.dumps([LOCAL, beacon.entry(1)])
        tests = str(network_tests())
        with start_script(laptop.home, SCRIPT, entries, count, tests, start=laptop.run) as program:
            program.wait_for("took: ", seconds=seconds)
            assert (program.finish(), program.err) == (0, "")
            rows = [json.loads(line.removeprefix("rank: ")) for line in program.out.splitlines() if "rank: " in line]
            took = program.answer("took")[0]
        link.set()
        beacon.check_tidy()
    (wrong, sent, came), (other_wrong, other_sent, other_came) = rows
    counts = [{name: link.counts(host)[name] for name in ("packets", *KINDS)} for host in hosts]
    print(f"{2 * count} messages in {took} s; packets met with {counts}")
    assert wrong == other_wrong == []
    assert (came, other_came) == (other_sent, sent)
    assert all(sum(one[name] for one in counts) for name in KINDS)


def test_datagrams_over_the_same_link_are_lost_doubled_overtaken_and_damaged(hosts, link):
    laptop, lab = hosts
    link.set(FAULTS)
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(lab.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
        near = stack.enter_context(laptop.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
        far.bind((link.address(lab), 0))
        far.setblocking(False)
        came = []
        for number in range(500):
            near.sendto(number.to_bytes(4, "big"), far.getsockname())
            if number % 100 == 99:  # more would not fit into its buffer
                came += hear(far)
    assert 400 < len(set(came)) < 500
    assert len(came) > len(set(came))
    assert came != sorted(came)


def hear(sock, seconds=0.1):
    """Return the numbers that come until nothing has come for some time."""
    came = []
    while select.select([sock], [], [], seconds)[0]:
        came.append(int.from_bytes(sock.recv(100), "big"))
    return came


def network_tests():
    """Return the folder of the tests, from which ranks have what they run."""
    return badlinks.__file__.rpartition("/")[0]
