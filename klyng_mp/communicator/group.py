"""Groups: ordered sets of ranks, to make communicators of.

Layer: communicator; data only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Group"]


class Group:
    """An ordered set of processes of a World; what a communicator's ranks are the numbers in. It never changes.

    Args:
        members: the number of each in the World, in the order of their ranks in the group.

    Raises:
        ValueError: one is there twice.
    """

    __slots__ = ("_ranks", "members")

    def __init__(self, members: Iterable[int]) -> None:
        self.members = tuple(members)
        self._ranks = {member: rank for rank, member in enumerate(self.members)}
        if len(self._ranks) < len(self.members):
            raise ValueError(f"a group has each process once, which is not so in {self.members}")

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.members)

    def rank_of(self, member: int) -> int | None:
        """Return the rank here of a process by its number in the World, or None if it is not here."""
        return self._ranks.get(member)

    def translate(self, ranks: Iterable[int], other: Group) -> list[int | None]:
        """Return what ranks of this group are in another one, None where they are not in it."""
        return [other.rank_of(self.members[self._check(rank)]) for rank in ranks]

    def include(self, ranks: Iterable[int]) -> Group:
        """Return the group of these ranks of this one, in this order."""
        return Group(self.members[self._check(rank)] for rank in ranks)

    def exclude(self, ranks: Iterable[int]) -> Group:
        """Return the group without these ranks."""
        without = {self._check(rank) for rank in ranks}
        return Group(member for rank, member in enumerate(self.members) if rank not in without)

    def union(self, other: Group) -> Group:
        """Return the group of all of this one, then those of the other that are not here."""
        return Group((*self.members, *(member for member in other.members if member not in self._ranks)))

    def intersection(self, other: Group) -> Group:
        """Return the group of those who are in both, in this one's order."""
        return Group(member for member in self.members if member in other)

    def difference(self, other: Group) -> Group:
        """Return the group of those who are not in the other."""
        return Group(member for member in self.members if member not in other)

    def _check(self, rank: int) -> int:
        if not 0 <= rank < len(self.members):
            raise ValueError(f"rank {rank} is not in a group of {len(self.members)}")
        return rank

    def __contains__(self, member: object) -> bool:
        return member in self._ranks

    def __iter__(self) -> Iterator[int]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __eq__(self, other: object) -> bool:
        return self.members == other.members if isinstance(other, Group) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.members)

    def __repr__(self) -> str:
        return f"Group({list(self.members)})"
