"""logfile: a beacon's log is bounded, private, and written on whatever becomes of the file."""

from __future__ import annotations

import logging
import os
import signal
import stat
from pathlib import Path

import pytest
from beacons import Beacon
from programs import wait_until

from klyng_mp.remote.home import Home
from klyng_mp.remote.logfile import LogFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "beacon.log"


@pytest.fixture
def log(path):
    """Give a function that logs a line."""
    made = LogFile(str(path), 4096, 2)
    yield lambda text: made.handle(logging.LogRecord("beacon", logging.INFO, "", 0, text, (), None))
    made.close()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_it_takes_no_more_room_than_it_may_and_is_for_its_owner_alone(log, path, tmp_path):
    for number in range(1000):
        log(f"{number:04d} " + "x" * 45)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["beacon.log", "beacon.log.1", "beacon.log.2"]
    assert all(file.stat().st_size <= 4096 for file in files)
    assert {mode_of(file) for file in files} == {0o600}
    lines = "".join(file.read_text() for file in reversed(files)).splitlines()
    assert [int(line[:4]) for line in lines] == list(range(1000 - len(lines), 1000))
    assert len(lines) > 2 * (4096 // 51 - 1)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_an_old_one_that_others_can_read_is_for_its_owner_alone_again(path, umask):
    before = os.umask(umask)
    try:
        path.write_text("old\n")
        path.chmod(0o644)
        made = LogFile(str(path), 4096, 2)
    finally:
        os.umask(before)
    made.close()
    assert mode_of(path) == 0o600
    assert path.read_text() == "old\n"


@pytest.mark.parametrize("new", [False, True])
def test_one_that_was_moved_is_left_alone(log, path, new):
    log("first")
    path.rename(path.with_suffix(".moved"))
    if new:  # as logrotate does with "create"
        path.write_text("")
        path.chmod(0o644)
    log("second")
    assert path.with_suffix(".moved").read_text() == "first\n"
    assert path.read_text() == "second\n"
    assert mode_of(path) == 0o600


def test_one_that_was_cut_to_nothing_is_written_from_its_beginning(log, path):
    log("first")
    os.truncate(path, 0)  # as logrotate does with "copytruncate"
    log("second")
    assert path.read_bytes() == b"second\n"


def test_text_that_is_no_text_is_written_all_the_same(log, path):
    log("from \udcff")
    assert path.read_text() == "from \\udcff\n"


def fill_up(path):
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_told_once_and_logging_goes_on_when_there_is_room(small_disk, capsys):
    made = LogFile(str(small_disk / "beacon.log"), 1 << 20, 2)

    def log(text):
        made.handle(logging.LogRecord("beacon", logging.INFO, "", 0, text, (), None))

    log("first")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        fill_up(filler)
    for _ in range(3):
        log("x" * 10_000)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"klyng-mp: the log {small_disk}/beacon.log cannot be written: [Errno 28] No space left")
    filler.unlink()
    log("last")
    assert (small_disk / "beacon.log").read_text().endswith("last\n")
    made.close()


def test_a_folder_that_is_gone_is_no_end(log, path, tmp_path, capsys):
    log("first")
    moved = tmp_path.with_name(f"{tmp_path.name}.moved")
    tmp_path.rename(moved)
    log("second")
    log("third")
    assert capsys.readouterr().err.count("cannot be written: [Errno 2] No such file") == 1
    moved.rename(tmp_path)
    log("fourth")
    assert path.read_text() == "first\nfourth\n"


# -- of a beacon that runs ------------------------------------------------------------------------------


def test_a_beacon_keeps_its_log_within_bounds_and_begins_it_anew_on_sighup(tmp_path):
    home = Home(tmp_path / ".klyng_mp")
    log = Path(home.log)
    log.write_text("x" * 4000 + "\n")
    with Beacon(tmp_path, "log_bytes = 4096\nlog_files = 1\n") as beacon:
        older = log.with_name(f"{log.name}.1")
        assert older.read_text() == "x" * 4000 + "\n"
        log.rename(beacon.home / "mine")
        beacon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: log.exists() and "and this log opened anew" in log.read_text())
        assert "listening at" in (beacon.home / "mine").read_text()
        assert {mode_of(log), mode_of(older)} == {0o600}
