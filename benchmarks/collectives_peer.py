"""What the ranks of ``collectives.py`` do: the same calls on klyng_mp's communicator and mpi4py's.

As a script this is the peer's program. Rank 0 prints the seconds of every row as one line of JSON:

    mpiexec -n 2 python benchmarks/collectives_peer.py small [--quick]

* ``small``: barrier, and bcast, allreduce, allgather and alltoall of a small object (allreduce: of an integer);
* ``arrays``: bcast and allreduce of arrays as objects, and by mpi4py also into buffers that are ready;
* ``every``: each collective of klyng_mp with a small object; mpi4py has not all of them.

A row is the time of one call: from the first rank's start of some calls in a row until the last rank's end of them,
by their number, when all are warm. The clocks of the ranks are one, perf_counter counts from the start of the machine.

Arrays are written before they are given, by each rank that gives one, and summed by each rank that gets one, on every
side, and the time has that in it: what arrives is used, and no side gains by not touching the pages.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from common import MIB, BenchmarkError, binary

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ARRAY_NAMES", "RANKS", "SIZES", "SMALL_NAMES", "array_row", "buffer_row", "measure", "of_ranks"]

RANKS = {"small": (2, 8), "arrays": (2, 4), "every": (64,)}
SMALL_NAMES = ("barrier", "bcast", "allreduce", "allgather", "alltoall")
ARRAY_NAMES = ("bcast", "allreduce")
SIZES = (MIB, 16 * MIB)
WARM_UP = 10  # one part in so many comes before
MANY = 8  # ranks; the number from which calls are slow enough for fewer of them


class Counts(NamedTuple):
    """How often each call is made in one round."""

    small: int
    small_of_many: int
    spinning: int  # the same, of a peer: where ranks that share a core wait by spinning, a call takes milliseconds
    arrays: int
    every: int


FULL = Counts(small=2000, small_of_many=1000, spinning=200, arrays=20, every=10)
QUICK = Counts(small=20, small_of_many=5, spinning=2, arrays=1, every=1)


class Call(NamedTuple):
    """One collective as a rank makes it, and what it returns there."""

    make: Callable[[], Any]
    expected: Any


def of_ranks(row: str, ranks: int) -> str:
    """Return the name of a row of one program that tells the number of ranks, too."""
    return f"{row}, {ranks} ranks"


def array_row(name: str, size: int) -> str:
    """Return the name of the row in which an array of `size` bytes is an object."""
    return f"{name} of {binary(size)}"


def buffer_row(row: str) -> str:
    """Return the name of the row beside `row` in which the array goes into a ready buffer."""
    return f"{row}, buffer"


def measure(comm: Any, program: str, *, mpi: bool, quick: bool) -> dict[str, float]:
    """Run `program` on a communicator of either kind; return the seconds of each row, which count at rank 0."""
    counts = QUICK if quick else FULL
    if program == "arrays":
        rows = time_arrays(comm, counts.arrays, mpi=mpi)
    else:
        calls = calls_of(comm)
        names = tuple(calls) if program == "every" else SMALL_NAMES
        count = count_of(counts, program, comm.size, mpi=mpi)
        rows = {name: time_call(comm, name, calls[name], count) for name in names}
    return {of_ranks(row, comm.size): took for row, took in rows.items()}


def count_of(counts: Counts, program: str, ranks: int, *, mpi: bool) -> int:
    """Return how often a call with a small object is made."""
    if program == "every":
        return counts.every
    if ranks < MANY:
        return counts.small
    return counts.spinning if mpi else counts.small_of_many


def check(what: str, got: Any, expected: Any) -> None:
    """Refuse a wrong result: a time of it would mean nothing."""
    if got != expected:
        raise BenchmarkError(f"{what} returned {got!r} where it is {expected!r}")


def span(comm: Any, body: Callable[[int], None], count: int) -> float:
    """Warm `body` up, let it make `count` calls, and return the seconds of one, at rank 0."""
    body(count // WARM_UP + 1)
    comm.barrier()
    started = time.perf_counter()
    body(count)
    spans = comm.gather((started, time.perf_counter()), root=0)
    if spans is None:
        return 0.0  # only what rank 0 says counts
    return (max(end for _, end in spans) - min(start for start, _ in spans)) / count


# Small objects


def small_object(number: int) -> dict[str, Any]:
    """Return the small object that `number` tells from others."""
    return {"a": number, "b": [1, 2, 3]}


def calls_of(comm: Any) -> dict[str, Call]:
    """Return every collective by name, with a small object, or an integer where objects are added."""
    rank, size = comm.rank, comm.size
    mine, root_has = small_object(rank), small_object(1) if rank == 0 else None
    everyone = [small_object(other) for other in range(size)]
    total, before = size * (size - 1) // 2, rank * (rank - 1) // 2
    return {
        "barrier": Call(comm.barrier, None),
        "bcast": Call(lambda: comm.bcast(root_has, root=0), small_object(1)),
        "scatter": Call(lambda: comm.scatter(everyone if rank == 0 else None, root=0), mine),
        "gather": Call(lambda: comm.gather(mine, root=0), everyone if rank == 0 else None),
        "allgather": Call(lambda: comm.allgather(mine), everyone),
        "alltoall": Call(lambda: comm.alltoall(everyone), [mine] * size),
        "reduce": Call(lambda: comm.reduce(rank, root=0), total if rank == 0 else None),
        "allreduce": Call(lambda: comm.allreduce(rank), total),
        "reduce_scatter": Call(lambda: comm.reduce_scatter([rank] * size), total),
        "scan": Call(lambda: comm.scan(rank), before + rank),
        "exscan": Call(lambda: comm.exscan(rank), before if rank else None),
    }


def time_call(comm: Any, name: str, call: Call, count: int) -> float:
    """Check a call once, and return the seconds of one of `count` in a row."""
    if name == "barrier":
        check_barrier(comm)
    check(name, call.make(), call.expected)
    make = call.make

    def body(times: int) -> None:
        for _ in range(times):
            make()

    return span(comm, body, count)


def check_barrier(comm: Any) -> None:
    """Refuse a barrier that a rank leaves before each has come."""
    came = time.perf_counter()
    comm.barrier()
    times = comm.allgather((came, time.perf_counter()))
    check("barrier", min(left for _, left in times) >= max(here for here, _ in times), True)


# Arrays


def time_arrays(comm: Any, count: int, *, mpi: bool) -> dict[str, float]:
    """Time the collectives of arrays, as objects and, of mpi4py, into ready buffers."""
    rows = {}
    for size in SIZES:
        bcast, allreduce = array_row("bcast", size), array_row("allreduce", size)
        rows[bcast] = span(comm, bcast_body(comm, size), count)
        rows[allreduce] = span(comm, allreduce_body(comm, size), count)
        if mpi:
            rows[buffer_row(bcast)] = span(comm, bcast_buffer_body(comm, size), count)
            rows[buffer_row(allreduce)] = span(comm, allreduce_buffer_body(comm, size), count)
    return rows


def array_of(size: int) -> Any:
    import numpy as np

    return np.zeros(size // 8)


def check_sum(what: str, array: Any, each: int) -> None:
    """Sum an array, all of whose numbers are to be `each`."""
    check(what, array.sum(), array.size * each)


def bcast_body(comm: Any, size: int) -> Callable[[int], None]:
    """Return what writes an array at the root, gives it to all as an object, and sums what each has then."""
    array = array_of(size) if comm.rank == 0 else None

    def body(times: int) -> None:
        for turn in range(times):
            if array is not None:
                array[:] = turn
            check_sum("bcast", comm.bcast(array, root=0), turn)

    return body


def bcast_buffer_body(comm: Any, size: int) -> Callable[[int], None]:
    array = array_of(size)

    def body(times: int) -> None:
        for turn in range(times):
            if comm.rank == 0:
                array[:] = turn
            comm.Bcast(array, root=0)
            check_sum("Bcast", array, turn)

    return body


def allreduce_body(comm: Any, size: int) -> Callable[[int], None]:
    """Return what writes an array at each rank, adds them all as objects, and sums what each has then."""
    array = array_of(size)
    total = comm.size * (comm.size - 1) // 2

    def body(times: int) -> None:
        for turn in range(times):
            array[:] = turn + comm.rank
            check_sum("allreduce", comm.allreduce(array), comm.size * turn + total)

    return body


def allreduce_buffer_body(comm: Any, size: int) -> Callable[[int], None]:
    mine, added = array_of(size), array_of(size)
    total = comm.size * (comm.size - 1) // 2

    def body(times: int) -> None:
        for turn in range(times):
            mine[:] = turn + comm.rank
            comm.Allreduce(mine, added)
            check_sum("Allreduce", added, comm.size * turn + total)

    return body


def main() -> None:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rows = measure(comm, sys.argv[1], mpi=True, quick="--quick" in sys.argv)
    if comm.rank == 0:
        print("report " + json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
