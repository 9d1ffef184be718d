"""What the command does with what its ranks hand over of their time: a table, a picture and a trace.

Layer: launch; imported only by a command that was asked for one of them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from klyng_mp.launch.heatmap import save_heat_map
from klyng_mp.launch.statistics import format_table
from klyng_mp.launch.tracefile import RankTrace, write_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from klyng_mp.launch.program import ProgramOptions

__all__ = ["Profiles"]


class Profiles:
    """The profiles of a program's ranks.

    Args:
        profiles: by rank, (its statistics, its trace or None) of those that have handed theirs over.
        missing: what became of the other ranks, as phrases.
        program: its name.
    """

    def __init__(self, profiles: Mapping[int, tuple[Any, ...]], missing: Mapping[int, str], program: str) -> None:
        self._statistics = [profiles[rank][0] for rank in sorted(profiles)]
        self._traces = {rank: RankTrace(*trace) for rank, (_, trace) in profiles.items() if trace is not None}
        self._missing = missing
        self._program = program

    def write(self, options: ProgramOptions) -> list[str]:
        """Print and write what the options ask for; return what went wrong, as sentences."""
        if options.stats:
            self._print_table()
        troubles = []
        if options.stats_png is not None:
            picture = options.stats_png
            troubles += _try(picture, lambda: save_heat_map(self._statistics, picture))
        if options.trace is not None:
            file = options.trace
            troubles += _try(file, lambda: write_trace(file, self._traces, self._about()))
        return troubles

    def _print_table(self) -> None:
        print(format_table(self._statistics), file=sys.stderr)
        for rank, phrase in self._missing.items():
            print(f"rank {rank} {phrase}, and what it did is not known", file=sys.stderr)

    def _about(self) -> dict[str, Any]:
        return {
            "program": self._program,
            "pid": os.getpid(),
            "ranks": len(self._statistics) + len(self._missing),
            "missing": {str(rank): phrase for rank, phrase in self._missing.items()},
        }


def _try(path: str, write: Callable[[], None]) -> list[str]:
    try:
        write()
    except OSError as error:
        return [f"{path} was not written: {error.strerror or error}"]
    return []
