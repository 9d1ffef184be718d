"""launch.profile: what the command says and writes of its ranks' time."""

from __future__ import annotations

import marshal

import pytest
from tracework import TraceFile

from klyng_mp.launch.profile import Profiles
from klyng_mp.launch.program import ProgramOptions
from klyng_mp.launch.statistics import format_table, unknown


def options(**more):
    return ProgramOptions("code", "pass", size=2, **more)


@pytest.fixture
def profiles():
    trace = 12, 34, marshal.dumps([("barrier", 1, 2, 34, -2, "", -1, 4)]), 0
    return Profiles({0: (unknown(0), trace)}, {1: "was killed by SIGKILL"}, "-c")


def test_nothing_is_done_unasked(profiles, capsys):
    assert profiles.write(options()) == []
    assert capsys.readouterr() == ("", "")


def test_the_table_goes_to_standard_error_with_who_is_missing(profiles, capsys):
    assert profiles.write(options(stats=True)) == []
    out, err = capsys.readouterr()
    assert out == ""
    assert err == format_table([unknown(0)]) + "\nrank 1 was killed by SIGKILL, and what it did is not known\n"


def test_the_trace_says_who_is_missing(profiles, tmp_path):
    assert profiles.write(options(trace=str(tmp_path / "t.json"))) == []
    found = TraceFile(tmp_path / "t.json")
    assert (found.about["ranks"], found.about["missing"]) == (2, {"1": "was killed by SIGKILL"})
    assert found.names(0) == ["barrier"]


@pytest.mark.may_leave("fds", why="matplotlib keeps the fonts open that it has read")
def test_what_cannot_be_written_is_a_sentence_and_the_rest_is_written(profiles, tmp_path):
    pytest.importorskip("matplotlib")
    picture = str(tmp_path / "p.png")
    gone = str(tmp_path / "gone" / "t.json")
    assert profiles.write(options(stats_png=picture, trace=gone)) == [
        f"{gone} was not written: No such file or directory"
    ]
    assert (tmp_path / "p.png").exists()
