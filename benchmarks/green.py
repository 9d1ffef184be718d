"""What do ranks that take turns in one process cost, beside the same programs as asyncio tasks with queues?

Each reading is of a process of its own, which prints what it measured; medians of alternating rounds:

    python benchmarks/green.py [--rounds N] [--json FILE] [--ranks N] [--many N] [--hops N]

* ``World(10_000, green=True)``: enter it, send a number once around a ring in which all are alive and three frames
  deep, leave it: at most 3 s; memory at its peak above that of the idle interpreter: at most 100 MB, 10 kB a rank.
* a hop, that is a send, a switch, and a receive: at most 2 us.
* an ``allreduce`` over 10 000 ranks, of five in a row after a first one: at most 0.5 s.
* 100 000 ranks do the first of these, too; how long it takes is in the table, without a limit.

What the sides do is in ``green_peer.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common import Figure, alternate, binary, figure_arguments, median, publish, run_command, seconds, text_table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

PEER = Path(__file__).resolve().with_name("green_peer.py")
RING_LIMIT = 3.0
BYTES_LIMIT = 100e6
HOP_LIMIT = 2e-6
ALLREDUCE_LIMIT = 0.5
OURS, THEIRS = "klyng_mp", "asyncio"


def measure(side: str, what: str, count: int) -> Callable[[], float]:
    """Return a measure of one side: what its process says."""

    def once() -> float:
        _, output = run_command([sys.executable, str(PEER), side, what, str(count)])
        reading: float = json.loads(output)
        return reading

    return once


def main() -> None:
    parser = figure_arguments(__doc__, rounds=5)
    parser.add_argument("--ranks", type=int, default=10_000, metavar="N", help="ranks (default: %(default)s)")
    parser.add_argument("--many", type=int, default=100_000, metavar="N", help="many ranks (default: %(default)s)")
    parser.add_argument("--hops", type=int, default=100_000, metavar="N", help="hops (default: %(default)s)")
    options = parser.parse_args()

    rows = {
        "ring": options.ranks,
        "bytes": options.ranks,
        "hop": options.hops,
        "allreduce": options.ranks,
    }
    measures = {
        f"{what}, {side}": measure(side, what, count) for what, count in rows.items() for side in (OURS, THEIRS)
    }
    samples = alternate(measures, options.rounds, warmup=0)
    samples |= alternate({"many": measure(OURS, "ring", options.many)}, 1, warmup=0)
    medians = {name: median(values) for name, values in samples.items()}

    table = []
    for what, show in {"ring": seconds, "bytes": binary, "hop": seconds, "allreduce": seconds}.items():
        ours, theirs = medians[f"{what}, {OURS}"], medians[f"{what}, {THEIRS}"]
        table.append([what, str(rows[what]), show(ours), show(theirs), f"{ours / theirs:.2f}"])
    table.append(["ring", str(options.many), seconds(medians["many"]), "-", "-"])
    print(text_table(["", "count", OURS, THEIRS, "ratio"], table), end="\n\n")
    figures = [
        Figure(f"{options.ranks} ranks: enter, once around, leave", medians[f"ring, {OURS}"], RING_LIMIT),
        Figure(f"memory of {options.ranks} ranks that wait", medians[f"bytes, {OURS}"], BYTES_LIMIT, unit="bytes"),
        Figure("a hop", medians[f"hop, {OURS}"], HOP_LIMIT),
        Figure(f"allreduce over {options.ranks} ranks", medians[f"allreduce, {OURS}"], ALLREDUCE_LIMIT),
    ]
    publish(figures, samples, options.json)


if __name__ == "__main__":
    main()
