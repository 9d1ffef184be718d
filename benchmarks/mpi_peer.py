"""Plays ping-pong through MPI, by klyng_mp and by mpi4py alone, in turns; rank 0 prints what it took, as JSON.

    mpiexec -n 2 python -m klyng_mp benchmarks/mpi_peer.py ROUNDS SMALL LARGE

SMALL and LARGE are how often a round plays with a small object, and with an array of 16 MiB. What is printed are
seconds one way: {"small, klyng_mp": [...], "small, mpi4py": [...], "large, ...": [...]}.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

import klyng_mp as mp

if TYPE_CHECKING:
    from collections.abc import Callable

OBJECT = ("a small object", 1, 2.5)
LARGE_BYTES = 16 * 1024 * 1024
TAG = 5


def play(send: Callable[[], Any], receive: Callable[[], Any], rank: int, times: int) -> float:
    first, second = (send, receive) if rank == 0 else (receive, send)
    begin = perf_counter()
    for _ in range(times):
        first()
        second()
    return (perf_counter() - begin) / times / 2


def main(rounds: int, small: int, large: int) -> None:
    ours = mp.comm()
    theirs = MPI.COMM_WORLD.Dup()
    rank, other = ours.rank, 1 - ours.rank
    array, place = np.ones(LARGE_BYTES // 8), np.ones(LARGE_BYTES // 8)
    sides: dict[str, tuple[int, Callable[[], Any], Callable[[], Any]]] = {
        "small, klyng_mp": (small, lambda: ours.send(OBJECT, other, TAG), lambda: ours.recv(other, TAG)),
        "small, mpi4py": (small, lambda: theirs.send(OBJECT, other, TAG), lambda: theirs.recv(source=other, tag=TAG)),
        "large, klyng_mp": (large, lambda: ours.send(array, other, TAG), lambda: ours.recv_into(place, other, TAG)),
        "large, mpi4py": (large, lambda: theirs.Send(array, other, TAG), lambda: theirs.Recv(place, other, TAG)),
    }
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):  # the first one warms up
        for name, (times, send, receive) in list(sides.items())[:: 1 if turn % 2 else -1]:
            theirs.Barrier()
            play(send, receive, rank, (times + 1) // 2)  # what comes after the other kind is slower, whoever plays
            seconds = play(send, receive, rank, times)
            if turn:
                samples[name].append(seconds)
    if rank == 0:
        print(json.dumps(samples))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
