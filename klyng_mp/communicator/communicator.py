"""The communicator: what a rank's program sends and receives with.

Layer: communicator.

Threads: several may use it at once for messages between two ranks. Collectives are the exception that MPI makes, too:
one at a time on a communicator, and in the same order on every rank.
"""

from __future__ import annotations

from typing import Any

from klyng_mp.communicator import collectives
from klyng_mp.communicator.point_to_point import PointToPoint

__all__ = ["Communicator"]


class Communicator(PointToPoint):
    """A group of ranks and a private context for their messages; see `Base` for its arguments and attributes."""

    __slots__ = ()

    def barrier(self, *, timeout: float | None = None) -> None:
        """Wait until all ranks have come here; see `collectives.barrier`."""
        collectives.barrier(self, timeout=timeout)

    def bcast(self, obj: Any = None, root: int = 0, *, timeout: float | None = None) -> Any:
        """Give the root's object to all ranks; see `collectives.bcast`."""
        return collectives.bcast(self, obj, root, timeout=timeout)

    def gather(self, obj: object, root: int = 0, *, timeout: float | None = None) -> list[Any] | None:
        """Bring one object of each rank to the root; see `collectives.gather`."""
        return collectives.gather(self, obj, root, timeout=timeout)
