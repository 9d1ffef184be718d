"""Operators of reductions, by MPI's names, and a program's own.

Layer: MPI; imports NumPy nowhere, and uses it where operands are arrays of it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator import reductions
from klyng_mp.MPI.specifications import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.MPI.datatypes import Datatype

__all__ = [
    "BAND",
    "BOR",
    "BXOR",
    "LAND",
    "LOR",
    "LXOR",
    "MAX",
    "MAXLOC",
    "MIN",
    "MINLOC",
    "OP_NULL",
    "PROD",
    "SUM",
    "Op",
    "on_arrays",
    "on_objects",
]


class Op:
    """An operator of reductions: one of the constants, or made by `Create`; call it with two operands."""

    __slots__ = ("_commute", "_function", "_named")

    def __init__(self, op: Op | None = None) -> None:
        self._named: reductions.Operation | None = op._named if op else None
        self._function: Callable[..., Any] | None = op._function if op else None
        self._commute: bool = op._commute if op else False

    @classmethod
    def Create(cls, function: Callable[[Any, Any, Datatype], None], commute: bool = False) -> Op:
        """Make one of a function.

        Args:
            function: of (inbuf, inoutbuf, datatype). In calls on buffers the first two are memory of the same length,
                the first of the lower ranks, and the result goes into the second. In calls on objects they are the
                objects, the datatype is None, and the result is what it returns.
            commute: is ignored: operands are always in the order of ranks.
        """
        made = cls()
        made._function = function
        made._commute = commute
        return made

    def Free(self) -> None:
        """Do nothing: it ends when nothing refers to it."""

    def Is_commutative(self) -> bool:
        """Return whether the order of operands is said not to matter."""
        return self.is_commutative

    def Reduce_local(self, inbuf: Any, inoutbuf: Any) -> None:
        """Combine two buffers of this rank; the result goes into the second."""
        first, second = Memory("Reduce_local()", inbuf), Memory("Reduce_local()", inoutbuf)
        out = second.operand(second.whole())
        out[...] = on_arrays(self, second.datatype)(first.operand(first.whole()), out)

    @property
    def is_commutative(self) -> bool:
        """Whether the order of operands is said not to matter."""
        return self._named is not None or self._commute

    @property
    def is_predefined(self) -> bool:
        """Whether it is one of the constants."""
        return self._named is not None or self._function is None

    def __call__(self, x: Any, y: Any, /) -> Any:
        """Combine two objects; the first is of the lower ranks."""
        return on_objects(self)(x, y)

    def __bool__(self) -> bool:
        return self._named is not None or self._function is not None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Op):
            return NotImplemented
        return self._named is other._named and self._function is other._function

    def __hash__(self) -> int:
        return hash((self._named, self._function))

    def __repr__(self) -> str:
        return f"<Op {self._named or self._function or 'OP_NULL'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._named, self._function, self._commute)


def on_objects(op: Op | Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the function of two objects that an operator is."""
    if not isinstance(op, Op):
        return op
    function = op._function
    if function is not None:
        return lambda x, y: function(x, y, None)
    if op._named is None:
        raise ValueError("OP_NULL is no operator")
    return op._named


def on_arrays(op: Op, datatype: Datatype) -> Callable[[Any, Any], Any]:
    """Return the function of two arrays of a datatype, which makes a third, that an operator is."""
    if not isinstance(op, Op):
        raise TypeError(
            f"a reduction of buffers needs an Op: MPI.SUM or the like, or MPI.Op.Create(function), not {op!r}"
        )
    function, named = op._function, op._named
    if function is not None:

        def combine(a: Any, b: Any) -> Any:
            out = b.copy()
            function(a.view("u1").data, out.view("u1").data, datatype)
            return out

        return combine
    if named is None:
        raise ValueError("OP_NULL is no operator")
    if named.keeps_dtype:
        return named
    if named.ufunc:
        return lambda a, b: named(a, b).astype(a.dtype)
    return lambda a, b: _better_of(named, a, b)


def _better_of(named: reductions.Operation, a: Any, b: Any) -> Any:
    """Combine arrays of pairs, a value and its place, by MAXLOC or MINLOC."""
    if a.dtype.names is None:
        raise ValueError(f"{named} needs pairs: a buffer of MPI.DOUBLE_INT, MPI.TWOINT or the like")
    value, place = a.dtype.names
    out = sys.modules["numpy"].empty_like(a)
    out[value], out[place] = named((a[value], a[place]), (b[value], b[place]))
    return out


def _rebuild(named: reductions.Operation | None, function: Callable[..., Any] | None, commute: bool) -> Op:
    made = Op()
    made._named, made._function, made._commute = named, function, commute
    return made


OP_NULL = Op()
SUM = _rebuild(reductions.SUM, None, commute=True)
PROD = _rebuild(reductions.PROD, None, commute=True)
MAX = _rebuild(reductions.MAX, None, commute=True)
MIN = _rebuild(reductions.MIN, None, commute=True)
LAND = _rebuild(reductions.LAND, None, commute=True)
LOR = _rebuild(reductions.LOR, None, commute=True)
LXOR = _rebuild(reductions.LXOR, None, commute=True)
BAND = _rebuild(reductions.BAND, None, commute=True)
BOR = _rebuild(reductions.BOR, None, commute=True)
BXOR = _rebuild(reductions.BXOR, None, commute=True)
MAXLOC = _rebuild(reductions.MAXLOC, None, commute=True)
MINLOC = _rebuild(reductions.MINLOC, None, commute=True)
