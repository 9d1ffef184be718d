"""Groups of ranks, as mpi4py has them.

Layer: MPI; each holds the communicator's own, and gives it mpi4py's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from klyng_mp.communicator import group as own
from klyng_mp.communicator.current import comm
from klyng_mp.MPI.environment import IDENT, PROC_NULL, SIMILAR, UNDEFINED, UNEQUAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["GROUP_EMPTY", "GROUP_NULL", "Group", "group_of"]


class _Ranks:
    """What a group tells of its ranks; see `Group`."""

    __slots__ = ("_held",)

    def __init__(self, group: Group | None = None) -> None:
        self._held: own.Group | None = group._held if group else None

    @property
    def _own(self) -> own.Group:
        if self._held is None:
            raise ValueError("GROUP_NULL is no group")
        return self._held

    def Get_size(self) -> int:
        """Return how many ranks it has."""
        return self._own.size

    def Get_rank(self) -> int:
        """Return this process's rank in it, UNDEFINED if it is not in it."""
        world = comm()
        rank = self._own.rank_of(world.members[world.rank])
        return UNDEFINED if rank is None else rank

    @property
    def size(self) -> int:
        """How many ranks it has."""
        return self.Get_size()

    @property
    def rank(self) -> int:
        """This process's rank in it, UNDEFINED if it is not in it."""
        return self.Get_rank()

    def Translate_ranks(self, ranks: Sequence[int] | None = None, group: Group | None = None) -> list[int]:
        """Return what ranks of this group, or all, are in another one, UNDEFINED where they are not in it.

        Args:
            ranks: of this group.
            group: the other one; the group of COMM_WORLD by default.
        """
        here, other = self._own, own.Group(comm().members) if group is None else group._own
        chosen = range(here.size) if ranks is None else ranks
        found = iter(here.translate([rank for rank in chosen if rank != PROC_NULL], other))
        results = [PROC_NULL if rank == PROC_NULL else next(found) for rank in chosen]
        return [UNDEFINED if rank is None else rank for rank in results]

    def Compare(self, group: Group) -> int:
        """Return IDENT if the ranks are the same, SIMILAR if their order is another, else UNEQUAL."""
        here, other = self._own, group._own
        if here == other:
            return IDENT
        return SIMILAR if set(here) == set(other) else UNEQUAL

    def Free(self) -> None:
        """Make it GROUP_NULL."""
        self._held = None

    def __bool__(self) -> bool:
        return self._held is not None

    def __eq__(self, other: object) -> bool:
        return self._held == other._held if isinstance(other, _Ranks) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._held)

    def __repr__(self) -> str:
        return f"<MPI {self._held!r}>" if self._held is not None else "GROUP_NULL"


class Group(_Ranks):
    """An ordered set of ranks, to make communicators of."""

    __slots__ = ()

    def Dup(self) -> Group:
        """Return one of the same ranks."""
        return group_of(self._own)

    @classmethod
    def Union(cls, group1: Group, group2: Group) -> Group:
        """Return the group of all of the first, then those of the second that are not there."""
        return group_of(group1._own.union(group2._own))

    @classmethod
    def Intersection(cls, group1: Group, group2: Group) -> Group:
        """Return the group of those who are in both, in the first one's order."""
        return group_of(group1._own.intersection(group2._own))

    Intersect = Intersection

    @classmethod
    def Difference(cls, group1: Group, group2: Group) -> Group:
        """Return the group of those who are in the first only."""
        return group_of(group1._own.difference(group2._own))

    def Incl(self, ranks: Sequence[int]) -> Group:
        """Return the group of these ranks of this one, in this order."""
        return group_of(self._own.include(ranks))

    def Excl(self, ranks: Sequence[int]) -> Group:
        """Return the group without these ranks."""
        return group_of(self._own.exclude(ranks))

    def Range_incl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Return the group of ranges of ranks, each (first, last, stride)."""
        return self.Incl(_expand(ranks))

    def Range_excl(self, ranks: Sequence[tuple[int, int, int]]) -> Group:
        """Return the group without ranges of ranks, each (first, last, stride)."""
        return self.Excl(_expand(ranks))


def group_of(held: own.Group | Iterable[int]) -> Group:
    """Return a group of mpi4py's kind."""
    group = Group()
    group._held = held if isinstance(held, own.Group) else own.Group(held)
    return group


def _expand(ranges: Sequence[tuple[int, int, int]]) -> list[int]:
    return [rank for first, last, stride in ranges for rank in range(first, last + (1 if stride > 0 else -1), stride)]


GROUP_NULL = Group()
GROUP_EMPTY = group_of(())
