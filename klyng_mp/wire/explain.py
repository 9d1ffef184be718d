"""Where in an object the part sits that cannot travel, as a path that a programmer can follow.

Layer: wire; imports definition, references and namespace.

Invariants: never raises because of the object: its ``__repr__``, ``__getstate__`` and ``__reduce__`` may do what they
like. The search is bounded, by depth and by the number of trial pickles, and walks no circle twice.
"""

from __future__ import annotations

import functools
import reprlib
import types
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.wire.definition import is_shared
from klyng_mp.wire.namespace import MAIN_NAMES
from klyng_mp.wire.references import study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Culprit", "describe", "describe_error", "find_culprit", "names_in", "type_name"]

# Deeper paths nobody reads.
_DEPTH_LIMIT = 40

# Each trial pickles a part of the object again; the error is on its way already, but should not take minutes.
_TRIAL_LIMIT = 4000

# Reading a pickle in Python is slow, and the first names tell most.
_LOOKED_AT_BYTES = 1 << 20

_BRIEF = reprlib.Repr()
_BRIEF.maxother = _BRIEF.maxstring = 80

_CONTAINERS = (dict, list, tuple, set, frozenset)


class Culprit(NamedTuple):
    """The deepest part found that cannot travel by itself."""

    path: str
    obj: object
    reason: str
    """The error that it makes, in words: an exception would keep every frame alive that it has gone through."""


class _Place(NamedTuple):
    """A path, and the thing outside the object proper that it begins in ("the global 'x' of function f")."""

    path: str
    context: str = ""
    """In words, where the path's first name is to be found; the path is only that name so far if ``fresh``."""
    fresh: bool = False

    def then(self, step: str) -> _Place:
        return _Place(self.path + step, self.context)

    def __str__(self) -> str:
        if not self.context:
            return self.path
        return self.context if self.fresh else f"{self.path} in {self.context}"


def type_name(obj: object) -> str:
    """Return the name of an object's type, with its module unless that is obvious."""
    try:
        kind = type(obj)
        name, module = str(kind.__qualname__), str(kind.__module__)
    except Exception:  # noqa: BLE001 - a metaclass may do anything
        return "object"
    return name if module == "builtins" or module in MAIN_NAMES else f"{module}.{name}"


def describe(obj: object) -> str:
    """Return a short ``repr`` of any object; never raises."""
    try:
        text = _BRIEF.repr(obj)
    except Exception:  # noqa: BLE001 - a __repr__ may do anything
        return f"<{type_name(obj)} object>"
    return text if len(text) <= 200 else text[:197] + "..."


def describe_error(error: BaseException) -> str:
    """Return an exception's class and message; never raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a __str__ may do anything
        return type_name(error)


def names_in(pickled: bytes | memoryview) -> list[str]:
    """Return the classes and functions that a pickle refers to, as far as it can be read; never raises."""
    import pickletools  # noqa: PLC0415 - only for what goes wrong

    found: dict[str, None] = {}
    strings: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    is_token = False
    try:
        for opcode, argument, _ in pickletools.genops(bytes(pickled[:_LOOKED_AT_BYTES])):
            if opcode.name == "MEMOIZE":
                memo.append(last)
                continue
            last = argument if isinstance(argument, str) and "UNICODE" in opcode.name else None
            if opcode.name in ("BINGET", "LONG_BINGET"):
                last = memo[int(str(argument))]
            if last is not None:
                strings.append(last)
                if is_token:
                    found[last] = None  # what a reference to a thing of __main__ says besides
            elif opcode.name == "STACK_GLOBAL" and not strings[-2].startswith(("klyng_mp.wire", "builtins", "copyreg")):
                found[".".join(strings[-2:])] = None
            is_token = opcode.name == "LONG1"
    except Exception:  # noqa: BLE001 - it may be no pickle at all
        return list(found)
    return list(found)


def find_culprit(
    obj: object, attempt: Callable[[object], object], *, name: str = "", names: Sequence[str] = ()
) -> Culprit:
    """Return the deepest part of ``obj`` that ``attempt`` fails for.

    Args:
        obj: what could not travel.
        attempt: pickles a part, and raises if that cannot be done.
        name: what the path begins with; by default ``obj`` is named after its class.
        names: names for the elements of ``obj``, a tuple that was put together for the journey.
    """
    trials = 0

    def failure(part: object) -> str | None:
        nonlocal trials
        trials += 1
        try:
            attempt(part)
        except Exception as error:  # noqa: BLE001 - the objects' own methods may raise anything
            return describe_error(error)
        return None

    reason = failure(obj) or "it could not be pickled, but now it can"
    place = _begin(name or _root_name(obj), obj)
    candidates = _parts(place, obj)
    if names and isinstance(obj, tuple):
        candidates = ((_begin(part, element), element) for part, element in zip(names, obj, strict=False))
    seen = {id(obj)}
    for _ in range(_DEPTH_LIMIT):
        for inner, part in _careful(candidates):
            if trials >= _TRIAL_LIMIT or id(part) in seen:
                continue
            seen.add(id(part))
            found = failure(part)
            if found is not None:
                place, obj, reason = inner, part, found
                candidates = _parts(place, obj)
                break
        else:
            break
    return Culprit(str(place), obj, reason)


def _root_name(obj: object) -> str:
    kind = type(obj)
    own = kind.__module__ != "builtins" and not kind.__module__.startswith("_")
    return kind.__name__.lower() if own or kind.__module__ in MAIN_NAMES else "obj"


def _begin(name: str, obj: object) -> _Place:
    if isinstance(obj, FunctionType):
        return _Place(obj.__qualname__, f"function {obj.__qualname__}", fresh=True)
    if isinstance(obj, type):
        return _Place(obj.__qualname__, f"class {obj.__qualname__}", fresh=True)
    return _Place(name)


def _careful(parts: Iterator[tuple[_Place, object]]) -> Iterator[tuple[_Place, object]]:
    try:
        yield from parts
    except Exception:  # noqa: BLE001 - a part that cannot be looked at is no better answer than the whole
        return


def _parts(place: _Place, obj: object) -> Iterator[tuple[_Place, object]]:
    """Yield what ``obj`` consists of, as far as it travels with it."""
    if isinstance(obj, _CONTAINERS):
        yield from _elements(place, obj)
    if isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, types.MethodType):
        yield place.then(".__self__"), obj.__self__
        yield place.then(".__func__"), obj.__func__
    elif isinstance(obj, functools.partial):
        yield place.then(".func"), obj.func
        yield from _elements(place.then(".args"), obj.args)
        yield from _elements(place.then(".keywords"), obj.keywords)
    elif isinstance(obj, type):
        for name, value in list(vars(obj).items()):
            yield _Place(f"{obj.__qualname__}.{name}"), value
        for base in obj.__bases__:
            yield _Place(base.__qualname__, f"class {base.__qualname__}", fresh=True), base
    elif isinstance(obj, property):
        for accessor in (obj.fget, obj.fset, obj.fdel):
            yield place, accessor
    elif isinstance(obj, (staticmethod, classmethod)):
        yield place, obj.__func__
    elif isinstance(obj, types.CellType):
        yield place, obj.cell_contents
    else:
        yield from _parts_of_instance(place, obj)


def _elements(place: _Place, obj: Any) -> Iterator[tuple[_Place, object]]:
    if isinstance(obj, dict):
        for key, value in list(obj.items()):
            yield place.then(f"[{describe(key)}]"), value
        for key in list(obj):
            yield place.then(f".keys() <{describe(key)}>"), key
    elif isinstance(obj, (set, frozenset)):
        for element in list(obj):
            yield place.then(f" <element {describe(element)}>"), element
    else:
        fields = getattr(obj, "_fields", ())
        for index, element in enumerate(obj):
            yield place.then(f".{fields[index]}" if index < len(fields) else f"[{index}]"), element


def _parts_of_function(function: FunctionType) -> Iterator[tuple[_Place, object]]:
    name = function.__qualname__
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        if cell != types.CellType():
            inner = _Place(variable, f"the variable {variable!r} that function {name} closes over", fresh=True)
            yield inner, cell.cell_contents
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for parameter, default in (*zip(names, defaults, strict=False), *(function.__kwdefaults__ or {}).items()):
        yield _Place(parameter, f"the default of parameter {parameter!r} of function {name}", fresh=True), default
    for attribute, value in list(vars(function).items()):
        yield _Place(f"{name}.{attribute}"), value
    for parameter, annotation in list(function.__annotations__.items()):
        inner = _Place(parameter, f"the annotation of {parameter!r} of function {name}", fresh=True)
        yield inner, annotation
    if is_shared(function.__globals__):
        return
    for variable in study(code).globals:
        if variable in function.__globals__:
            value = function.__globals__[variable]
            yield _Place(variable, f"the global {variable!r} of function {name}", fresh=True), value


def _parts_of_instance(place: _Place, obj: object) -> Iterator[tuple[_Place, object]]:
    kind = type(obj)
    if kind.__module__ == "builtins" and not isinstance(obj, BaseException):
        return
    if isinstance(obj, BaseException):
        yield from _elements(place.then(".args"), obj.args)
    reduced = obj.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    attributes = getattr(obj, "__dict__", {})
    names = {id(value): name for name, value in list(attributes.items())}
    state = reduced[2] if len(reduced) > 2 else None
    for layer in state if isinstance(state, tuple) else (state,):
        if isinstance(layer, dict):
            for name, value in list(layer.items()):
                yield place.then(f".{name}" if isinstance(name, str) else f"[{describe(name)}]"), value
        elif layer is not None:
            yield place.then(".__getstate__()"), layer
    for index, value in enumerate(reduced[3] or () if len(reduced) > 3 else ()):
        yield place.then(f"[{index}]"), value
    for key, value in reduced[4] or () if len(reduced) > 4 else ():
        yield place.then(f"[{describe(key)}]"), value
    for index, value in enumerate(reduced[1]):
        if value is not kind:
            name = names.get(id(value))
            yield place.then(f".{name}" if name else f".__reduce__()[1][{index}]"), value
    yield place, kind
