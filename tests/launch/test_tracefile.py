"""launch.tracefile: from the events of ranks to a file that a viewer opens."""

from __future__ import annotations

import json
import marshal

import pytest
from tracework import TraceFile

from klyng_mp.communicator.tracing import ARRIVED, NOBODY
from klyng_mp.launch.tracefile import RankTrace, write_trace

ABOUT = {"program": "app.py", "pid": 9, "ranks": 2, "missing": {}}
MAIN, OTHER = 2**47, 77  # threads


def call(name, begin, end, peer=NOBODY, tag="", **more):
    values = {"thread": MAIN, "size": -1, "context": 4, "posted": None, **more}
    posted = () if values["posted"] is None else (values["posted"],)
    return name, begin, end, values["thread"], peer, tag, values["size"], values["context"], *posted


@pytest.fixture
def write(tmp_path):
    """Write the events of ranks and return the file as a reader sees it."""

    def written(*ranks, dropped=0, **about):
        traces = {
            rank: RankTrace(100 + rank, MAIN, marshal.dumps(events), dropped) for rank, events in enumerate(ranks)
        }
        write_trace(str(tmp_path / "trace.json"), traces, {**ABOUT, "ranks": len(ranks), **about})
        return TraceFile(tmp_path / "trace.json")

    return written


def test_a_lane_a_rank_a_bar_a_call_an_arrow_a_message(write, tmp_path):
    found = write(
        [call("send", 5_000, 6_500, 1, 7, size=100)],
        [call("recv", 3_000, 8_000, 0, 7), call("barrier", 9_000, 9_500)],
    )
    assert found.lanes == {0: "rank 0 (pid 100)", 1: "rank 1 (pid 101)"}
    assert [(bar["ts"], bar["dur"], bar["args"]) for bar in found.bars[0]] == [
        (2.0, 1.5, {"to": 1, "tag": 7, "bytes": 100})
    ]
    assert [(bar["name"], bar["args"]) for bar in found.bars[1]] == [("recv", {"from": 0, "tag": 7}), ("barrier", {})]
    assert found.arrows == [((0, "send", 2.0), (1, "recv", 4.999))]
    assert found.about == {**ABOUT, "start_ns": 3_000, "dropped": {}}
    raw = json.loads((tmp_path / "trace.json").read_text())
    assert raw["traceEvents"][0]["args"] == {"name": "klyng-mp run app.py"}


def test_messages_with_the_same_envelope_are_taken_in_the_order_of_their_receives(write):
    """Two requests are waited for in the other order; a message of another tag and one of another context differ."""
    found = write(
        [
            call("isend", 10_000, 11_000, 1, 7),
            call("send", 20_000, 21_000, 1, 7),
            call("send", 30_000, 31_000, 1, 8),
            call("send", 40_000, 41_000, 1, 7, context=6),
        ],
        [
            call("irecv", 1_000, 2_000),
            call("irecv", 3_000, 4_000),
            call("recv", 50_000, 51_000, 0, 8),
            call("recv", 52_000, 53_000, 0, 7, context=6),
            call(ARRIVED, 60_000, 61_000, 0, 7, posted=3_000),
            call(ARRIVED, 70_000, 71_000, 0, 7, posted=1_000),
        ],
    )
    assert [(start[2], end[2]) for start, end in found.arrows] == [
        (9.0, 69.999),
        (19.0, 59.999),
        (29.0, 49.999),
        (39.0, 51.999),
    ]


def test_a_message_that_nobody_received_has_no_arrow(write):
    found = write([call("send", 1, 2, 1, 7), call("send", 3, 4, 1, "7")], [call("recv", 5, 9, 0, "7")])
    assert [(start[2], end[1]) for start, end in found.arrows] == [(0.002, "recv")]


def test_what_could_not_be_gets_no_arrow(write):
    """A send that was withdrawn is counted, too: an arrow into the past is left out."""
    assert write([call("send", 100, 110, 1, 7)], [call("recv", 5, 9, 0, 7)]).arrows == []


def test_a_message_to_oneself(write):
    found = write([call("send", 1_000, 2_000, 0, 1), call("recv", 3_000, 4_000, 0, 1)])
    assert found.arrows == [((0, "send", 0.0), (0, "recv", 2.999))]


def test_threads_have_lanes_of_their_own(write):
    both = [call("probe", 1_000, 9_000), call("barrier", 2_000, 20_000, thread=OTHER)]
    found = write(both, both)
    assert sorted(found.lanes.items()) == [
        (0, "rank 0 (pid 100)"),
        (1, "rank 1 (pid 101)"),
        (2, "rank 0 (pid 100), thread 1"),
        (3, "rank 1 (pid 101), thread 1"),
    ]
    assert [found.names(lane) for lane in range(4)] == [["probe"], ["probe"], ["barrier"], ["barrier"]]


def test_what_a_wait_is_for(write):
    (bar,) = write([call("wait", 1, 5, tag="irecv(source=0, tag=1)")]).bars[0]
    assert bar["args"] == {"for": "irecv(source=0, tag=1)"}


def test_calls_within_calls(write):
    found = write([call(ARRIVED, 4_000, 5_000, 0, 1, posted=1_000), call("sendrecv", 1_000, 8_000, 0, 1)])
    assert found.names(0) == ["sendrecv", ARRIVED]
    assert found.arrows == [((0, "sendrecv", 0.0), (0, ARRIVED, 3.999))]


def test_what_is_missing_or_dropped_is_said(write):
    found = write([], dropped=3, ranks=2, missing={"1": "was killed by SIGKILL"})
    assert found.about["dropped"] == {"0": 3}
    assert found.about["missing"] == {"1": "was killed by SIGKILL"}
    assert found.lanes == {0: "rank 0 (pid 100)"}
    assert write().lanes == {}
