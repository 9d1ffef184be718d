"""What the ranks of ``messaging.py`` do: the same loops on klyng_mp's communicator, mpi4py's and a pipe.

As a script this is the peer's program. Rank 0 prints the seconds of every row as one line of JSON:

    mpiexec -n 2 python benchmarks/messaging_peer.py pair [--quick]

* ``pair``: objects to and fro between two ranks, and small integers streaming from one to the other;
* ``ring``: a token round all ranks;
* ``exchange``: every rank sends to all others, and receives from all, 20 times.

Arrays are written before they are sent and summed by who receives them, on every side: what arrives is used,
and no side gains by not touching the pages. All times are of one message, but those of an exchange.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from common import KIB, MIB, BenchmarkError, binary, median

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Body = Callable[[int], float]  # does it so many times; returns the seconds of one
    Wait = Callable[[Sequence[Any]], Any]

__all__ = [
    "ARRAY_FROM",
    "RANKS",
    "PipeComm",
    "bounce_all",
    "buffer_row",
    "gift_row",
    "into_row",
    "measure",
    "sizes",
]

RANKS = {"pair": 2, "ring": 8, "exchange": 16}
ARRAY_FROM = 4 * KIB  # the size from which an object is an array; below it is bytes
MANY_TO = 64 * KIB
TAG = 0
SLICES = 5

OBJECTS: dict[str, Any] = {
    "small int": 42,
    "small dict": {"a": 1, "b": [1, 2, 3]},
    "64 KiB bytes": bytes(MANY_TO),
}


class Counts(NamedTuple):
    """How often each thing is done in one round."""

    small: int  # messages to and fro of at most MANY_TO bytes; fewer, the larger they are
    large: int  # the least of any size
    stream: int
    laps: int  # of a token
    exchanges: int


FULL = Counts(small=2000, large=5, stream=10_000, laps=500, exchanges=20)
QUICK = Counts(small=20, large=1, stream=50, laps=3, exchanges=2)
SPINNING_LAPS = 5  # where ranks that share a core wait by spinning, a hop takes milliseconds


def sizes(*, quick: bool) -> list[int]:
    """Return the sizes of the charts, in bytes, those of the table among them."""
    return [1, KIB, MIB, 16 * MIB] if quick else [4**power for power in range(14)]


def buffer_row(size: int) -> str:
    """Return the name of the row in which `size` bytes go into a ready buffer."""
    return f"{binary(size)}, buffer"


def into_row(size: int) -> str:
    """Return the name of the row in which our `size` bytes go into a ready buffer."""
    return f"{binary(size)}, recv_into"


def gift_row(size: int) -> str:
    """Return the name of the row in which `size` bytes are given away."""
    return f"{binary(size)}, given away"


def measure(
    comm: Any, waitall: Wait, program: str, *, quick: bool, empty: Callable[[int], Any] | None = None
) -> dict[str, float]:
    """Run `program` on a communicator of either kind; return the seconds of each row.

    `empty` is klyng_mp's, with its communicator; mpi4py's has none.
    """
    mpi = empty is None
    counts = QUICK if quick else FULL
    if program == "pair":
        rows = bounce_all(comm, quick=quick)
        rows["stream"] = timed(comm, lambda count: stream(comm, waitall, count), counts.stream)
        return rows | (bounce_buffers(comm, quick=quick) if empty is None else bounce_memory(comm, empty, quick=quick))
    if program == "ring":
        laps = min(counts.laps, SPINNING_LAPS) if mpi else counts.laps
        return {"ring": timed(comm, lambda count: circulate(comm, count), laps)}
    return {"exchange": exchange(comm, waitall, counts.exchanges)}


def timed(comm: Any, body: Body, count: int) -> float:
    """Warm `body` up, let all ranks begin together, and return what it says a message took.

    It is done `count` times in slices, and their median counts: a slice in which something else ran is left out.
    """
    slice_count = max(1, count // SLICES)
    body(slice_count // 2 + 1)
    comm.barrier()
    return median([body(slice_count) for _ in range(SLICES)])


def check(got: Any, expected: Any) -> None:
    """Refuse what is not what was sent: a time of it would mean nothing."""
    if got != expected:
        raise BenchmarkError(f"a message arrived as {got!r}, but it was {expected!r}")


# To and fro


def bounce_all(comm: Any, *, quick: bool) -> dict[str, float]:
    """Send every object and every size of the charts to and fro."""
    counts, rows = QUICK if quick else FULL, {}
    for name, value in OBJECTS.items():
        rows[name] = timed(comm, lambda count, value=value: bounce(comm, value, count), counts.small)
    for size in sizes(quick=quick):
        rows[binary(size)] = timed(comm, body_of(comm, size), trips(counts, size))
    return rows


def body_of(comm: Any, size: int) -> Body:
    """Return what sends `size` bytes as an object: an array, written and summed, or bytes."""
    if size < ARRAY_FROM:
        value = b"x" * size
        return lambda count: bounce(comm, value, count)
    array = array_of(size)
    return lambda count: bounce_array(comm, array, count)


def trips(counts: Counts, size: int) -> int:
    """Return how often `size` bytes go to and fro: larger ones less often, that each takes alike."""
    return max(counts.large, counts.small // max(1, size // MANY_TO))


def array_of(size: int) -> Any:
    import numpy as np

    return np.zeros(size // 8)


def bounce(comm: Any, value: Any, count: int) -> float:
    """Send an object from rank 0 to 1 and back, `count` times; return the seconds of one way."""
    got = value
    started = time.perf_counter()
    if comm.rank == 0:
        for _ in range(count):
            comm.send(value, 1, TAG)
            got = comm.recv(source=1, tag=TAG)
    else:
        for _ in range(count):
            got = comm.recv(source=0, tag=TAG)
            comm.send(value, 0, TAG)
    took = time.perf_counter() - started
    check(got, value)
    return took / count / 2


def bounce_array(comm: Any, array: Any, count: int) -> float:
    """Do as `bounce` with an array: written, sent as an object, received, summed, and so back."""
    started = time.perf_counter()
    if comm.rank == 0:
        for turn in range(count):
            array[:] = turn
            comm.send(array, 1, TAG)
            check(comm.recv(source=1, tag=TAG).sum(), turn * array.size)
    else:
        for turn in range(count):
            check(comm.recv(source=0, tag=TAG).sum(), turn * array.size)
            array[:] = turn
            comm.send(array, 0, TAG)
    return (time.perf_counter() - started) / count / 2


def bounce_buffers(comm: Any, *, quick: bool) -> dict[str, float]:
    """Send every size of the charts from a buffer into one that is ready, which only mpi4py can."""
    counts, rows = QUICK if quick else FULL, {}
    for size in sizes(quick=quick):
        body = buffer_body(comm, size) if size < ARRAY_FROM else array_buffer_body(comm, size)
        rows[buffer_row(size)] = timed(comm, body, trips(counts, size))
    return rows


def buffer_body(comm: Any, size: int) -> Body:
    mine, other = bytearray(size), bytearray(size)

    def body(count: int) -> float:
        started = time.perf_counter()
        if comm.rank == 0:
            for _ in range(count):
                comm.Send(mine, 1, TAG)
                comm.Recv(other, source=1, tag=TAG)
        else:
            for _ in range(count):
                comm.Recv(other, source=0, tag=TAG)
                comm.Send(mine, 0, TAG)
        return (time.perf_counter() - started) / count / 2

    return body


def array_buffer_body(comm: Any, size: int) -> Body:
    mine, other = array_of(size), array_of(size)

    def body(count: int) -> float:
        started = time.perf_counter()
        if comm.rank == 0:
            for turn in range(count):
                mine[:] = turn
                comm.Send(mine, 1, TAG)
                comm.Recv(other, source=1, tag=TAG)
                check(other.sum(), turn * other.size)
        else:
            for turn in range(count):
                comm.Recv(other, source=0, tag=TAG)
                check(other.sum(), turn * other.size)
                mine[:] = turn
                comm.Send(mine, 0, TAG)
        return (time.perf_counter() - started) / count / 2

    return body


def bounce_memory(comm: Any, empty: Callable[[int], Any], *, quick: bool) -> dict[str, float]:
    """Send large arrays of ours into a ready buffer, and give them away."""
    counts, rows = QUICK if quick else FULL, {}
    for size in (MIB, 16 * MIB):
        rows[into_row(size)] = timed(comm, into_body(comm, size), trips(counts, size))
        rows[gift_row(size)] = timed(comm, gift_body(comm, empty, size), trips(counts, size))
    rows["giving"] = timed(comm, giving_body(comm, empty, 16 * MIB), 10 * trips(counts, 16 * MIB))
    return rows


def into_body(comm: Any, size: int) -> Body:
    mine, other = array_of(size), array_of(size)
    peer = 1 - comm.rank

    def body(count: int) -> float:
        started = time.perf_counter()
        for turn in range(2 * count):
            if turn % 2 == comm.rank:
                mine[:] = turn
                comm.send(mine, peer, TAG)
            else:
                comm.recv_into(other, source=peer, tag=TAG)
                check(other.sum(), turn * other.size)
        return (time.perf_counter() - started) / count / 2

    return body


def gift_body(comm: Any, empty: Callable[[int], Any], size: int) -> Body:
    peer = 1 - comm.rank

    def body(count: int) -> float:
        started = time.perf_counter()
        for turn in range(2 * count):
            if turn % 2 == comm.rank:
                mine = empty(size // 8)
                mine[:] = turn
                comm.send(mine, peer, TAG, move=True)
            else:
                check(comm.recv(source=peer, tag=TAG).sum(), turn * size // 8)
        return (time.perf_counter() - started) / count / 2

    return body


def giving_body(comm: Any, empty: Callable[[int], Any], size: int) -> Body:
    """Return what gives arrays away and measures only that: nobody writes to them, so caches are as they were."""
    peer = 1 - comm.rank

    def body(count: int) -> float:
        took = 0.0
        for turn in range(2 * count):
            if turn % 2 == comm.rank:
                mine = empty(size // 8)
                started = time.perf_counter()
                comm.send(mine, peer, TAG, move=True)
                took += time.perf_counter() - started
            else:
                comm.recv(source=peer, tag=TAG)
        return took / count

    return body


# One way, round, and all to all


def stream(comm: Any, waitall: Wait, count: int) -> float:
    """Send `count` small integers to rank 1 without waiting for any; return the seconds of one.

    The clock runs until rank 1 says that it has them all.
    """
    started = time.perf_counter()
    if comm.rank == 0:
        waitall([comm.isend(number, 1, TAG) for number in range(count)])
        check(comm.recv(source=1, tag=TAG), count)
    else:
        for number in range(count):
            if (got := comm.recv(source=0, tag=TAG)) != number:
                check(got, number)
        comm.send(count, 0, TAG)
    return (time.perf_counter() - started) / count


def circulate(comm: Any, laps: int) -> float:
    """Send a token round all ranks, `laps` times; return the seconds of one hop."""
    last, following = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    started = time.perf_counter()
    if comm.rank == 0:
        for lap in range(laps):
            comm.send(lap, following, TAG)
            check(comm.recv(source=last, tag=TAG), lap)
    else:
        for _ in range(laps):
            comm.send(comm.recv(source=last, tag=TAG), following, TAG)
    return (time.perf_counter() - started) / laps / comm.size


def exchange(comm: Any, waitall: Wait, times: int) -> float:
    """Send from each rank to all others, `times` times; return the seconds from the first's start to the last's end.

    The clocks of the ranks are one: perf_counter counts from the start of the machine.
    """
    others = [other for other in range(comm.size) if other != comm.rank]

    def once(turn: int) -> None:
        requests = [comm.isend((comm.rank, turn), other, TAG) for other in others]
        for other in others:
            check(comm.recv(source=other, tag=TAG), (other, turn))
        waitall(requests)

    once(-1)
    comm.barrier()
    started = time.perf_counter()
    for turn in range(times):
        once(turn)
    spans = comm.gather((started, time.perf_counter()), root=0)
    if spans is None:
        return 0.0  # only what rank 0 says counts
    return max(end for _, end in spans) - min(start for start, _ in spans)


class PipeComm:
    """One end of a multiprocessing.Pipe, with as much of a communicator as `bounce_all` needs."""

    size = 2

    def __init__(self, connection: Any, rank: int) -> None:
        self.connection, self.rank = connection, rank

    def send(self, obj: Any, _dest: int, _tag: int) -> None:
        """Send to the other end; there is no one else."""
        self.connection.send(obj)

    def recv(self, *, source: int, tag: int) -> Any:  # noqa: ARG002 - named like a communicator's
        """Receive from the other end."""
        return self.connection.recv()

    def barrier(self) -> None:
        """Wait until the other end is here, too."""
        self.connection.send(None)
        self.connection.recv()


def main() -> None:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    program = sys.argv[1]
    if comm.size != RANKS[program]:
        raise BenchmarkError(f"{program} is of {RANKS[program]} ranks, not {comm.size}")
    rows = measure(comm, MPI.Request.waitall, program, quick="--quick" in sys.argv)
    if comm.rank == 0:
        print("report " + json.dumps(rows), flush=True)


if __name__ == "__main__":
    main()
