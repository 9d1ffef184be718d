"""Datatypes: what the elements of a buffer are, by MPI's names.

Layer: MPI; data only. NumPy's names of the types are strings here, which `specifications` gives to it.

There are the named ones only. What a derived one would describe is sent as a contiguous copy, or as an object.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

__all__ = ["DATATYPE_NULL", "NAMED", "Datatype", "datatype_of", "type_codes"]


class Datatype:
    """The type of a buffer's elements; the constants of this module are all there are.

    Attributes:
        name: MPI's: "MPI_DOUBLE".
        size: the bytes of an element.
        extent: the distance of elements in bytes, which is larger where a gap follows.
    """

    __slots__ = ("_dtype", "_key", "extent", "name", "size")

    def __init__(self, key: str = "DATATYPE_NULL", dtype: Any = "", size: int = 0, extent: int = 0) -> None:
        self._key = key
        self._dtype = dtype
        self.name = f"MPI_{key}"
        self.size = size
        self.extent = extent or size

    def Get_size(self) -> int:
        """Return the bytes of an element."""
        return self.size

    def Get_extent(self) -> tuple[int, int]:
        """Return (0, the distance of elements in bytes)."""
        return 0, self.extent

    def Get_name(self) -> str:
        """Return MPI's name."""
        return self.name

    @property
    def is_named(self) -> bool:
        """Always True: there are no derived ones."""
        return True

    @property
    def is_predefined(self) -> bool:
        """Always True: there are no derived ones."""
        return True

    def tocode(self) -> str:
        """Return the character that NumPy has for it.

        Raises:
            ValueError: it has none.
        """
        if not isinstance(self._dtype, str) or not self._dtype:
            raise ValueError(f"{self._key} has no type code")
        return _CODES.get(self._dtype, self._dtype)

    @classmethod
    def fromcode(cls, code: str) -> Datatype:
        """Return the one that a type code of NumPy or ``array`` names.

        Raises:
            ValueError: none has it.
        """
        return datatype_of(code)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"klyng_mp has no derived datatypes, so no Datatype.{name}: send a contiguous copy of the elements "
            "(numpy.ascontiguousarray), or the object itself with send()"
        )

    def __bool__(self) -> bool:
        return self.size > 0

    def __repr__(self) -> str:
        return self._key

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self._key,)


# MPI's name, and NumPy's character or structure.
_SIMPLE = {
    "B": "PACKED BYTE UNSIGNED_CHAR UINT8_T",
    "b": "SIGNED_CHAR INT8_T SINT8_T INTEGER1",
    "S1": "CHAR CHARACTER",
    "U": "WCHAR",
    "h": "SHORT SIGNED_SHORT INT16_T SINT16_T INTEGER2",
    "i": "INT SIGNED_INT INT32_T SINT32_T INTEGER INTEGER4 F_INT LOGICAL LOGICAL4 F_BOOL",
    "l": "LONG SIGNED_LONG INT64_T SINT64_T INTEGER8 AINT OFFSET COUNT",
    "q": "LONG_LONG SIGNED_LONG_LONG",
    "H": "UNSIGNED_SHORT UINT16_T",
    "I": "UNSIGNED UNSIGNED_INT UINT32_T",
    "L": "UNSIGNED_LONG UINT64_T",
    "Q": "UNSIGNED_LONG_LONG",
    "e": "FLOAT16_T REAL2",
    "f": "FLOAT FLOAT32_T REAL REAL4 F_FLOAT",
    "d": "DOUBLE FLOAT64_T DOUBLE_PRECISION REAL8 F_DOUBLE",
    "g": "LONG_DOUBLE",
    "?": "BOOL C_BOOL CXX_BOOL",
    "F": "COMPLEX C_COMPLEX C_FLOAT_COMPLEX CXX_FLOAT_COMPLEX COMPLEX8 F_COMPLEX F_FLOAT_COMPLEX",
    "D": "DOUBLE_COMPLEX C_DOUBLE_COMPLEX CXX_DOUBLE_COMPLEX COMPLEX16 F_DOUBLE_COMPLEX",
    "G": "C_LONG_DOUBLE_COMPLEX CXX_LONG_DOUBLE_COMPLEX",
}
_PAIRS = {  # of MAXLOC and MINLOC
    "FLOAT_INT": "f",
    "DOUBLE_INT": "d",
    "LONG_INT": "l",
    "TWOINT": "i",
    "INT_INT": "i",
    "SHORT_INT": "h",
}
_CODES = {"S1": "c"}
_SIZES = {"S1": 1, "U": 4, "g": 16, "F": 8, "D": 16, "G": 32}  # of those that `struct` does not know


def _make_named() -> dict[str, Datatype]:
    made = {
        name: Datatype(name, code, _SIZES.get(code) or struct.calcsize(code))
        for code, names in _SIMPLE.items()
        for name in names.split()
    }
    for name, code in _PAIRS.items():
        # As C lays out a struct of the two: each is where its alignment allows it, and so is the next struct.
        offset, extent = struct.calcsize(f"{code}0i"), struct.calcsize(f"{code}i0{code}")
        fields = {"names": ["f0", "f1"], "formats": [code, "i"], "offsets": [0, offset], "itemsize": extent}
        made[name] = Datatype(name, fields, struct.calcsize(code) + struct.calcsize("i"), extent)
    return made


DATATYPE_NULL = Datatype()
NAMED = _make_named()
_FIRST = {code: NAMED[names.split()[0]] for code, names in _SIMPLE.items()} | {
    "B": NAMED["BYTE"],
    "?": NAMED["C_BOOL"],
    "F": NAMED["C_FLOAT_COMPLEX"],
    "D": NAMED["C_DOUBLE_COMPLEX"],
}
_MORE_CODES = {
    "c": "S1", "s": "S1", "S": "S1", "a": "S1", "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "l", "u1": "B",
    "u2": "H", "u4": "I", "u8": "L", "n": "l", "N": "L", "p": "l", "P": "L", "f2": "e", "f4": "f", "f8": "d",
    "f16": "g", "c8": "F", "c16": "D", "c32": "G", "Zf": "F", "Zd": "D", "Zg": "G", "w": "U", "U1": "U",
}  # fmt: skip


def datatype_of(code: str) -> Datatype:
    """Return the datatype that a type code names.

    Raises:
        ValueError: none has it.
    """
    plain = code.lstrip("<=|@") or code
    found = _FIRST.get(plain) or _FIRST.get(_MORE_CODES.get(plain, ""))
    if found is None:
        raise ValueError(f"no datatype of MPI has the type code {code!r}: give one, as [data, MPI.BYTE]")
    return found


def type_codes() -> dict[str, Datatype]:
    """Return the datatype that each type code names."""
    return {code: datatype_of(code) for code in (*_FIRST, *_MORE_CODES)}


def _named(key: str) -> Datatype:
    return NAMED.get(key, DATATYPE_NULL)
