"""How reductions combine data: each a short generator of steps over a `Call`, as in `algorithms`.

Layer: communicator. Operators are applied in rank order and need not be commutative; only large arrays under a named
operation are cut into pieces, whose parts are combined in another order.

Sources: as in `algorithms`, and
    [HS] W. D. Hillis, G. L. Steele, Data parallel algorithms, 1986.
    [PY] P. Patarasuk, X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009.
"""

from __future__ import annotations

from functools import reduce as fold
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.algorithms import LARGE_BYTES, alltoall, share, up_and_down
from klyng_mp.communicator.buffers import allocate
from klyng_mp.communicator.gathering import answer_all, combine_pairs, gather_here
from klyng_mp.communicator.reductions import Operation, is_array
from klyng_mp.communicator.shortcuts import reducing_arrays, take_shortcut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp._core import Port
    from klyng_mp.communicator.call import Call, Steps

    Operator = Callable[[Any, Any], Any]

__all__ = ["allreduce", "exscan", "reduce", "reduce_scatter", "scan"]


def reduce(call: Call, obj: Any, op: Operator, root: int) -> Steps[Any]:
    """Binomial tree to rank 0 [TRG], which keeps the order of ranks; then to the root.

    Cost: ceil(log2 n) rounds, n - 1 messages; one more of each where the root is not rank 0.
    """
    size, rank = call.size, call.rank
    distance = 1
    result = obj
    while distance < size:
        if rank & distance:
            call.send(result, rank - distance)
            break
        if rank + distance < size:
            result = op(result, (yield rank + distance))
        distance *= 2
    if root == 0:
        return result if rank == 0 else None
    if rank == 0:
        call.send(result, root)
    return (yield 0) if rank == root else None


# -- allreduce -----------------------------------------------------------------------------------------------


class _Large(NamedTuple):
    """Stands for a large array while ranks find out whether all of them have one of the same kind."""

    shape: tuple[int, ...]
    dtype: str
    operation: str
    waits: bool  # whether its call does


class _Mixed(NamedTuple):
    """Says that they have not."""


def allreduce(call: Call, obj: Any, op: Operator, port: Port | None = None, out: Any = None) -> Steps[Any]:
    """Recursive doubling [TRG]; for large arrays under a named operation a ring of pieces [PY].

    Cost: log2 n rounds of n messages; where n is no power of two those of the next lower one, and two rounds more, in
    which each of the others sends one and gets one. Among ranks that take turns 2 (n - 1) messages. Under a named
    operation among few ranks that share memory one round of n (n - 1) messages, and each combines all n. For large
    arrays 2 (n - 1) more rounds, in which each rank sends 2 m (n - 1) / n bytes; between two of them one more, of m
    bytes each; where the transport has an allreduce itself, its own.
    """
    if call.size == 1:
        return obj.copy() if is_array(obj) else obj
    operation = _operation_on_pieces(obj, op)
    first = obj if operation is None else _Large(obj.shape, obj.dtype.str, operation.name, call.tickets is None)
    if call.comm.gathering is not None:
        # As `up_and_down`, but without what each of ten thousand ranks would have to keep meanwhile.
        values = gather_here(call, first)
        found = (yield 0) if values is None else answer_all(call, combine_pairs(values, _agreeing(op)))
    elif call.direct and type(op) is Operation:
        found = fold(_agreeing(op), (yield from share(call, first)))
    else:
        found = yield from _combine(call, first, _agreeing(op))
    if type(found) not in _STANDINS:
        return found
    if operation is None or type(found) is not _Large:
        return (yield from _combine(call, obj, op))
    if (natives := call.comm.natives) is not None and found.waits:
        result = out if out is not None else allocate(port, obj.shape, obj.dtype)
        if take_shortcut(call, natives, reducing_arrays("allreduce", obj, result, operation)):
            return result
    if call.size == 2:
        return (yield from _swap(call, obj, operation, out))
    result = out if out is not None else allocate(port, obj.shape, obj.dtype)
    yield from _send_around(call, obj.reshape(-1), operation, result.reshape(-1))
    return result


def _operation_on_pieces(obj: Any, op: Operator) -> Operation | None:
    """Return the operation, if it is one of whole arrays that may be done piece by piece and the array is worth it."""
    if type(op) is not Operation or not op.keeps_dtype or not is_array(obj):
        return None
    return op if obj.nbytes >= LARGE_BYTES and obj.flags.c_contiguous else None


def _agreeing(op: Operator) -> Operator:
    """Return the operator that also combines what stands for large arrays."""

    def combine(a: Any, b: Any) -> Any:
        if type(a) in _STANDINS or type(b) in _STANDINS:
            return a if type(a) is type(b) and a == b else _Mixed()
        return op(a, b)

    return combine


_STANDINS = (_Large, _Mixed)


def _combine(call: Call, obj: Any, op: Operator) -> Steps[Any]:
    return up_and_down(call, obj, op) if call.in_turns else _double(call, obj, op)


def _double(call: Call, obj: Any, op: Operator) -> Steps[Any]:
    """Combine what all ranks have, in rank order: neighbours first, then pairs of twice the distance."""
    size, rank = call.size, call.rank
    doubles = 1 << (size.bit_length() - 1)  # the largest power of two
    extra = size - doubles
    result = obj
    if rank < 2 * extra and rank % 2:  # its neighbour stands for both
        call.send(obj, rank - 1)
        return (yield rank - 1)
    if rank < 2 * extra:
        result = op(result, (yield rank + 1))
    place = rank // 2 if rank < 2 * extra else rank - extra
    distance = 1
    while distance < doubles:
        other = place ^ distance
        peer = other * 2 if other < extra else other + extra
        call.send(result, peer)
        theirs = yield peer
        result = op(result, theirs) if place < other else op(theirs, result)
        distance *= 2
    if rank < 2 * extra:
        call.send(result, rank + 1)
    return result


def _swap(call: Call, own: Any, op: Operation, out: Any) -> Steps[Any]:
    """Between two: each sends all that it has, and combines both in the memory that came, unless there is better."""
    call.send(own, 1 - call.rank)
    theirs = yield 1 - call.rank
    result = _writable(theirs) if out is None else out
    if call.rank == 0:
        op.into(own, theirs, result)
    else:
        op.into(theirs, own, result)
    return result


def _writable(array: Any) -> Any:
    """Return an array that came, or a copy where its sender's was read-only, as what came is then, too."""
    return array if array.flags.writeable else array.copy()


def _send_around(call: Call, own: Any, op: Operation, result: Any) -> Steps[None]:
    """Reduce flat arrays of the same length piece by piece on the way around a ring, then share the pieces."""
    size, rank = call.size, call.rank
    right, left = (rank + 1) % size, (rank - 1) % size
    bounds = [own.size * index // size for index in range(size + 1)]

    def piece(array: Any, index: int) -> Any:
        index %= size
        return array[bounds[index] : bounds[index + 1]]

    call.send(piece(own, rank - 1), right)
    for step in range(2, size):
        partial = _writable((yield left))
        op.into(partial, piece(own, rank - step), partial)
        call.give(partial, right)
    partial = _writable((yield left))
    op.into(partial, piece(own, rank), partial)
    piece(result, rank)[...] = partial
    for step in range(size - 1):
        call.give(partial, right)  # the memory that came goes on
        partial = yield left
        piece(result, rank - step - 1)[...] = partial


# -- the others ----------------------------------------------------------------------------------------------


def reduce_scatter(call: Call, objs: Sequence[Any], op: Operator) -> Steps[Any]:
    """Pairwise exchange [TRG], then each rank combines what is its own.

    Cost: n - 1 rounds of n messages.
    """
    return fold(op, (yield from alltoall(call, objs)))


def scan(call: Call, obj: Any, op: Operator) -> Steps[Any]:
    """Recursive doubling of distances [HS].

    Cost: ceil(log2 n) rounds, less than n messages each.
    """
    result = obj
    distance = 1
    while distance < call.size:
        if call.rank + distance < call.size:
            call.send(result, call.rank + distance)
        if call.rank >= distance:
            result = op((yield call.rank - distance), result)
        distance *= 2
    return result


def exscan(call: Call, obj: Any, op: Operator) -> Steps[Any]:
    """`scan`, whose results then move on by one rank.

    Cost: ceil(log2 n) + 1 rounds, less than n messages each.
    """
    inclusive = yield from scan(call, obj, op)
    if call.rank + 1 < call.size:
        call.send(inclusive, call.rank + 1)
    return (yield call.rank - 1) if call.rank else None
