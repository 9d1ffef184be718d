"""What a control message may say: the types of its fields, and the strict JSON that they travel in.

Layer: remote; no sockets, no pickle.

A closed format: what is not in a message's `Record` is refused. Values become nothing but int, str, bool, bytes, list
and dict. Text has no control characters, so that it can be shown; what needs them travels as a frame's data.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Choice",
    "FieldType",
    "Flag",
    "Integer",
    "Items",
    "Maybe",
    "MisfitError",
    "Octets",
    "Record",
    "Table",
    "Text",
    "fit",
    "read_json",
    "write_json",
]

MAX_DEPTH = 8  # of brackets; no message needs more than five
MAX_DIGITS = 20  # of a number: 2**64 and a sign

_BRACKETS = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
# Controls, and what turns the direction of writing: neither may reach somebody's terminal.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_UNPRINTABLE_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class MisfitError(ValueError):
    """A value does not fit the schema; the message names the field and what it should have been."""


class FieldType(Protocol):
    """One type of field: makes of a value what JSON can say, and back; raises MisfitError for what does not fit."""

    def encode(self, value: Any, where: str) -> Any:
        """Return what JSON can say of a value of this program's own."""

    def decode(self, value: Any, where: str) -> Any:
        """Return the value of what JSON said."""


def _misfit(where: str, wanted: str) -> NoReturn:
    raise MisfitError(f"{where} is not {wanted}")


class Integer:
    """A whole number between two bounds, both included."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def encode(self, value: Any, where: str) -> int:
        """Check a number."""
        if type(value) is not int or not self.low <= value <= self.high:
            _misfit(where, f"a number from {self.low} to {self.high}")
        return int(value)

    decode = encode


class Flag:
    """True or False."""

    def encode(self, value: Any, where: str) -> bool:
        """Check a truth value."""
        if type(value) is not bool:
            _misfit(where, "true or false")
        return bool(value)

    decode = encode


class Text:
    """Text of at most so many bytes as UTF-8, without control characters; `lines` allows newlines and tabs."""

    def __init__(self, limit_bytes: int, *, lines: bool = False) -> None:
        self.limit_bytes = limit_bytes
        self._unprintable = _UNPRINTABLE_LINES if lines else _UNPRINTABLE

    def encode(self, value: Any, where: str) -> str:
        """Check a text."""
        if type(value) is not str or len(value) > self.limit_bytes:
            _misfit(where, f"text of at most {self.limit_bytes} bytes")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            _misfit(where, "text that UTF-8 can say")
        if size > self.limit_bytes:
            _misfit(where, f"text of at most {self.limit_bytes} bytes")
        if self._unprintable.search(value):
            _misfit(where, "text without control characters")
        return str(value)

    decode = encode

    def fit(self, value: str) -> str:
        """Return text that is for reading as one that can be sent: replaced what may not be in it, without its end."""
        text = value.replace("\r", "\n") if self._unprintable is _UNPRINTABLE_LINES else value
        data = self._unprintable.sub("\N{REPLACEMENT CHARACTER}", text).encode(errors="replace")
        return data[: self.limit_bytes].decode(errors="ignore")


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def encode(self, value: Any, where: str) -> str:
        """Check a word."""
        if type(value) is not str or value not in self.words:
            _misfit(where, f"one of {', '.join(self.words)}")
        return str(value)

    decode = encode


class Octets:
    """Bytes, between two lengths, both included; base64 in JSON, of which each value has exactly one spelling."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, low if high is None else high

    def encode(self, value: Any, where: str) -> str:
        """Return bytes as base64."""
        if type(value) is not bytes or not self.low <= len(value) <= self.high:
            _misfit(where, self._wanted())
        return base64.b64encode(value).decode()

    def decode(self, value: Any, where: str) -> bytes:
        """Return the bytes of base64."""
        if type(value) is not str or len(value) > 4 * ((self.high + 2) // 3):
            _misfit(where, self._wanted())
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            _misfit(where, "base64")
        if not self.low <= len(data) <= self.high or base64.b64encode(data).decode() != value:
            _misfit(where, self._wanted())
        return data

    def _wanted(self) -> str:
        return f"{self.low} bytes" if self.low == self.high else f"{self.low} to {self.high} bytes"


class Items:
    """A list of at most so many values of one type."""

    def __init__(self, of: FieldType, limit: int) -> None:
        self.of, self.limit = of, limit

    def encode(self, value: Any, where: str) -> list[Any]:
        """Encode each."""
        return [self.of.encode(item, f"{where}[{index}]") for index, item in enumerate(self._checked(value, where))]

    def decode(self, value: Any, where: str) -> list[Any]:
        """Decode each."""
        return [self.of.decode(item, f"{where}[{index}]") for index, item in enumerate(self._checked(value, where))]

    def _checked(self, value: Any, where: str) -> list[Any]:
        if type(value) is not list or len(value) > self.limit:
            _misfit(where, f"a list of at most {self.limit}")
        return list(value)


class Table:
    """A mapping of at most so many words (of at most 256 bytes each) to values of one type."""

    def __init__(self, of: FieldType, limit: int) -> None:
        self.of, self.limit = of, limit
        self._word = Text(256)

    def encode(self, value: Any, where: str) -> dict[str, Any]:
        """Encode each value; what is None is left out where it may be."""
        checked = self._checked(value, where)
        if isinstance(self.of, Maybe):
            checked = {name: item for name, item in checked.items() if item is not None}
        return {name: self.of.encode(item, f"{where}[{name!r}]") for name, item in checked.items()}

    def decode(self, value: Any, where: str) -> dict[str, Any]:
        """Decode each value."""
        checked = self._checked(value, where)
        return {name: self.of.decode(item, f"{where}[{name!r}]") for name, item in checked.items()}

    def _checked(self, value: Any, where: str) -> dict[str, Any]:
        if type(value) is not dict or len(value) > self.limit:
            _misfit(where, f"a table of at most {self.limit}")
        return {self._word.decode(name, f"a word of {where}"): item for name, item in value.items()}


class Maybe:
    """A field that may be left out, and then is None; only directly in a `Record`, or in a `Table`, which lacks it."""

    def __init__(self, of: FieldType) -> None:
        self.of = of

    def encode(self, value: Any, where: str) -> Any:
        """Encode what is there."""
        return self.of.encode(value, where)

    def decode(self, value: Any, where: str) -> Any:
        """Decode what is there."""
        return self.of.decode(value, where)


class Record:
    """Named fields, each of its own type; all of them, unless `Maybe`, and no others."""

    def __init__(self, fields: Mapping[str, FieldType]) -> None:
        self.fields = dict(fields)
        self._optional = {name for name, of in self.fields.items() if isinstance(of, Maybe)}

    def encode(self, value: Any, where: str) -> dict[str, Any]:
        """Encode each field; what is None is left out where it may be."""
        if type(value) is dict:
            value = {name: item for name, item in value.items() if item is not None or name not in self._optional}
        self._check_names(value, where)
        return {name: self.fields[name].encode(item, f"{where}.{name}") for name, item in value.items()}

    def decode(self, value: Any, where: str) -> dict[str, Any]:
        """Decode each field; what may be left out, and is, is None."""
        self._check_names(value, where)
        left_out = dict.fromkeys(sorted(self._optional - value.keys()))
        return {name: self.fields[name].decode(item, f"{where}.{name}") for name, item in value.items()} | left_out

    def _check_names(self, value: Any, where: str) -> None:
        if type(value) is not dict:
            _misfit(where, "an object")
        if unknown := value.keys() - self.fields.keys():
            raise MisfitError(f"{where} has an unknown field {min(unknown, key=str)!r:.80}")
        if missing := self.fields.keys() - value.keys() - self._optional:
            raise MisfitError(f"{where} lacks its field {min(missing)!r}")


def fit(of: FieldType, value: Any) -> Any:
    """Return a value whose texts fit their types, whatever somebody's program has written into them; see `Text.fit`."""
    if isinstance(of, Text) and type(value) is str:
        return of.fit(value)
    if isinstance(of, Maybe):
        return fit(of.of, value)
    if isinstance(of, Items) and type(value) is list:
        return [fit(of.of, item) for item in value]
    if isinstance(of, Record) and type(value) is dict:
        return {name: fit(of.fields[name], item) if name in of.fields else item for name, item in value.items()}
    return value


# -- JSON ------------------------------------------------------------------------------------------


def write_json(value: Any) -> bytes:
    """Return what the types above have encoded as JSON, in one spelling."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def read_json(data: bytes) -> Any:
    """Return what strict JSON says: UTF-8, no name twice, no number that is not whole, no depth without end.

    Raises:
        MisfitError: it is anything else. Nothing of a wrong depth reaches the parser.
    """
    if _depth(data) > MAX_DEPTH:
        raise MisfitError(f"more than {MAX_DEPTH} brackets stand in each other")
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_without_doubles,
            parse_int=_whole,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except MisfitError:
        raise
    except ValueError as error:  # a UnicodeDecodeError or a JSONDecodeError
        raise MisfitError(f"the text is no JSON: {error}") from None


def _depth(data: bytes) -> int:
    depth = deepest = 0
    inside_text = False
    for match in _BRACKETS.finditer(data):
        mark = match[0]
        if mark == b'"':
            inside_text = not inside_text
        elif not inside_text and mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not inside_text and mark in b"]}":
            depth -= 1
    return deepest


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MisfitError("a name stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise MisfitError(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _refuse_number(text: str) -> NoReturn:
    raise MisfitError(f"{text:.20} is no whole number")
