"""How collectives move data: each a short generator of steps over a `Call`, written on its send and receive only.

Layer: communicator. Costs are of all ranks together unless they say otherwise; n is the number of ranks, m the bytes
of one object. Where an algorithm is chosen by size, all ranks choose the same one, whatever objects they have: what
decides is learned from a message.

Sources:
    [HFM] D. Hensgen, R. Finkel, U. Manber, Two algorithms for barrier synchronization, 1988.
    [BRUCK] J. Bruck et al., Efficient algorithms for all-to-all communications in multiport message-passing systems,
        1997.
    [TRG] R. Thakur, R. Rabenseifner, W. Gropp, Optimization of collective communication operations in MPICH, 2005.
    [VDG] M. Barnett, R. Littlefield, D. Payne, R. van de Geijn, Global combine on mesh architectures with wormhole
        routing, 1993.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.communicator.call import EVERYBODY, Packed
from klyng_mp.communicator.gathering import answer_all, combine_pairs, gather_here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.communicator.call import Call, Steps

__all__ = ["LARGE_BYTES", "allgather", "alltoall", "barrier", "bcast", "gather", "scatter", "share", "up_and_down"]

LARGE_BYTES = 64 * 1024  # from here a message is paid by its bytes, below by its start
_SCATTER_BYTES = 512 * 1024  # MPICH's: from here a broadcast is scattered and gathered,
_SCATTER_RANKS = 8  # among so many ranks
_MOST_COPIES = 4  # ranks to which the root copies a large object itself, where it shares memory with them
_TEXTS = (bytes, bytearray, str)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_ITEM_BYTES = 16  # of a container, pickled


def barrier(call: Call) -> Steps[None]:
    """Dissemination [HFM]: in round k each rank hears of 2**k more.

    Cost: ceil(log2 n) rounds of n messages without content. Among ranks that take turns 2 (n - 1) messages.
    """
    if call.in_turns:
        yield from up_and_down(call, None, lambda _mine, _theirs: None)
        return
    distance = 1
    while distance < call.size:
        call.send(None, (call.rank + distance) % call.size)
        yield (call.rank - distance) % call.size
        distance *= 2


def up_and_down(call: Call, obj: Any, op: Callable[[Any, Any], Any]) -> Steps[Any]:
    """Combine what all ranks have up a binomial tree [TRG], and send it down the same way.

    What is combined with what is as in recursive doubling (`reducing`), to the last bit.

    Cost: 2 ceil(log2 n) rounds, 2 (n - 1) messages in all; n - 1 where all ranks are in one process.
    """
    if call.comm.gathering is not None:
        values = gather_here(call, obj)
        return (yield 0) if values is None else answer_all(call, combine_pairs(values, op))
    size, rank = call.size, call.rank
    doubles = 1 << (size.bit_length() - 1)  # the largest power of two
    extra = size - doubles
    if rank < 2 * extra and rank % 2:  # its neighbour stands for both
        call.send(obj, rank - 1)
        return (yield rank - 1)
    result = obj if rank >= 2 * extra else op(obj, (yield rank + 1))
    place = rank // 2 if rank < 2 * extra else rank - extra

    def rank_at(place: int) -> int:
        return place * 2 if place < extra else place + extra

    distance = 1
    while distance < doubles and not place & distance:
        result = op(result, (yield rank_at(place | distance)))
        distance *= 2
    if distance < doubles:
        call.send(result, rank_at(place ^ distance))
        result = yield rank_at(place ^ distance)
    while distance > 1:
        distance //= 2
        call.send(result, rank_at(place | distance))
    if rank < 2 * extra:
        call.send(result, rank + 1)
    return result


# -- from one to all -----------------------------------------------------------------------------------------


class _Blocks(NamedTuple):
    """Says, in place of the object, that its bytes come scattered."""

    code: int
    head: bytes
    sizes: tuple[int, ...]  # of its buffers


class _ByTree(NamedTuple):
    """Says, in place of the object, that it comes by the tree."""


def bcast(call: Call, obj: Any, root: int) -> Steps[Any]:
    """Binomial tree; for a large object among many ranks scatter and allgather [TRG, VDG], as the root decides.

    Cost: ceil(log2 n) rounds, n - 1 messages of m bytes; the object is encoded once. Scattered: ceil(log2 n) + n
    rounds, in which each rank but the root sends and receives about m bytes, and the root sends 2 m. Among few ranks
    that share memory, small objects take one round of n - 1 messages, and large ones that round besides; among at most
    four, one round for either.
    """
    if call.rank == root:
        if call.size == 2:
            call.send(obj, 1 - root)
        elif call.size > 2:
            yield from _bcast_root(call, obj, root)
        return obj
    if call.direct or call.size == 2:
        got = yield root
        return got if type(got) is not _ByTree else (yield from _bcast_tree(call, root))
    return (yield from _bcast_tree(call, root))


def _bcast_root(call: Call, obj: Any, root: int) -> Steps[None]:
    reach = 1 << (call.size - 1).bit_length()
    if call.direct:
        if call.size <= _MOST_COPIES or not is_large(obj):
            call.spread(obj)
            return
        call.spread(_ByTree())
    packed = call.pack(obj)
    size = sum(memoryview(buffer).nbytes for buffer in packed.buffers)
    if size < _SCATTER_BYTES or call.size < _SCATTER_RANKS:
        _pass_on(call, packed, root, reach)
        return
    views = [memoryview(buffer).cast("B") for buffer in packed.buffers]
    blocks = _Blocks(packed.code, packed.head, tuple(view.nbytes for view in views))
    _pass_on(call, call.pack(blocks), root, reach)
    yield from _gather_blocks(call, blocks, root, views)


def _bcast_tree(call: Call, root: int) -> Steps[Any]:
    place = (call.rank - root) % call.size
    parent = (root + (place & (place - 1))) % call.size  # it lacks the lowest bit
    if place & 1 or place + 1 == call.size:  # nothing to be passed on
        got = yield parent
    else:
        packed: Packed = yield call.as_it_comes(parent)
        _pass_on(call, packed, root, place & -place)
        got = call.open(packed)
    return got if type(got) is not _Blocks else (yield from _gather_blocks(call, got, root, None))


def _pass_on(call: Call, packed: Packed, root: int, reach: int) -> None:
    """Send to the children of this rank in the binomial tree, the one with most descendants first."""
    place = (call.rank - root) % call.size
    while reach > 1:
        reach //= 2
        if place + reach < call.size:
            call.send_packed(packed, (root + place + reach) % call.size)


def _gather_blocks(call: Call, blocks: _Blocks, root: int, views: Sequence[memoryview] | None) -> Steps[Any]:
    """Give each rank its block of the root's bytes, and let the blocks go around a ring."""
    total = sum(blocks.sizes)
    bounds = [total * index // call.size for index in range(call.size + 1)]
    whole = bytearray(total) if views is None else None
    place = (call.rank - root) % call.size
    if views is not None:
        joined = memoryview(views[0] if len(views) == 1 else b"".join(views))
        block = [Packed(blocks.code, b"", [joined[start:end]]) for start, end in pairwise(bounds)]
        for other in range(1, call.size):
            call.send_packed(block[other], (root + other) % call.size)
        mine = block[0]
    else:
        mine = yield call.as_it_comes(root)
    right, left = (call.rank + 1) % call.size, (call.rank - 1) % call.size
    for step in range(call.size):
        index = (place - step) % call.size
        if whole is not None:
            whole[bounds[index] : bounds[index + 1]] = memoryview(mine.buffers[0])
        if step < call.size - 1:
            call.send_packed(mine, right)
            mine = yield call.as_it_comes(left)
    if whole is None:
        return None
    ends = list(accumulate(blocks.sizes, initial=0))
    buffers = [memoryview(whole)[start:end] for start, end in pairwise(ends)]
    return call.open(Packed(blocks.code, blocks.head, buffers))


def scatter(call: Call, objs: Sequence[Any] | None, root: int) -> Steps[Any]:
    """Directly from the root.

    Cost: one round of n - 1 messages, all sent by the root.
    """
    if objs is None:
        return (yield root)
    for dest in range(call.size):
        if dest != root:
            call.send(objs[dest], dest)
    return objs[root]


# -- from all to one, and to all -----------------------------------------------------------------------------


def gather(call: Call, obj: Any, root: int) -> Steps[list[Any] | None]:
    """Directly to the root.

    Cost: one round of n - 1 messages, all received by the root.
    """
    if call.rank != root:
        call.send(obj, root)
        return None
    gathered = [obj] * call.size
    for source in range(call.size):
        if source != root:
            gathered[source] = yield source
    return gathered


class _Large(NamedTuple):
    """Stands for an object that will come around the ring."""


def allgather(call: Call, obj: Any) -> Steps[list[Any]]:
    """Bruck's algorithm [BRUCK, TRG] for the small objects; the large ones then go around a ring [TRG].

    Cost: ceil(log2 n) rounds of n messages, in which each rank sends n - 1 objects; one of n (n - 1) messages among few
    ranks that share memory. If there are large ones, n - 1 more rounds, in which each goes to each rank once.
    """
    size, rank = call.size, call.rank
    if size == 2:
        call.send(obj, 1 - rank)
        other = yield 1 - rank
        return [obj, other] if rank == 0 else [other, obj]
    large = is_large(obj)
    found = yield from share(call, _Large() if large else obj)
    if large:
        found[rank] = call.pack(obj)
    if large or any(type(one) is _Large for one in found):
        yield from _send_around(call, found)
    found[rank] = obj
    return found


def share(call: Call, obj: Any) -> Steps[list[Any]]:
    """Bring one small object of each rank to all; see `allgather`."""
    size, rank = call.size, call.rank
    if call.direct:
        call.spread(obj)
        found: list[Any] = yield EVERYBODY
        found[rank] = obj
        return found
    known = [obj]  # of this rank, and those after it
    distance = 1
    while distance < size:
        call.send(known[: size - distance], (rank - distance) % size)
        known += yield (rank + distance) % size
        distance *= 2
    return [known[(other - rank) % size] for other in range(size)]


def _send_around(call: Call, found: list[Any]) -> Steps[None]:
    """Let what is `_Large` in the list of some ranks, and `Packed` in that of its owner, go around a ring."""
    size, rank = call.size, call.rank
    right, left = (rank + 1) % size, (rank - 1) % size
    for step in range(size - 1):
        passed = found[(rank - step) % size]
        if type(passed) is Packed:
            call.send_packed(passed, right)
        index = (rank - step - 1) % size
        if type(found[index]) is _Large:
            found[index] = yield call.as_it_comes(left)
    for index, one in enumerate(found):
        if type(one) is Packed and index != rank:
            found[index] = call.open(one)


def is_large(obj: Any) -> bool:
    """Whether an object is better sent once than several times; a guess, as only encoding it would tell its bytes."""
    kind = type(obj)
    if kind in _CONTAINERS:
        return len(obj) * _ITEM_BYTES >= LARGE_BYTES
    size = len(obj) if kind in _TEXTS else getattr(obj, "nbytes", 0)
    return type(size) is int and size >= LARGE_BYTES


def alltoall(call: Call, objs: Sequence[Any]) -> Steps[list[Any]]:
    """Pairwise exchange [TRG]: in round k each rank sends to the k-th after it, and receives from the k-th before.

    Small objects are all sent before the first is awaited.

    Cost: n - 1 rounds of n messages.
    """
    size, rank = call.size, call.rank
    got = list(objs)
    ahead = 0 if any(map(is_large, objs)) else size
    for step in range(1, ahead):
        call.send(objs[(rank + step) % size], (rank + step) % size)
    if call.direct and ahead:
        found: list[Any] = yield EVERYBODY
        found[rank] = got[rank]
        return found
    for step in range(1, size):
        if not ahead:
            call.send(objs[(rank + step) % size], (rank + step) % size)
        source = (rank - step) % size
        got[source] = yield source
    return got
