"""Transports: how messages move between two ranks.

Layer: transports. `TRANSPORTS` names every transport there is; a new one is one file and one row.
"""

from __future__ import annotations

from klyng_mp.native import core

__all__ = ["TRANSPORTS"]

# By the names of their classes, so that whoever needs one does not import the others.
TRANSPORTS = {
    "memory": "klyng_mp.transports.memory.MemoryTransport",
    "stream": "klyng_mp.transports.stream.StreamTransport",
    "mpi": "klyng_mp.transports.mpi.MpiTransport",
}
if core is not None:
    TRANSPORTS["shm"] = "klyng_mp.transports.shm.ShmTransport"
