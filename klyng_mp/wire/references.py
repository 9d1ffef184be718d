"""What a function's code refers to: its global names, and the code itself as bytes.

Layer: wire; leaf, imports nothing of klyng_mp.

Invariants: a name counts only if an instruction loads (or deletes) it as a global; an attribute or a local of the
same spelling does not. Code of nested functions, lambdas, comprehensions and class bodies counts as the function's
own. Both caches hold their keys strongly, so that an id is never reused while it is one, and are emptied when full.
"""

from __future__ import annotations

import marshal
from opcode import opmap
from types import CodeType
from typing import NamedTuple

__all__ = ["CodeFacts", "load_code", "study"]

# Far more functions than a program has; the bound only keeps endless ``exec`` from growing the process.
_CACHE_LIMIT = 4096

_EXTENDED_ARG = opmap["EXTENDED_ARG"]
_LOAD_GLOBAL = opmap["LOAD_GLOBAL"]
# STORE_GLOBAL is missing on purpose: a function that only assigns a global does not need its value.
_BY_NAME = frozenset(
    opmap[name] for name in ("DELETE_GLOBAL", "DELETE_NAME", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS") if name in opmap
)


class CodeFacts(NamedTuple):
    """What is known of one code object."""

    code: CodeType
    packed: bytes
    """The code, for ``load_code``."""
    globals: tuple[str, ...]
    """Names that are looked up in the function's globals (or else in the builtins)."""
    names: frozenset[str]
    """Every name that occurs, attributes included: candidates for submodules."""


_studied: dict[int, CodeFacts] = {}
_loaded: dict[bytes, CodeType] = {}


def study(code: CodeType) -> CodeFacts:
    """Return what is known of ``code``; the second time it costs a look-up."""
    facts = _studied.get(id(code))
    if facts is not None and facts.code is code:
        return facts
    if len(_studied) >= _CACHE_LIMIT:
        _studied.clear()
    found: dict[str, None] = {}
    names: set[str] = set()
    _scan(code, found, names)
    facts = CodeFacts(code, marshal.dumps(code), tuple(found), frozenset(names))
    _studied[id(code)] = facts
    return facts


def load_code(packed: bytes) -> CodeType:
    """Return the code that ``study`` packed; the same bytes give the same object, which keeps it warm."""
    code = _loaded.get(packed)
    if code is None:
        if len(_loaded) >= _CACHE_LIMIT:
            _loaded.clear()
        code = marshal.loads(packed)  # noqa: S302 - comes from a rank of this World, as every pickle does
        if not isinstance(code, CodeType):
            raise TypeError(f"the code of a function was expected, not {type(code).__name__}")
        _loaded[packed] = code
    return code


def _scan(code: CodeType, found: dict[str, None], names: set[str]) -> None:
    names.update(code.co_names)
    if code.co_names:
        argument = 0
        raw = code.co_code
        for position in range(0, len(raw), 2):
            operation = raw[position]
            argument = argument << 8 | raw[position + 1]
            if operation == _EXTENDED_ARG:
                continue
            if operation == _LOAD_GLOBAL:
                found[code.co_names[argument >> 1]] = None  # the lowest bit says whether it will be called
            elif operation in _BY_NAME:
                found[code.co_names[argument]] = None
            argument = 0
    for constant in code.co_consts:
        if type(constant) is CodeType:
            _scan(constant, found, names)
