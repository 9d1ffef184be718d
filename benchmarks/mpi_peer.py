"""Plays through MPI, by klyng_mp and by mpi4py alone, in turns; rank 0 prints what it took, as JSON.

    mpiexec -n 2 python -m klyng_mp benchmarks/mpi_peer.py ROUNDS SMALL LARGE

SMALL and LARGE are how often a round plays with something small, and with an array of 16 MiB. What is printed are
seconds, of a message one way, or of a call: {"small, klyng_mp": [...], "small, mpi4py": [...], "large, ...": [...]}.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

import klyng_mp as mp

if TYPE_CHECKING:
    from collections.abc import Callable

OBJECT = ("a small object", 1, 2.5)
SMALL_BYTES, LARGE_BYTES = 1024, 16 * 1024 * 1024
TAG = 5


def ping_pong(send: Callable[[], Any], receive: Callable[[], Any], times: int) -> float:
    first, second = (send, receive) if mp.rank() == 0 else (receive, send)
    begin = perf_counter()
    for _ in range(times):
        first()
        second()
    return (perf_counter() - begin) / times / 2


def together(call: Callable[[], Any], times: int) -> float:
    begin = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - begin) / times


def main(rounds: int, small: int, large: int) -> None:
    ours = mp.comm()
    theirs = MPI.COMM_WORLD.Dup()
    other = 1 - ours.rank
    array, place = np.ones(LARGE_BYTES // 8), np.ones(LARGE_BYTES // 8)
    sides: dict[str, tuple[int, Callable[[int], float]]] = {}

    def play(name: str, times: int, *calls: Callable[[], Any]) -> None:
        half = len(calls) // 2
        how = ping_pong if half == 2 else together
        sides[f"{name}, klyng_mp"] = times, partial(how, *calls[:half])
        sides[f"{name}, mpi4py"] = times, partial(how, *calls[half:])

    play(
        "small", small,
        lambda: ours.send(OBJECT, other, TAG), lambda: ours.recv(other, TAG),
        lambda: theirs.send(OBJECT, other, TAG), lambda: theirs.recv(source=other, tag=TAG),
    )  # fmt: skip
    play(
        "large", large,
        lambda: ours.send(array, other, TAG), lambda: ours.recv_into(place, other, TAG),
        lambda: theirs.Send(array, other, TAG), lambda: theirs.Recv(place, other, TAG),
    )  # fmt: skip
    play("barrier", small, ours.barrier, theirs.Barrier)
    for size, times in ((SMALL_BYTES, small), (LARGE_BYTES, large)):
        own, room = array[: size // 8], place[: size // 8]
        name = f"{size >> 10} KiB"
        play(f"bcast {name}", times, partial(ours.bcast_into, room), partial(theirs.Bcast, room))
        play(f"allreduce {name}", times, partial(ours.allreduce_into, own, room), partial(theirs.Allreduce, own, room))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):  # the first one warms up
        for name, (times, how) in list(sides.items())[:: 1 if turn % 2 else -1]:
            theirs.Barrier()
            how((times + 1) // 2)  # what comes after the other kind is slower, whoever plays
            seconds = how(times)
            if turn:
                samples[name].append(seconds)
    if ours.rank == 0:
        print(json.dumps(samples))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
