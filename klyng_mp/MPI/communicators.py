"""Communicators, as mpi4py has them: COMM_WORLD, and what is made of it.

Layer: MPI; each holds one of klyng_mp's, and gives it mpi4py's names.

COMM_WORLD and COMM_SELF are those of the present run: they look at `klyng_mp.comm` whenever they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from klyng_mp.communicator.communicator import Cartesian, Communicator
from klyng_mp.communicator.current import comm
from klyng_mp.machine import hostname
from klyng_mp.MPI.buffer_collectives import (
    BufferCollectives,
    BufferReductions,
    NonBlockingBufferCollectives,
    NonBlockingBufferReductions,
    put,
)
from klyng_mp.MPI.buffer_messages import BufferMessages
from klyng_mp.MPI.environment import (
    CART,
    COMM_TYPE_SHARED,
    CONGRUENT,
    ERRORS_RETURN,
    IDENT,
    INFO_NULL,
    SIMILAR,
    TAG_UB,
    UNDEFINED,
    UNEQUAL,
    UNIVERSE_SIZE,
    WTIME_IS_GLOBAL,
    Errhandler,
    Info,
    end_job,
)
from klyng_mp.MPI.groups import Group, group_of
from klyng_mp.MPI.object_calls import Handle, ObjectCollectives, ObjectMessages
from klyng_mp.MPI.operations import SUM, Op, on_objects
from klyng_mp.MPI.statuses import Request, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Operator = Op | Callable[[Any, Any], Any]

__all__ = ["COMM_NULL", "COMM_SELF", "COMM_WORLD", "Cartcomm", "Comm", "Intracomm"]


class _Place(Handle):
    """What a communicator tells of its ranks."""

    __slots__ = ()

    def Get_rank(self) -> int:
        """Return the number of this rank, from 0."""
        return self._own.rank

    def Get_size(self) -> int:
        """Return how many ranks there are."""
        return self._own.size

    def Get_group(self) -> Group:
        """Return its ranks, as a group to make others of."""
        return group_of(self._own.group)

    def Get_name(self) -> str:
        """Return its name."""
        return self._label

    def Set_name(self, name: str) -> None:
        """Give it a name."""
        self._label = name

    def Get_topology(self) -> int:
        """Return CART if its ranks are the points of a grid, else UNDEFINED."""
        return CART if isinstance(self._own, Cartesian) else UNDEFINED

    def Is_inter(self) -> bool:
        """Return False: its ranks are one group."""
        return False

    def Is_intra(self) -> bool:
        """Return True: its ranks are one group."""
        return True

    def Get_attr(self, keyval: int) -> int | bool | None:
        """Return what TAG_UB, UNIVERSE_SIZE or WTIME_IS_GLOBAL is here, None for any other key."""
        known = {TAG_UB: 2**63 - 1, UNIVERSE_SIZE: comm().size, WTIME_IS_GLOBAL: True}
        return known.get(keyval)

    rank = property(Get_rank)
    size = property(Get_size)
    group = property(Get_group)
    name = property(Get_name, Set_name)
    topology = property(Get_topology)
    is_inter = property(Is_inter)
    is_intra = property(Is_intra)

    @property
    def is_topo(self) -> bool:
        """Whether its ranks are the points of a grid."""
        return isinstance(self._own, Cartesian)

    def Get_errhandler(self) -> Errhandler:
        """Return ERRORS_RETURN: errors are raised."""
        return ERRORS_RETURN

    def Set_errhandler(self, errhandler: Errhandler) -> None:
        """Do nothing: errors are raised in any case, and end the job if nothing catches them."""

    def Abort(self, errorcode: int = 0) -> NoReturn:
        """End all ranks at once; the command exits with the code, or with 1 if that is 0."""
        end_job(errorcode)


class _Making(_Place):
    """How communicators are made of others, compared and freed."""

    __slots__ = ()

    def __init__(self, comm: Comm | None = None) -> None:
        self._held = comm._own if comm else None
        self._label = comm._label if comm else ""

    def Compare(self, comm: Comm) -> int:
        """Return IDENT if it is the same, CONGRUENT if the ranks are, SIMILAR if their order is another, or UNEQUAL."""
        here, other = self._own, comm._own
        if here is other:
            return IDENT
        if here.group == other.group:
            return CONGRUENT
        return SIMILAR if set(here.members) == set(other.members) else UNEQUAL

    def Clone(self) -> Any:
        """Make one of the same ranks; see `Dup`."""
        return self.Dup()

    def Dup(self, info: Info | None = None) -> Any:
        """Make one of the same ranks, whose messages do not meet those of this one."""
        del info
        own = self._own
        if isinstance(own, Cartesian):
            return _wrap(own.sub([True] * len(own.dims)))
        return _wrap(own.dup())

    def Create(self, group: Group) -> Comm:
        """Make one of a group of this one's ranks; COMM_NULL where this rank is not in it."""
        return _wrap(self._own.create(group._own))

    def Split(self, color: int = 0, key: int = 0) -> Comm:
        """Make one of the ranks that give the same color, in the order of their keys; COMM_NULL for UNDEFINED."""
        return _wrap(self._own.split(None if color == UNDEFINED else color, key))

    def Split_type(self, split_type: int, key: int = 0, info: Info = INFO_NULL) -> Comm:
        """Make one of the ranks that share memory, which are those of one host, for COMM_TYPE_SHARED.

        Raises:
            ValueError: another type is asked for; the call does not count on this rank.
        """
        del info
        if split_type not in (COMM_TYPE_SHARED, UNDEFINED):
            raise ValueError("Split_type(): there is COMM_TYPE_SHARED only, or UNDEFINED to be in none")
        hosts = self._own.allgather(hostname())
        return self.Split(UNDEFINED if split_type == UNDEFINED else hosts.index(hosts[self._own.rank]), key)

    def Free(self) -> None:
        """Make it COMM_NULL; its messages are used no more."""
        self._own.close()
        self._held = None

    Disconnect = Free

    def __bool__(self) -> bool:
        return self._held is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Making):
            return NotImplemented
        return (self._own if self else None) is (other._own if other else None)

    def __hash__(self) -> int:
        return hash(id(self._own)) if self else 0

    def __repr__(self) -> str:
        return f"<MPI {type(self).__name__.lstrip('_')}: {self._own!r}>" if self else "COMM_NULL"


class Comm(
    _Making,
    ObjectMessages,
    ObjectCollectives,
    BufferMessages,
    BufferCollectives,
    BufferReductions,
    NonBlockingBufferCollectives,
    NonBlockingBufferReductions,
):
    """A group of ranks and a private context for their messages."""

    __slots__ = ()

    def __reduce__(self) -> str:
        if self:
            raise TypeError("a communicator cannot travel: its ranks make it together, as with Split()")
        return "COMM_NULL"

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"klyng_mp has no {type(self).__name__.lstrip('_')}.{name}: {_instead(name)}")


class Intracomm(Comm):
    """A communicator of one group of ranks, as all are here."""

    __slots__ = ()

    def Create_cart(
        self, dims: Sequence[int], periods: Sequence[bool] | None = None, reorder: bool = False
    ) -> Cartcomm:
        """Make one whose ranks are the points of a grid; COMM_NULL on ranks that are not needed.

        Args:
            dims: the length of each dimension.
            periods: for each, whether its ends are neighbours; by default they are not.
            reorder: is ignored: the ranks keep their order.
        """
        del reorder
        lengths = [dims] if isinstance(dims, int) else list(dims)
        ends = bool(periods) if periods is None or isinstance(periods, int) else [bool(one) for one in periods]
        return cast("Cartcomm", _wrap(self._own.create_cart(lengths, ends)))

    def scan(self, sendobj: Any, op: Operator = SUM) -> Any:
        """Return what the objects of the ranks up to this one make."""
        return self._own.scan(sendobj, on_objects(op))

    def exscan(self, sendobj: Any, op: Operator = SUM) -> Any:
        """Return what the objects of the ranks before this one make; None at rank 0."""
        return self._own.exscan(sendobj, on_objects(op))

    def Scan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Fill each rank's buffer with what those up to its own make."""
        array, operator, out = self._plan_reduction("Scan()", sendbuf, recvbuf, op)
        put(out, self._own.scan(array, operator))

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> None:
        """Fill each rank's buffer with what those before its own make; rank 0's stays as it is."""
        array, operator, out = self._plan_reduction("Exscan()", sendbuf, recvbuf, op)
        put(out, self._own.exscan(array, operator))

    def Iscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Start a `Scan`."""
        array, operator, out = self._plan_reduction("Iscan()", sendbuf, recvbuf, op)
        return start(self._own.iscan(array, operator), lambda got: put(out, got))

    def Iexscan(self, sendbuf: Any, recvbuf: Any, op: Op = SUM) -> Request:
        """Start an `Exscan`."""
        array, operator, out = self._plan_reduction("Iexscan()", sendbuf, recvbuf, op)
        return start(self._own.iexscan(array, operator), lambda got: put(out, got))


class Cartcomm(Intracomm):
    """A communicator whose ranks are the points of a grid."""

    __slots__ = ()

    @property
    def _grid(self) -> Cartesian:
        return cast("Cartesian", self._own)

    def Get_dim(self) -> int:
        """Return how many dimensions it has."""
        return len(self._grid.dims)

    def Get_topo(self) -> tuple[list[int], list[int], list[int]]:
        """Return the lengths of the dimensions, whether their ends are neighbours (1 or 0), and where this rank is."""
        return self.dims, self.periods, self.coords

    def Get_coords(self, rank: int) -> list[int]:
        """Return where a rank is."""
        return list(self._grid.coords_of(rank))

    def Get_cart_rank(self, coords: Sequence[int]) -> int:
        """Return the rank at a point."""
        return self._grid.rank_at(coords)

    def Shift(self, direction: int, disp: int) -> tuple[int, int]:
        """Return (source, dest) of a shift along a dimension; PROC_NULL beyond an end."""
        return self._grid.shift(direction, disp)

    def Sub(self, remain_dims: Sequence[bool]) -> Cartcomm:
        """Make communicators of the grid's slices that have the dimensions for which it is true."""
        return cast("Cartcomm", _wrap(self._grid.sub([bool(one) for one in remain_dims])))

    dim = ndim = property(Get_dim)
    topo = property(Get_topo)

    @property
    def dims(self) -> list[int]:
        """The length of each dimension."""
        return list(self._grid.dims)

    @property
    def periods(self) -> list[int]:
        """For each dimension, whether its ends are neighbours, as 1 or 0."""
        return [int(period) for period in self._grid.periods]

    @property
    def coords(self) -> list[int]:
        """Where this rank is."""
        return list(self._grid.coords)


class _World(Intracomm):
    """COMM_WORLD."""

    __slots__ = ()

    @property
    def _own(self) -> Communicator:
        return comm()

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> str:
        return "COMM_WORLD"


class _Self(Intracomm):
    """COMM_SELF."""

    __slots__ = ("_world",)

    _world: Communicator | None

    @property
    def _own(self) -> Communicator:
        world = comm()
        if self._held is None or self._world is not world:
            self._world, self._held = world, world.alone()
        return self._held

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> str:
        return "COMM_SELF"


def _wrap(own: Communicator | None) -> Comm:
    if own is None:
        return COMM_NULL
    made = Cartcomm() if isinstance(own, Cartesian) else Intracomm()
    made._held = own
    return made


def _instead(name: str) -> str:
    return _INSTEAD.get(name.lower().removeprefix("i"), "docs/mpi4py.md lists what it has")


_INSTEAD = {
    "bsend": "use send(), which has copied the object when it returns",
    "rsend": "use send()",
    "send_init": "use Isend() each time",
    "recv_init": "use Irecv() each time",
    "spawn": "start all ranks at once, or use a World in the program",
    "alltoallw": "use alltoall() with objects",
    "create_graph": "use Create_cart(), or messages between the neighbours",
    "create_dist_graph": "use Create_cart(), or messages between the neighbours",
    "create_intercomm": "there are no intercommunicators; use Split() and messages in the communicator of all",
    "create_group": "use Create(), which all ranks call",
}

COMM_NULL = Comm()
COMM_WORLD = _World()
COMM_WORLD.Set_name("MPI_COMM_WORLD")
COMM_SELF = _Self()
COMM_SELF.Set_name("MPI_COMM_SELF")
