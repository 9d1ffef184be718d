"""cli.hosts_watch: hosts that are watched until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import time

import pytest
from beacons import Beacon
from programs import FACTOR, Program

from klyng_mp.cli.beacon_parser import build_hosts_parser

pytestmark = pytest.mark.slow

ROW = r"^\d\d:\d\d:\d\d  +{key} +{state} .*$"


@pytest.fixture
def beacon(tmp_path):
    with Beacon(tmp_path / "there") as made:
        yield made


@pytest.fixture
def closed():
    """The name of a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def machines(tmp_path, beacon, closed, client_home):
    file = tmp_path / "machines.json"
    file.write_text(json.dumps({beacon.key: {"passwd": beacon.password}, closed: {"passwd": "x"}}))
    file.chmod(0o600)
    return file


def watching(machines, *words, **keywords):
    words = ("-m", "klyng_mp", "hosts", "-m", machines, *words)
    return Program(*words, cwd=machines.parent, env={"KLYNG_MP_HOME": os.environ["KLYNG_MP_HOME"]}, **keywords)


def rows(text, key, state="ready"):
    return re.findall(ROW.format(key=re.escape(key), state=state), text, re.MULTILINE)


def test_lines_with_their_time_where_there_is_no_terminal(machines, beacon, closed):
    with watching(machines, "--watch=0.1") as program:
        program.wait_for(beacon.key, 3)
        beacon.kill()
        program.wait_for(f"{beacon.key}  cannot be used")
        program.wait_for(closed, program.out.count(closed) + 2)
        program.signal(signal.SIGINT)
        assert program.finish() == 0
        assert re.fullmatch(r"watched 2 hosts for [0-9.]+ s\n", program.err)
        lines = program.out.splitlines()
        assert lines[0].split()[:3] == ["TIME", "HOST", "STATE"]
        assert [line for line in lines[1:] if not re.match(r"\d\d:\d\d:\d\d  127", line)] == []
        assert len(rows(program.out, beacon.key)) >= 3
        gone, nowhere = rows(program.out, beacon.key, "cannot be used"), rows(program.out, closed, "cannot be used")
        assert all(
            re.search(r"  (it broke off|nobody listens at).* \(since \d\d:\d\d:\d\d, [0-9.]+ s\)$", row) for row in gone
        )
        since = {re.search(r"\(since (\S+), ", row)[1] for row in nowhere}
        assert len(since) == 1  # not the time of each look
    assert beacon.log.count("logged in") == 1


def test_json_has_a_line_each_time(machines, beacon, closed):
    with watching(machines, "--watch=0.1", "--json") as program:
        program.wait_for("\n", 3)
        program.signal(signal.SIGINT)
        assert program.finish() == 0
        found = [json.loads(line) for line in program.out.splitlines()]
    assert [[one["host"] for one in line["hosts"]] for line in found] == [[beacon.key, closed]] * len(found)
    assert {one["hosts"][0]["bytes_per_second"] for one in found} == {found[0]["hosts"][0]["bytes_per_second"]}
    assert found[0]["time"] < found[1]["time"]
    assert all(one["hosts"][1]["since"] <= one["time"] for one in found)


def test_a_table_in_place_on_a_terminal_and_one_clean_line_at_its_end(machines, beacon, closed):
    ours, theirs = pty.openpty()
    with watching(machines, "--watch=0.1", stdin=theirs, stdout=theirs, start_new_session=True) as program:
        os.close(theirs)
        screen = read_until(ours, lambda text: text.count("Ctrl-C ends it") >= 3)
        program.signal(signal.SIGINT)
        assert program.process.wait(20 * FACTOR) == 0
        assert re.fullmatch(r"watched 2 hosts for [0-9.]+ s\n", program.err)
        with contextlib.suppress(OSError):  # the other end is closed
            screen += os.read(ours, 1 << 16).decode()
    os.close(ours)
    tables = screen.split("\x1b[H")[1:]
    assert len(tables) >= 3
    for table in tables[:3]:
        lines = [line.removesuffix("\x1b[K") for line in table.splitlines()]
        assert lines[2].split()[:2] == ["HOST", "STATE"]
        assert lines[3].split()[:2] == [beacon.key, "ready"]
        assert lines[4].split()[:4] == [closed, "cannot", "be", "used"]
        assert lines[5].startswith(f"{closed}: nobody listens at")
        assert max(map(len, lines)) < 80
    assert screen.endswith("\x1b[J")


def read_until(fd, enough):
    text, end = "", time.monotonic() + 20 * FACTOR
    while not enough(text):
        assert select.select([fd], [], [], max(0.0, end - time.monotonic()))[0], text
        text += os.read(fd, 1 << 16).decode()
    return text


def test_one_that_does_not_answer_holds_up_no_other_and_nobody_waits_for_it_at_the_end(machines, beacon, tmp_path):
    with Beacon(tmp_path / "frozen") as frozen:
        machines.write_text(json.dumps({one.key: {"passwd": one.password} for one in (beacon, frozen)}))
        with watching(machines, "--watch=0.1") as program:
            program.wait_for(frozen.key)
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                before = len(rows(program.out, beacon.key))
                program.wait_for(beacon.key, before + 10)
                began = time.monotonic()
                program.signal(signal.SIGINT)
                assert program.finish() == 0
                assert time.monotonic() - began < 3 * FACTOR
            finally:
                os.kill(frozen.pid, signal.SIGCONT)


def test_nobody_reads_it(machines):
    ours, theirs = os.pipe()
    with watching(machines, "--watch=0.1", stdout=theirs) as program:
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        assert (program.process.wait(20 * FACTOR), program.err) == (0, "")


def test_a_slow_watch_stays_connected(machines, beacon):
    """A session ends of which nothing is heard for 10 s."""
    with watching(machines, "--watch=13") as program:
        program.wait_for(beacon.key, 2, seconds=40)
        program.signal(signal.SIGINT)
        assert program.finish() == 0
        assert len(rows(program.out, beacon.key)) == 2
    assert beacon.log.count("logged in") == 1


@pytest.mark.parametrize(("words", "seconds"), [([], None), (["--watch"], 2.0), (["--watch=0.5", "lab"], 0.5)])
def test_how_often(words, seconds):
    assert build_hosts_parser().parse_args(words).watch == seconds


@pytest.mark.parametrize("value", ["lab", "0", "nan", "-1", "1e9"])
def test_what_is_no_number_of_seconds(value, capsys):
    with pytest.raises(SystemExit):
        build_hosts_parser().parse_args([f"--watch={value}"])
    assert f"{value!r} is no number of seconds from 0.1 to 86400: write --watch=5, say" in capsys.readouterr().err
