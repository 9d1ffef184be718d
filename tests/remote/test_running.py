"""running: the one beacon of this machine is found, and none that has ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from remote.test_home import at_once

import klyng_mp as mp
from klyng_mp.remote.home import Home
from klyng_mp.remote.running import announce, find_beacon, retract

FINGERPRINT = "SHA256:" + "a" * 43


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def other(home, time_limit):
    """Have a beacon run in another process, which is killed at last."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def run():
        announce(home, "10.0.0.5", 4000, FINGERPRINT)
        ready.set()
        signal.pause()

    process = context.Process(target=run)
    process.start()
    assert ready.wait(time_limit(20))
    yield process
    process.kill()
    process.join()
    process.close()


def test_what_was_announced_is_found_until_it_is_retracted(home):
    assert find_beacon(home) is None
    said = announce(home, "127.0.0.1", 2222, FINGERPRINT)
    assert find_beacon(home) == said
    assert said[2:] == ("127.0.0.1", 2222, FINGERPRINT)
    assert said.pid == os.getpid()
    announce(home, "127.0.0.1", 2223, FINGERPRINT)
    assert find_beacon(home).port == 2223
    retract(home)
    assert find_beacon(home) is None
    retract(home)
    assert os.listdir(home.path) == ["lock"]


def test_a_second_one_is_refused(home, other):
    with pytest.raises(mp.BeaconError, match=f"runs already: process {other.pid}, at 10.0.0.5 port 4000; use that one"):
        announce(home, "127.0.0.1", 2222, FINGERPRINT)
    retract(home)  # which is not ours to retract
    assert find_beacon(home).pid == other.pid


def test_of_several_that_start_at_once_one_runs(home, own_heap):
    context = multiprocessing.get_context("fork")
    all_tried = context.Barrier(4)

    def start(_):
        try:
            announce(home, "127.0.0.1", 2222, FINGERPRINT)
        except mp.BeaconError:
            return False
        finally:
            all_tried.wait(20)  # the one that runs must not end before the last has looked
        return True

    assert sum(at_once(4, start)) == 1


def test_one_that_was_killed_is_not_found_even_before_its_parent_has_noticed(home, other):
    assert find_beacon(home).pid == other.pid
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert find_beacon(home) is None
    other.join()
    assert find_beacon(home) is None
    announce(home, "127.0.0.1", 2222, FINGERPRINT)


@pytest.mark.parametrize("field", ["ticks", "boot"])
def test_another_process_with_its_number_is_not_it(home, field):
    announce(home, "127.0.0.1", 2222, FINGERPRINT)
    said = json.loads(Path(home.state).read_text())
    ticks, boot = said["start"].split("@")
    said["start"] = f"{int(ticks) - 1}@{boot}" if field == "ticks" else f"{ticks}@{boot[::-1]}"
    home.write(home.state, json.dumps(said))
    assert find_beacon(home) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": 1}', "[" * 100_000,
     '{"pid": "1", "start": "", "address": "", "port": 1, "fingerprint": ""}',
     '{"pid": 999999999, "start": "", "address": "", "port": 1, "fingerprint": ""}'],
)  # fmt: skip
def test_a_damaged_file_is_no_beacon(home, text):
    home.write(home.state, text)
    assert find_beacon(home) is None
    announce(home, "127.0.0.1", 2222, FINGERPRINT)
    assert find_beacon(home).pid == os.getpid()
