"""Attacks that use something up: descriptors, processes, memory, disk; archives that expand; and who is slow.

Each has a control: what is used up is used up where nobody looks after it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import signal
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import attackers
import farwork
import pytest
from attackers import Intruder, LiveBeacon, frame, source
from beacons import Beacon
from programs import FACTOR, children_of, wait_until
from remote.test_attacks import SHARE
from remote.test_intruders import words_of_a_job

import klyng_mp as mp

pytestmark = pytest.mark.slow

MIB = 1 << 20
QUIET_LOAD = 0.3  # of a processor, that a beacon uses at most where nothing happens
# As if a beacon did not know how many descriptors it may have.
BLIND = """
import sys
from klyng_mp.remote import daemon
daemon._count_room = lambda: sys.maxsize
"""
NO_FORK = """
import errno, os
fork, failed = os.fork, []
def sometimes():
    if len(failed) < 3:
        failed.append(1)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = sometimes
"""


# -- descriptors -----------------------------------------------------------------------------------


def few_files(count):
    """Return what starts a program that may have so many files."""
    return lambda words, **popen: subprocess.Popen(["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh", *words], **popen)


def load_of(beacon, seconds=0.2):
    """Return how much of a processor a beacon uses."""
    before = beacon.cpu_seconds(settle=False)
    attackers.pause(seconds)
    return (beacon.cpu_seconds(settle=False) - before) / seconds


@contextlib.contextmanager
def sitting(beacon, count, said):
    """Have so many connections there that say no more than this."""
    with contextlib.ExitStack() as stack:
        for number in range(count):
            with contextlib.suppress(OSError):  # of one that was dropped
                stack.enter_context(beacon.reach(source(number))).sendall(said)
        yield


@pytest.mark.parametrize("said", [pytest.param(b"", id="before a word"), pytest.param(b"\x16", id="at logging in")])
def test_a_beacon_that_may_have_few_files_serves_who_is_honest(tmp_path, said):
    with LiveBeacon(tmp_path, start=few_files(48)) as beacon:
        beacon.is_served()
        state = beacon.state()
        with sitting(beacon, 90, said):
            wait_until(lambda: load_of(beacon) < QUIET_LOAD)
            seconds = beacon.is_served()
        assert "Too many open files" not in beacon.log
        assert beacon.state() == state
    print(f"90 sat there; a log-in took {seconds:.2f} s")
    assert seconds < 2 * FACTOR


def test_without_a_look_at_them_descriptors_run_out(tmp_path):
    with LiveBeacon(tmp_path, start=few_files(48), hook=BLIND) as beacon:
        with sitting(beacon, 90, b"\x16"):
            attackers.pause(0.5)
            assert "Too many open files" in beacon.log
            assert len(beacon.log) < 64 * 1024  # it says so, but does not fill the disk with that
        beacon.settle()
        beacon.is_served()  # and it lives


# -- processes -------------------------------------------------------------------------------------


def test_a_beacon_that_cannot_fork_lives(tmp_path):
    with LiveBeacon(tmp_path, hook=NO_FORK) as beacon:
        wait_until(lambda: "listening at" in beacon.log)
        state = beacon.state()
        for _ in range(3):
            with pytest.raises(mp.BeaconError):
                beacon.is_served()
        assert beacon.log.count("could not be served: [Errno 11]") == 3
        assert beacon.state() == state
        beacon.is_served()


# -- memory ----------------------------------------------------------------------------------------


def test_a_rank_has_no_more_memory_than_it_may(tmp_path, client_home):
    assert farwork.allocates(1200 * MIB) == 1200 * MIB  # never touched, so it costs nothing
    with Beacon(tmp_path, 'max_rank_memory_bytes = "1 GiB"') as beacon:
        with mp.World(hosts=[beacon.entry(1)]) as world:
            with pytest.raises(mp.RankFailedError) as caught:
                world.run(farwork.allocates, 1200 * MIB)
            assert type(caught.value.__cause__) is MemoryError
            assert world.run(farwork.allocates, 10 * MIB) == [10 * MIB]
        beacon.check_tidy()


# -- archives that expand ----------------------------------------------------------------------------


def bomb(expanded):
    """Return a small archive that expands, and the size that its list of files says."""
    text = b'{"cwd":"run","files":[["big",%d,"%s",false]],"format":1,"main":"","path":[]}' % (
        expanded,
        hashlib.sha256(bytes(expanded)).hexdigest().encode(),
    )
    members = []
    for name, size in (("manifest.json", len(text)), ("big", expanded)):
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        members.append(member.tobuf(tarfile.GNU_FORMAT))
    body = members[0] + text + bytes(-len(text) % 512) + members[1] + bytes(expanded + 1024)
    return gzip.compress(body, 9, mtime=0), hashlib.sha256(text).digest()


def what_came_of(client):
    """Return the refusal of a program, or None where it was unpacked."""
    end = time.monotonic() + 10 * FACTOR
    while time.monotonic() < end:
        if (refused := client.hear("refused", 0.05 / FACTOR)) is not None:
            return refused
        if any(kind == "record" and fields["name"] == "unpacked" for kind, fields in client.frames()):
            return None
    raise AssertionError(f"nothing was said about the program: {list(client.frames())}")


def send_program(beacon, key, data, digest):
    """Send a program as a job's; return what came of it, and the most that its session took of memory."""
    job, describe, *_ = words_of_a_job(beacon, 1, bundle=digest, bundle_bytes=len(data))
    with Intruder(beacon, "open", key=key) as client:
        client.say(job, describe)
        assert client.hear("record") is not None
        (session,) = beacon.sessions()
        for at in range(0, len(data), MIB):
            client.say(frame("record", data[at : at + MIB], name="bundle", last=at + MIB >= len(data)))
        answer = what_came_of(client)
        status = Path(f"/proc/{session}/status").read_text()
    return answer, int(status.partition("VmHWM:")[2].split()[0]) << 10


def test_an_archive_that_expands_is_refused_before_it_does(tmp_path):
    data, digest = bomb(64 * MIB)
    assert len(data) < MIB
    with LiveBeacon(tmp_path, options='max_bundle_bytes = "1 MiB"\n') as beacon:
        key = attackers.let_in(beacon)
        small, small_digest = bomb(MIB)
        taken, usual = send_program(beacon, key, small, small_digest)
        assert taken is None, taken
        beacon.settle()
        refused, most = send_program(beacon, key, data, digest)
        assert refused["reason"] == "bundle"
        assert f"{64 * MIB} bytes, and {10 * MIB} are allowed" in refused["sentence"]
        beacon.settle()
        used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        beacon.is_served()
    print(f"{len(data)} bytes that expand to 64 MiB: the session took {(most - usual) / MIB:.1f} MiB more than usual")
    assert most - usual < 8 * MIB
    assert used < 8 * MIB


def test_the_same_archive_expands_where_nobody_looks():
    assert len(gzip.decompress(bomb(16 * MIB)[0])) > 16 * MIB


# -- disk ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small_disk", [1 << 20], indirect=True)
def test_a_beacon_on_a_full_disk_goes_on(small_disk):
    program = LiveBeacon(small_disk)
    with contextlib.ExitStack() as stack:
        beacon = program.__enter__()
        stack.callback(program.program.__exit__)
        beacon.is_served(home=beacon.client_home)
        with open(small_disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(1024)):
                pass
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "more").write_bytes(bytes(8192))
        for _ in range(5):
            beacon.is_served(home=beacon.client_home)
        assert attackers.cheap_guess(beacon, SHARE, source(3)) == "refused"
        (small_disk / "filler").unlink()
        beacon.is_served(home=beacon.client_home)
        assert beacon.log.count("logged in") >= 2
        beacon.program.signal(signal.SIGTERM)  # its processes end with it, and leave the disk
        assert beacon.program.finish() == 0


# -- who is slow -----------------------------------------------------------------------------------


def drip(slow, over):
    """Say the next byte of each connection ten times a second, until it is over."""
    at = 0
    while not over.wait(0.1):
        for sock, said in slow:
            with contextlib.suppress(OSError):
                sock.send(said[at : at + 1], attackers.socket.MSG_DONTWAIT)
        at += 1


def test_who_may_take_all_the_time_stays(tmp_path):
    with LiveBeacon(tmp_path, options="grace_seconds = 600\n") as beacon, contextlib.ExitStack() as stack:
        beacon.is_served()
        hello, over = attackers.client_hello(), threading.Event()
        slow = [(stack.enter_context(beacon.reach(source(number))), hello) for number in range(5)]
        thread = threading.Thread(target=drip, args=(slow, over))
        thread.start()
        try:
            wait_until(lambda: len(children_of(beacon.pid)) == 5)
            attackers.pause(5.0)  # what others have 2 seconds for
        finally:
            over.set()
            thread.join()
        assert len(children_of(beacon.pid)) == 5


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(100, id="some"),
        pytest.param(3000, id="thousands", marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
    ],
)
def test_who_says_a_byte_now_and_then_is_dropped_and_keeps_nobody_out(tmp_path, count):
    hello = attackers.client_hello()
    beginnings = (hello, b"KMP1" + bytes(40), b"\x16\x03\x01\x40\x00" + bytes(200))
    with LiveBeacon(tmp_path, options="grace_seconds = 2\n") as beacon:
        beacon.is_served()
        state = beacon.state()
        over = threading.Event()
        with contextlib.ExitStack() as stack:
            slow = []
            for number in range(count):
                with contextlib.suppress(OSError):
                    slow.append((stack.enter_context(beacon.reach(source(number))), beginnings[number % 3]))

            thread = threading.Thread(target=drip, args=(slow, over))
            thread.start()
            try:
                seconds = [beacon.is_served() for _ in range(5)]
                end = time.monotonic() + (10 + count / 100) * FACTOR
                while children_of(beacon.pid) and time.monotonic() < end:  # they go on, and are ended all the same
                    attackers.pause(0.1)
                left = children_of(beacon.pid)
            finally:
                over.set()
                thread.join()
        assert left == []
        wait_until(lambda: beacon.state() == state)
    print(f"{count} dripped; log-ins took at most {max(seconds):.2f} s")
    assert max(seconds) < 2 * FACTOR
