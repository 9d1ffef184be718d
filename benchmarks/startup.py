"""How long does it take until a program of four ranks has started, done nothing, and ended?

Two figures, each the median of alternating rounds of whole processes, from starting one to its end:

    python benchmarks/startup.py [--rounds N] [--json FILE]

* ``klyng-mp run -n 4`` of an empty script beside ``mpiexec -n 4 python -c "from mpi4py import MPI"``,
  the least that a Python program on MPI can do: at most 0.6 of it.
* ``import klyng_mp`` beside ``import multiprocessing.pool, multiprocessing.connection``, both less the
  time of ``python -c pass``: at most 1.5 times it.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from common import (
    Figure,
    alternate,
    figure_arguments,
    find_program,
    klyng_command,
    median,
    publish,
    wall_time,
)

__all__ = ["main"]

RANKS = 4
RUN_LIMIT = 0.6
IMPORT_LIMIT = 1.5


def measure_run(rounds: int) -> tuple[list[Figure], dict[str, list[float]]]:
    """Compare the two launchers on a program that does nothing; without MPI there is no figure."""
    mpiexec = find_program("mpiexec")
    if mpiexec is None or find_spec("mpi4py") is None:
        print("no mpiexec or no mpi4py here: the start of a program has no peer and is left out\n")
        return [], {}
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.py")
        empty.touch()
        mpi_import = [mpiexec, "-n", str(RANKS), sys.executable, "-c", "from mpi4py import MPI"]
        measures = {
            "klyng-mp run": wall_time(klyng_command(RANKS, str(empty))),
            "mpiexec mpi4py": wall_time(mpi_import),
        }
        samples = alternate(measures, rounds)
    ours, peer = (median(times) for times in samples.values())
    return [Figure(f"klyng-mp run -n {RANKS}, empty script", ours, RUN_LIMIT, peer, "mpiexec, mpi4py")], samples


def measure_import(rounds: int) -> tuple[list[Figure], dict[str, list[float]]]:
    """Compare the two imports, each net of the interpreter's own start."""
    programs = {
        "pass": "pass",
        "import klyng_mp": "import klyng_mp",
        "import multiprocessing": "import multiprocessing.pool, multiprocessing.connection",
    }
    measures = {name: wall_time([sys.executable, "-c", code]) for name, code in programs.items()}
    samples = alternate(measures, rounds)
    empty, ours, peer = (median(times) for times in samples.values())
    return [Figure("import klyng_mp, net", ours - empty, IMPORT_LIMIT, peer - empty, "multiprocessing")], samples


def main() -> None:
    options = figure_arguments(__doc__, rounds=30).parse_args()
    run_figures, run_samples = measure_run(options.rounds)
    import_figures, import_samples = measure_import(options.rounds)
    publish(run_figures + import_figures, run_samples | import_samples, options.json)


if __name__ == "__main__":
    main()
