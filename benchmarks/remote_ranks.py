"""What the ranks of remote.py do; it travels to their hosts, with `callables`."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import klyng_mp

__all__ = ["allreduces", "exchange", "exchange_by_queues"]

MIB = 1 << 20
LARGE_BYTES = 16 * MIB
SMALL = ("a small object", 42)  # as in streams.py


@functools.cache
def object_of(kind: str) -> Any:
    import numpy as np

    return SMALL if kind == "small" else np.frombuffer(os.urandom(MIB) * (LARGE_BYTES // MIB), dtype=np.uint8)


def exchange(kind: str, calls: int) -> float:
    """Return, in the first of two ranks, the seconds of one exchange: an object there, and it or nothing back."""
    comm = klyng_mp.comm()
    if comm.rank:
        for _ in range(1 + calls):
            got = comm.recv(0)
            comm.send(got if kind == "small" else None, 0)
        return 0.0
    obj = object_of(kind)
    comm.send(obj, 1)  # until this is back, the other rank may not have begun its run
    comm.recv(1)
    began = time.perf_counter()
    for _ in range(calls):
        comm.send(obj, 1)
        comm.recv(1)
    return (time.perf_counter() - began) / calls


def exchange_by_queues(there: Any, back: Any, calls: int) -> float:
    """Return, in the first of two ranks, the seconds of one exchange of a small object by queues."""
    if klyng_mp.rank():
        for _ in range(1 + calls):
            back.put(there.get())
        return 0.0
    there.put(SMALL)  # until this is back, the other rank may not have begun its run, nor the queues moved
    back.get()
    began = time.perf_counter()
    for _ in range(calls):
        there.put(SMALL)
        back.get()
    return (time.perf_counter() - began) / calls


def allreduces(calls: int) -> float:
    """Return the seconds of one allreduce of an int.

    Raises:
        RuntimeError: one had a wrong result.
    """
    comm = klyng_mp.comm()
    began = time.perf_counter()
    for call in range(calls):
        found = comm.allreduce(comm.rank + call)
        if found != comm.size * (comm.size - 1) // 2 + call * comm.size:
            raise RuntimeError(f"allreduce over {comm.size} ranks returned {found}")
    return (time.perf_counter() - began) / calls
