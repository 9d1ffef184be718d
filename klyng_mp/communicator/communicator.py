"""The communicator: what a rank's program sends and receives with, and makes further ones of.

Layer: communicator.

Threads: several may use it at once for messages between two ranks. Collectives are the exception that MPI makes, too:
one at a time on a communicator, and in the same order on every rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator import algorithms, reducing
from klyng_mp.communicator.base import as_int
from klyng_mp.communicator.call import Call
from klyng_mp.communicator.collective_requests import NonBlockingCollectives
from klyng_mp.communicator.collectives_into import CollectivesInto
from klyng_mp.communicator.group import Group
from klyng_mp.communicator.reductions import MAX
from klyng_mp.communicator.topology import Grid
from klyng_mp.wire.frames import make_context, run_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Cartesian", "Communicator"]


class Communicator(CollectivesInto, NonBlockingCollectives):
    """A group of ranks and a private context for their messages; see `Base` for its arguments and attributes."""

    __slots__ = ()

    @property
    def group(self) -> Group:
        """Its ranks, as a group to make others of."""
        return Group(self.members)

    def split(self, color: int | None, key: int = 0, *, timeout: float | None = None) -> Communicator | None:
        """Make a communicator of the ranks that give the same color; all ranks of this one make the call.

        Args:
            color: an int; None to be in none.
            key: the new ranks are in its order, and those with the same key in the order of their ranks here.
            timeout: seconds; None for no limit.

        Returns:
            The new one that this rank is in, or None. It lives as long as the run.

        Raises:
            TypeError: color or key is no int; the call does not count.
            DeadlineError, PeerLostError, CollectiveMismatchError: as of a collective.

        Cost: that of an `allgather` of three ints.
        """
        color = None if color is None else as_int("split()", "color", color, "an int, or None to be in none")
        key = as_int("split()", "key", key, "an int")
        wishes, index = self._agree("split", timeout, color, key)
        if color is None:
            return None
        chosen = sorted((wish[1], rank) for rank, wish in enumerate(wishes) if wish[0] == color)
        made: Communicator = self._make(Communicator, index, [rank for _, rank in chosen])
        return made

    def dup(self, *, timeout: float | None = None) -> Communicator:
        """Make a communicator of the same ranks, whose messages do not meet those of this one; see `create_cart`."""
        made: Communicator = self._make(Communicator, self._agree_on_index("dup", timeout), range(self.size))
        return made

    def alone(self) -> Communicator:
        """Make a communicator of this rank only; no other takes part. It lives as long as the run."""
        endpoint = self.endpoint
        with endpoint.lock:
            index = endpoint.free_index  # others may use it too, as none of them is in both
            endpoint.free_index += 1
        made: Communicator = self._make(Communicator, index, [self.rank])
        return made

    def create(self, group: Group, *, timeout: float | None = None) -> Communicator | None:
        """Make a communicator of a group of this one's ranks; all ranks of this one make the call, with the same group.

        Returns:
            The new one, with the group's order of ranks, or None where this rank is not in it; see `split`.

        Raises:
            TypeError, ValueError: it is no group, or has others than this communicator; the call does not count.
        """
        if not isinstance(group, Group):
            raise TypeError(f"create() needs a Group, as the one of this communicator is, not {group!r}")
        strangers = [member for member in group if member not in self._ranks]
        if strangers:
            raise ValueError(f"create(): the group has processes that are not in this communicator: {strangers}")
        index = self._agree_on_index("create", timeout)
        ranks = [self.rank_of(member) for member in group]
        return self._make(Communicator, index, ranks) if self.rank in ranks else None

    def create_cart(
        self,
        dims: Sequence[int],
        periods: Sequence[bool] | bool = False,
        *,
        timeout: float | None = None,
    ) -> Cartesian | None:
        """Make a communicator whose ranks are the points of a grid; all ranks of this one make the call.

        Args:
            dims: the length of each dimension; their product is at most `size`. Ranks count through the last first.
            periods: for each dimension, or all, whether its ends are neighbours.
            timeout: seconds; None for no limit.

        Returns:
            The new one, or None on the ranks that are not needed.

        Raises:
            ValueError, TypeError: this is no such grid; the call does not count.

        Cost: that of an `allreduce` of an int.
        """
        grid = Grid(dims, periods)
        if grid.size > self.size:
            raise ValueError(f"create_cart(): a grid of {grid.size} points needs more than {self.size} ranks")
        index = self._agree_on_index("create_cart", timeout)
        if self.rank >= grid.size:
            return None
        made: Cartesian = self._make(Cartesian, index, range(grid.size))
        made.grid = grid
        return made

    # -- inside

    def _agree(self, kind: str, timeout: float | None, *wish: Any) -> tuple[list[tuple[Any, ...]], int]:
        """Return the wishes of all ranks, and a context's index that none of them has used in this run."""
        call = Call(self, kind, timeout)
        endpoint = self.endpoint
        found = call.run(algorithms.allgather(call, (endpoint.free_index, *wish)))
        index = max(one[0] for one in found)
        endpoint.free_index = max(endpoint.free_index, index + 1)
        return [one[1:] for one in found], index

    def _agree_on_index(self, kind: str, timeout: float | None) -> int:
        """Return a context's index that none of the ranks has used in this run."""
        call = Call(self, kind, timeout)
        endpoint = self.endpoint
        index: int = call.run(reducing.allreduce(call, endpoint.free_index, MAX))
        endpoint.free_index = max(endpoint.free_index, index + 1)
        return index

    def _make(self, kind: type[Communicator], index: int, ranks: Sequence[int]) -> Any:
        return kind(
            self.endpoint,
            self.codec,
            context=make_context(run_of(self.context), index),
            rank=ranks.index(self.rank),
            members=self.members[: len(ranks)] if ranks == range(len(ranks)) else [self.members[one] for one in ranks],
        )


class Cartesian(Communicator):
    """A communicator whose ranks are the points of a grid; made by `Communicator.create_cart`.

    Attributes:
        grid: its shape.
    """

    __slots__ = ("grid",)

    grid: Grid

    @property
    def dims(self) -> tuple[int, ...]:
        """The length of each dimension."""
        return self.grid.dims

    @property
    def periods(self) -> tuple[bool, ...]:
        """For each dimension, whether its ends are neighbours."""
        return self.grid.periods

    @property
    def coords(self) -> tuple[int, ...]:
        """Where this rank is."""
        return self.grid.coords_of(self.rank)

    def coords_of(self, rank: int) -> tuple[int, ...]:
        """Return where a rank is."""
        return self.grid.coords_of(self.check_rank("coords_of", "rank", rank))

    def rank_at(self, coords: Sequence[int]) -> int:
        """Return the rank at a point; beyond the ends of a dimension without period there is none (ValueError)."""
        return self.grid.rank_at(coords)

    def shift(self, dimension: int, displacement: int = 1) -> tuple[int, int]:
        """Return (source, dest) of a shift along a dimension: whom to receive from, and whom to send to.

        Beyond the ends of a dimension without period it is PROC_NULL, to and from which nothing is moved.
        """
        return self.grid.shift(self.rank, dimension, displacement)

    def sub(self, keep: Sequence[bool], *, timeout: float | None = None) -> Cartesian:
        """Make communicators of the grid's slices; all ranks of this one make the call.

        Args:
            keep: for each dimension, whether the slices have it.
            timeout: seconds; None for no limit.

        Returns:
            The slice that this rank is in, as a grid of the dimensions that are kept.

        Cost: see `Communicator.split`.
        """
        color, key, grid = self.grid.slice_of(self.rank, keep)
        wishes, index = self._agree("split", timeout, color, key)
        chosen = sorted((wish[1], rank) for rank, wish in enumerate(wishes) if wish[0] == color)
        made: Cartesian = self._make(Cartesian, index, [rank for _, rank in chosen])
        made.grid = grid
        return made
