"""Reductions: the operators of ``reduce``, ``allreduce``, ``scan`` and their kin, on objects and on arrays.

Layer: communicator; imports NumPy nowhere, and uses it where an operand is an array of it.

Any function of two operands is an operator. It must be associative, need not be commutative, and is applied in rank
order: ``op(op(rank 0, rank 1), op(rank 2, rank 3))``. The named ones are vectorised over NumPy arrays.
"""

from __future__ import annotations

import operator
import sys
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable

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
    "NAMED",
    "PROD",
    "SUM",
    "Operation",
    "is_array",
]


def is_array(obj: object) -> bool:
    """Whether it is a NumPy array, of exactly this type, whose elements are no Python objects."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(obj) is numpy.ndarray and not obj.dtype.hasobject  # type: ignore[attr-defined]


@final
class Operation:
    """A named reduction, as MPI has it; call it with two operands.

    Two objects are combined as Python does (``SUM`` of lists appends the second), arrays and numbers of NumPy's as
    NumPy does: element by element.

    Attributes:
        name: MPI's: "SUM".
        ufunc: the name of the NumPy function that does the same on arrays, or "".
    """

    __slots__ = ("_combine", "name", "ufunc")

    def __init__(self, name: str, combine: Callable[[Any, Any], Any], ufunc: str) -> None:
        self.name = name
        self.ufunc = ufunc
        self._combine = combine

    def __call__(self, a: Any, b: Any) -> Any:
        """Combine two operands; the first is of the lower ranks."""
        if self.ufunc and (_is_of_numpy(a) or _is_of_numpy(b)):
            return getattr(sys.modules["numpy"], self.ufunc)(a, b)
        return self._combine(a, b)

    @property
    def keeps_dtype(self) -> bool:
        """Whether it makes arrays of the type that it was given, element by element."""
        return bool(self.ufunc) and not self.ufunc.startswith("logical")

    def into(self, a: Any, b: Any, out: Any) -> None:
        """Combine two arrays element by element, into a third or one of the two."""
        getattr(sys.modules["numpy"], self.ufunc)(a, b, out=out, casting="unsafe")

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name  # one that travels arrives as the constant of this module


def _is_vector(obj: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, numpy.ndarray)


def _is_of_numpy(obj: object) -> bool:
    """Whether it is an array or a number of NumPy's, which is what arrays without dimensions become."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(obj, (numpy.ndarray, numpy.number, numpy.bool_))


def _extreme_with_place(better: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the operator on pairs (value, place): the better value with its place, the lower place of equal ones."""

    def combine(a: Any, b: Any) -> Any:
        (value, place), (other, elsewhere) = a, b
        if _is_vector(value):
            where = sys.modules["numpy"].where
            wins = better(other, value) | ((other == value) & (elsewhere < place))
            return where(wins, other, value), where(wins, elsewhere, place)
        if better(other, value) or (other == value and elsewhere < place):
            return other, elsewhere
        return value, place

    return combine


SUM = Operation("SUM", operator.add, "add")
PROD = Operation("PROD", operator.mul, "multiply")
MAX = Operation("MAX", max, "maximum")
MIN = Operation("MIN", min, "minimum")
LAND = Operation("LAND", lambda a, b: bool(a) and bool(b), "logical_and")
LOR = Operation("LOR", lambda a, b: bool(a) or bool(b), "logical_or")
LXOR = Operation("LXOR", lambda a, b: bool(a) != bool(b), "logical_xor")
BAND = Operation("BAND", operator.and_, "bitwise_and")
BOR = Operation("BOR", operator.or_, "bitwise_or")
BXOR = Operation("BXOR", operator.xor, "bitwise_xor")
MAXLOC = Operation("MAXLOC", _extreme_with_place(operator.gt), "")
MINLOC = Operation("MINLOC", _extreme_with_place(operator.lt), "")

NAMED = (SUM, PROD, MAX, MIN, LAND, LOR, LXOR, BAND, BOR, BXOR, MAXLOC, MINLOC)
