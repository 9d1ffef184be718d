"""cli.ps: what it finds, what it believes, and how it shows it."""

from __future__ import annotations

import json
import os
import socket

import hangwork
import programs
import pytest

import klyng_mp as mp
from klyng_mp.cli import ps
from klyng_mp.cli.main import main
from klyng_mp.launch.listener import ADDRESS
from klyng_mp.launch.state import SILENT, WAITING, RankState

RANKS = [
    RankState(0, 10, WAITING, call="recv(source=1, tag=0)", peers=(1,), where="app.py:3 in main", sent={1: 2}),
    RankState(1, 11, SILENT, stack="at app.py:9 in work\nat app.py:1 in <module>"),
]
REPORT = {"supervisor": 2, "driver": 2**22 + 1, "worlds": [{"size": 2, "run": 1, "ranks": RANKS}]}


@pytest.fixture
def world(tmp_path):
    """Give a World whose rank 0 waits and whose rank 1 computes, and its ranks' process numbers."""
    programs.make_gates(tmp_path, 1)
    with mp.World(3) as world:
        pids = world.run(os.getpid)
        run = world.start(hangwork.wait_and_compute, tmp_path)
        assert programs.read_gate(tmp_path, 0) == "ready"
        programs.wait_until(lambda: "waits in recv" in world.report())
        yield pids
        run.cancel()


def test_a_table_has_a_line_for_each_rank(world, capsys):
    assert main(["ps"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(place for place, line in enumerate(lines) if f"3 ranks of process {os.getpid()}: " in line)
    assert lines[heading + 1].split() == ["RANK", "PID", "STATE", "CALL", "SINCE", "WHERE"]
    rows = lines[heading + 2 : heading + 5]
    assert [row.split()[:3] for row in rows] == [
        ["0", str(world[0]), "waiting"],
        ["1", str(world[1]), "computing"],
        ["2", str(world[2]), "ended"],
    ]
    assert "recv(source=1, tag='never')" in rows[0]
    assert f"{hangwork.__file__}:" in rows[0]
    assert "in compute" in rows[1]


@pytest.mark.parametrize("who", ["driver", "rank", "supervisor"])
def test_one_process_is_shown_in_detail(world, capsys, who):
    pid = {"driver": os.getpid(), "rank": world[1], "supervisor": programs.parent_of(world[1])}[who]
    assert main(["ps", str(pid)]) == 0
    text = capsys.readouterr().out
    assert f"rank 0 (process {world[0]}) waits in recv(source=1, tag='never') for rank 1, since" in text
    assert f"rank 1 (process {world[1]}) computes" in text


def test_json_has_the_records(world, capsys):
    assert main(["ps", "--json", str(world[0])]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["driver"] == os.getpid()
    first = report["worlds"][0]["ranks"][0]
    assert (first["rank"], first["pid"], first["peers"]) == (0, world[0], [1])


def test_the_command_is_found_by_its_own_number(tmp_path):
    programs.make_gates(tmp_path, 1)
    code = "import sys, hangwork\nfrom pathlib import Path\nhangwork.wait_and_compute(Path(sys.argv[1]))"
    path = {"PYTHONPATH": f"{programs.ROOT}:{programs.ROOT / 'tests'}"}
    words = ["-m", "klyng_mp", "-n", "3", "-c", code, tmp_path]
    with programs.Program(*words, cwd=tmp_path, env=path) as program:
        assert programs.read_gate(tmp_path, 0) == "ready"
        reports = ps.select(ps.collect(), program.pid)
        assert [state.phase for state in reports[0]["worlds"][0]["ranks"]][:2] == [WAITING, SILENT]


def test_a_process_without_ranks_is_said_to_have_none(capsys):
    assert main(["ps", "1"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "klyng-mp: error: process 1 has no ranks that you may see, and is none\n"


def test_a_wrong_word_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["ps", "everything"])
    assert caught.value.code == 2
    assert "klyng-mp ps --help" in capsys.readouterr().err


def test_who_is_not_who_the_address_says_is_not_believed():
    """Any user may take any name; the kernel says who has it."""
    with socket.socket(socket.AF_UNIX) as liar:
        liar.bind(ADDRESS.format(uid=os.geteuid(), pid=1))
        liar.listen()
        assert ps._ask(os.geteuid(), 1) is None
        assert (os.geteuid(), 1) in ps._addresses()


def test_nonsense_is_not_believed():
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(ADDRESS.format(uid=os.geteuid(), pid=os.getpid()))
        assert ps._ask(os.geteuid(), os.getpid()) is None  # nobody listens


def test_a_rank_selects_its_world_only():
    other = {"size": 1, "run": 1, "ranks": [RankState(0, 20, SILENT)]}
    both = {**REPORT, "worlds": [*REPORT["worlds"], other]}
    assert ps.select([both], 20)[0]["worlds"] == [other]
    assert ps.select([both], 2)[0]["worlds"] == both["worlds"]
    assert ps.select([both], 3) == []


def test_what_json_does_to_a_state_is_undone():
    record = json.loads(json.dumps(RANKS[0]._asdict()))
    assert ps._state_of(record) == RANKS[0]


def test_what_is_not_there_is_said():
    assert ps.render_table([]) == "there are no ranks"
    assert ps.render_detail([{**REPORT, "worlds": []}]) == "it has no ranks now"
    assert ps.render_table([REPORT]).startswith("2 ranks of process 4194305: (has ended)\n")
    assert "app.py:9 in work" in ps.render_table([REPORT])
    assert "app.py:1" not in ps.render_table([REPORT])
