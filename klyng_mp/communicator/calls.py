"""What collective calls are called: the tags of their messages, and where in the user's program they were made.

Layer: communicator.

A tag is the number of the call, the root where there is one, and the kind, from the high bits to the low ones: so
messages of different calls never match, and one that should have matched says what its sender called.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

__all__ = ["CallLog", "describe_tag", "first_tag", "make_tag", "number_of"]

_KINDS = (
    "barrier", "bcast", "scatter", "gather", "allgather", "alltoall", "reduce", "allreduce", "reduce_scatter", "scan",
    "exscan", "ibarrier", "split", "dup", "create", "create_cart",
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(_KINDS)}
_KIND_BITS = 6
_ROOT_BITS = 10  # roots that differ by more than this can tell apart are told apart by their hang
_NUMBER_SHIFT = _KIND_BITS + _ROOT_BITS
_LOGGED = 16  # calls of a communicator whose place in the user's program is remembered
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def make_tag(number: int, kind: str, root: int = -1) -> int:
    """Return the tag of the messages of a call."""
    return number << _NUMBER_SHIFT | ((root + 1) & (1 << _ROOT_BITS) - 1) << _KIND_BITS | _NUMBERS[kind]


def first_tag(number: int) -> int:
    """Return the lowest tag that a call of a number may have."""
    return number << _NUMBER_SHIFT


def number_of(tag: int) -> int:
    """Return the number of the call that a tag belongs to."""
    return tag >> _NUMBER_SHIFT


class CallLog:
    """The collective calls of a communicator on this rank; of the last, where in the user's program they were made.

    Attributes:
        made: how many were made.
        last: the tag of the last one.
        abandoned: the numbers of those that ended with an error.
        pending: of those that go on by themselves.
    """

    __slots__ = ("__weakref__", "_calls", "abandoned", "last", "made", "pending")

    def __init__(self) -> None:
        self.made = self.last = 0
        self.abandoned: set[int] = set()
        self.pending: set[int] = set()
        self._calls: list[tuple[int, int, CodeType, int]] = []

    def note(self, tag: int) -> None:
        """Note a call; to be called by what the user's own frame called, or what that called."""
        try:
            frame = sys._getframe(3)  # noqa: SLF001 - what warnings uses to name a line
        except ValueError:  # the call itself is what a thread began with, or what Python calls at its exit
            frame = sys._getframe(2)  # noqa: SLF001
        while frame.f_code.co_filename.startswith(_OURS) and frame.f_back is not None:
            frame = frame.f_back
        number = tag >> _NUMBER_SHIFT
        call = number, tag, frame.f_code, frame.f_lasti
        if len(self._calls) < _LOGGED:  # made only by those who call; the numbers count from 0
            self._calls.append(call)
        else:
            self._calls[number % _LOGGED] = call
        self.made = number + 1
        self.last = tag

    def tag_of(self, number: int) -> int | None:
        """Return the tag of the call that had a number, or None if it was long ago or has not come yet."""
        call = self._find(number)
        return None if call is None else call[1]

    def find(self, number: int) -> str | None:
        """Say what call had a number, and where it was made, or None; see `tag_of`."""
        call = self._find(number)
        if call is None:
            return None
        _, tag, code, instruction = call
        return f"{describe_tag(tag)} at {code.co_filename}:{_line(code, instruction)}"

    def _find(self, number: int) -> tuple[int, int, CodeType, int] | None:
        place = number % _LOGGED
        return self._calls[place] if place < len(self._calls) and self._calls[place][0] == number else None


def describe_tag(tag: int) -> str:
    """Say what call a message of this tag belongs to."""
    kind = _KINDS[tag & (1 << _KIND_BITS) - 1]
    root = tag >> _KIND_BITS & (1 << _ROOT_BITS) - 1
    return f"{kind}(root={root - 1})" if root else f"{kind}()"


def _line(code: CodeType, instruction: int) -> int:
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
    return line
