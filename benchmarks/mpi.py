"""What does a message through MPI cost by klyng_mp, and a collective, beside mpi4py alone?

One mpiexec for each reading, of two ranks that play both by turns; medians of the rounds:

    python benchmarks/mpi.py [--rounds N] [--json FILE] [--small N] [--large N]

* a small object (a tuple of three), by ``send`` and ``recv`` of each: at most 1.5 times mpi4py's.
* an array of 16 MiB, by ``send`` and ``recv_into``, beside mpi4py's buffer methods: at most 1.1 times those.
* a barrier, and a broadcast and a sum of 1 KiB and of 16 MiB, by the calls that fill buffers; without a limit.

What the ranks do is in ``mpi_peer.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common import Figure, figure_arguments, find_mpiexec, median, publish, run_command, seconds, text_table

__all__ = ["main"]

PEER = Path(__file__).resolve().with_name("mpi_peer.py")
LIMITS = {"small": 1.5, "large": 1.1}
OURS, THEIRS = "klyng_mp", "mpi4py"


def main() -> None:
    parser = figure_arguments(__doc__, rounds=5)
    parser.add_argument("--small", type=int, default=5000, metavar="N", help="small objects (default: %(default)s)")
    parser.add_argument("--large", type=int, default=10, metavar="N", help="large arrays (default: %(default)s)")
    options = parser.parse_args()
    mpiexec = find_mpiexec()
    if mpiexec is None:
        return
    words = [str(PEER), str(options.rounds), str(options.small), str(options.large)]
    _, output = run_command([mpiexec, "-n", "2", sys.executable, "-m", "klyng_mp", *words])
    samples: dict[str, list[float]] = json.loads(output)

    table, figures = [], []
    for what, limit in LIMITS.items():
        ours, theirs = (median(samples[f"{what}, {side}"]) for side in (OURS, THEIRS))
        table.append([what, seconds(ours), seconds(theirs), f"{ours / theirs:.2f}"])
        figures.append(Figure(f"{what}, one way", ours, limit, theirs, THEIRS))
    for what in sorted({name.partition(", ")[0] for name in samples} - LIMITS.keys()):
        ours, theirs = (median(samples[f"{what}, {side}"]) for side in (OURS, THEIRS))
        table.append([what, seconds(ours), seconds(theirs), f"{ours / theirs:.2f}"])
    print(text_table(["a message one way, or a call", OURS, THEIRS, "ratio"], table), end="\n\n")
    publish(figures, samples, options.json)


if __name__ == "__main__":
    main()
