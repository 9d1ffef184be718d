"""What a reader of traces checks: that a file is one, that bars nest, and that arrows go from a bar to a later one."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path


class TraceFile:
    """A trace that was written; making one checks what holds for all.

    Attributes:
        about: what the file says of itself.
        lanes: the name of each lane.
        bars: of each lane, in the order in which they began.
        arrows: pairs of (lane, name of the bar, microseconds), the sender's and the receiver's.
    """

    def __init__(self, path):
        loaded = json.loads(Path(path).read_text())
        events = loaded["traceEvents"]
        self.about = loaded["otherData"]
        self.lanes = {one["tid"]: one["args"]["name"] for one in events if one["name"] == "thread_name"}
        self.bars = defaultdict(list)
        for event in events:
            assert event["pid"] == self.about["pid"]
            if event["ph"] == "X":
                self.bars[event["tid"]].append(event)
        assert set(self.bars) <= set(self.lanes)
        for bars in self.bars.values():
            bars.sort(key=lambda bar: (bar["ts"], -bar["dur"]))
            check_nesting(bars)
        self.arrows = [self._arrow(*pair) for pair in pairs(events)]

    def names(self, lane):
        return [bar["name"] for bar in self.bars[lane]]

    def _arrow(self, start, end):
        assert start["ts"] <= end["ts"]
        return self._foot(start), self._foot(end)

    def _foot(self, half):
        """Return the innermost bar that is open where an arrow begins or ends."""
        time = half["ts"]
        around = [bar for bar in self.bars[half["tid"]] if bar["ts"] <= time < bar["ts"] + bar["dur"] + 0.0005]
        assert around, f"an arrow that hangs in the air: {half}"
        return half["tid"], around[-1]["name"], time


def check_nesting(bars):
    open_until = []
    for bar in bars:
        end = bar["ts"] + bar["dur"]
        while open_until and open_until[-1] <= bar["ts"] + 0.0005:
            open_until.pop()
        assert not open_until or end <= open_until[-1] + 0.0005, f"{bar} is in part within another"
        open_until.append(end)


def pairs(events):
    starts = {one["id"]: one for one in events if one["ph"] == "s"}
    ends = {one["id"]: one for one in events if one["ph"] == "f"}
    assert set(starts) == set(ends)
    assert all(one["bp"] == "e" for one in ends.values())
    return [(starts[number], ends[number]) for number in sorted(starts)]
