"""Transports: how messages move between two ranks.

Layer: transports. `TRANSPORTS` names every transport there is; a new one is one file and one row.
"""

from __future__ import annotations

from klyng_mp.native import core
from klyng_mp.transports.memory import MemoryTransport
from klyng_mp.transports.shm import ShmTransport
from klyng_mp.transports.stream import StreamTransport

__all__ = ["TRANSPORTS"]

TRANSPORTS: dict[str, type[MemoryTransport | ShmTransport | StreamTransport]] = {
    "memory": MemoryTransport,
    "stream": StreamTransport,
}
if core is not None:
    TRANSPORTS["shm"] = ShmTransport
