"""The plain definition of each collective: what all ranks get, computed from the list of what they give."""

from __future__ import annotations

import operator
from functools import reduce as fold

__all__ = ["DEFINITIONS", "LISTS", "REDUCTIONS", "ROOTED", "call", "plain"]

ROOTED = {"bcast", "scatter", "gather", "reduce"}
LISTS = {"scatter", "alltoall", "reduce_scatter"}  # a rank gives one item for each
REDUCTIONS = {"reduce", "allreduce", "reduce_scatter", "scan", "exscan"}


def _at_root(given, root, value):
    return [value if rank == root else None for rank in range(len(given))]


DEFINITIONS = {
    "barrier": lambda given, root, op: [None] * len(given),
    "bcast": lambda given, root, op: [given[root]] * len(given),
    "scatter": lambda given, root, op: list(given[root]),
    "gather": lambda given, root, op: _at_root(given, root, list(given)),
    "allgather": lambda given, root, op: [list(given)] * len(given),
    "alltoall": lambda given, root, op: [[items[rank] for items in given] for rank in range(len(given))],
    "reduce": lambda given, root, op: _at_root(given, root, fold(op, given)),
    "allreduce": lambda given, root, op: [fold(op, given)] * len(given),
    "reduce_scatter": lambda given, root, op: [fold(op, [items[r] for items in given]) for r in range(len(given))],
    "scan": lambda given, root, op: [fold(op, given[: rank + 1]) for rank in range(len(given))],
    "exscan": lambda given, root, op: [fold(op, given[:rank]) if rank else None for rank in range(len(given))],
}


def call(comm, name, obj, root=0, op=operator.add, *, start=False, **timeout):
    """Make a collective call by its name, or start it; who is not the root gives nothing where that is allowed."""
    method = getattr(comm, f"i{name}" if start else name)
    if name == "barrier":
        return method(**timeout)
    if name in ("bcast", "scatter"):
        return method(obj if comm.rank == root else None, root, **timeout)
    words = [obj, op] if name in REDUCTIONS else [obj]
    return method(*words, root, **timeout) if name in ROOTED else method(*words, **timeout)


def plain(obj):
    """Return an object that says by ``==`` whether another is the same, also of what does not by itself."""
    if type(obj) in (list, tuple):
        return type(obj), [plain(one) for one in obj]
    if type(obj) is dict:
        return dict, {key: plain(value) for key, value in obj.items()}
    if type(obj).__name__ == "ndarray":
        return "array", obj.shape, obj.dtype.str, obj.tobytes()
    return ("what it returns", obj()) if callable(obj) else (type(obj), obj)
