"""What a class, function or sentinel consists of: what makes it empty, and what fills it.

Layer: wire; imports references, namespace and rebuild.

Invariants: a skeleton refers only to what has to exist before the thing itself can (bases, metaclass, the globals a
function lives in); everything else is in the state, so that things may refer to each other in circles.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import copyreg
import functools
import sys
import typing
from abc import ABCMeta
from enum import EnumMeta
from types import CellType, FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from klyng_mp.wire import rebuild
from klyng_mp.wire.namespace import NAMESPACES, lookup
from klyng_mp.wire.references import study

if TYPE_CHECKING:
    from klyng_mp.wire.packing import Packing

__all__ = [
    "HEAP_TYPE",
    "LRU_CACHE",
    "TYPE_VARIABLES",
    "class_of_method",
    "function_state",
    "home_of",
    "is_shared",
    "lru_cache_arguments",
    "member_parts",
    "place_of_globals",
    "skeleton_of",
    "state_of",
]

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement (or as if by one)

LRU_CACHE: type = type(functools.lru_cache(len))

# Attributes that a class must have before instances of it can be among its other attributes.
_EARLY = frozenset({FunctionType, classmethod, staticmethod, property, type(None), bool, int, float, str})

TYPE_VARIABLES: tuple[Any, ...] = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple, typing.NewType)


def skeleton_of(packing: Packing, obj: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the function and arguments that make an item, still empty."""
    if isinstance(obj, type):
        return rebuild.make_class, (type(obj), obj.__name__, obj.__bases__, _class_body(obj))
    if type(obj) is FunctionType:
        place = place_of_globals(packing, obj)
        return rebuild.make_function, (study(obj.__code__).packed, place, len(obj.__closure__ or ()))
    if isinstance(obj, TYPE_VARIABLES):
        return rebuild.make_type_variable, _type_variable_arguments(obj)
    if type(obj) is LRU_CACHE:
        return rebuild.make_lru_cache, lru_cache_arguments(obj)
    return copyreg.__newobj__, (type(obj),)  # type: ignore[attr-defined]


def state_of(packing: Packing, obj: Any) -> tuple[Any, Any] | None:
    """Return the function and state that fill an item, or None if it is complete."""
    if isinstance(obj, type):
        return rebuild.fill_class, _class_state(obj)
    if type(obj) is FunctionType:
        state = function_state(packing, obj, place_of_globals(packing, obj))
        if obj.__closure__:
            state["cells"] = tuple(_content(cell) for cell in obj.__closure__)
        return rebuild.fill_function, state
    if isinstance(obj, TYPE_VARIABLES) or type(obj) is LRU_CACHE:
        return None
    return rebuild.fill_object, object.__getstate__(obj)


def _content(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _class_body(cls: type) -> dict[str, Any]:
    body: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    attributes = vars(cls)
    if "__slots__" in attributes:
        slots = attributes["__slots__"]
        if not isinstance(slots, (str, tuple, list, dict)):  # something iterable that is used up by now
            slots = [name for name, value in attributes.items() if isinstance(value, MemberDescriptorType)]
        body["__slots__"] = slots
    if "__orig_bases__" in attributes:
        body["__orig_bases__"] = attributes["__orig_bases__"]  # Generic refuses to be a base without it
    return body


def _class_state(cls: type) -> tuple[Any, ...]:
    early: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for name, value in vars(cls).items():
        if rebuild.is_own_attribute(cls, name, value):
            is_early = type(value) in _EARLY or (name.startswith("__") and name.endswith("__"))
            (early if is_early else attributes)[name] = value
    if isinstance(cls, EnumMeta):
        # Not what a Flag has combined: it can do so again, and this must not look like another class by then.
        members = {id(member) for member in attributes["_member_map_"].values()}
        found = attributes["_value2member_map_"].items()
        attributes["_value2member_map_"] = {value: member for value, member in found if id(member) in members}
    return _Early(cls, early), attributes, _registered(cls)


class _Early:
    """Is pickled as a call that gives a class its first attributes, while the others are yet to be made."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild.set_attributes, self.arguments


def _registered(cls: type) -> tuple[type, ...]:
    if not isinstance(cls, ABCMeta):
        return ()
    references = _abc._get_dump(cls)[0]  # noqa: SLF001 - nothing public tells
    return tuple(other for reference in references if (other := reference()) is not None)


# Functions

# Those that a new function has not, or has empty.
_PLAIN_ATTRIBUTES = ("__defaults__", "__kwdefaults__", "__annotations__", "__dict__", "__type_params__")


def place_of_globals(packing: Packing, function: FunctionType) -> int | str | Any:
    """Return what stands for a function's globals: a namespace's token, a module's name, or a dict by value."""
    variables = function.__globals__
    number = NAMESPACES.id_of(variables)
    if number is not None:
        return "__main__" if packing.main_by_reference else number
    if is_shared(variables):
        return variables["__name__"]
    return packing.foreign(variables)


def is_shared(variables: dict[str, Any]) -> bool:
    """Tell whether globals are those of a module, which the receiver imports, and not of a namespace."""
    name = variables.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return getattr(module, "__dict__", None) is variables and NAMESPACES.id_of(variables) is None


def home_of(obj: Any) -> dict[str, Any]:
    """Return the globals among which something of ``__main__`` has its name."""
    variables: dict[str, Any] = getattr(obj, "__globals__", {})
    if NAMESPACES.id_of(variables) is None:  # not a function, or what a decorator from elsewhere has made of one
        return vars(sys.modules["__main__"])
    return variables


def class_of_method(function: FunctionType) -> type | None:
    """Return the class in whose body a function was defined, if it can be found by the function's name."""
    path, _, name = function.__qualname__.rpartition(".")
    if not path or "<locals>" in path:
        return None
    cls = lookup(home_of(function), path)
    if not isinstance(cls, type) or cls.__qualname__ != path or getattr(cls, name, None) is not function:
        return None
    return cls


def function_state(packing: Packing, function: FunctionType, place: int | str | Any) -> dict[str, Any]:
    """Return what ``make_function`` has not given the function already; note the globals it refers to."""
    code = function.__code__
    facts = study(code)
    constants = code.co_consts
    state: dict[str, Any] = {name: value for name in _PLAIN_ATTRIBUTES if (value := getattr(function, name, None))}
    given = {
        "__name__": code.co_name,
        "__qualname__": code.co_qualname,
        "__module__": function.__globals__.get("__name__"),
        "__doc__": constants[0] if constants and isinstance(constants[0], str) else None,
    }
    state.update((name, value) for name in given if (value := getattr(function, name)) != given[name])
    if isinstance(place, int):
        packing.refer(place, facts.globals, facts.names)
    elif not isinstance(place, str):
        state["globals"] = {name: function.__globals__[name] for name in facts.globals if name in function.__globals__}
    return state


def lru_cache_arguments(function: Any) -> tuple[Any, ...]:
    """Return what ``make_lru_cache`` takes."""
    options = function.cache_parameters()
    return function.__wrapped__, options["maxsize"], options["typed"]


# Enum members and type variables


def member_parts(cls: type, member: Any) -> tuple[tuple[Any, ...], Any]:
    """Return what ``make_member`` takes, and the member's attributes."""
    data: Any = next(base for base in cls.__mro__ if not base.__flags__ & HEAP_TYPE)
    if data is object:
        arguments: tuple[Any, ...] = ()
    elif hasattr(data, "__getnewargs__"):
        arguments = data.__getnewargs__(member)
    else:
        arguments = data.__reduce__(member)[1]
    return (cls, member._name_, data, arguments), object.__getstate__(member)


def _type_variable_arguments(variable: Any) -> tuple[Any, ...]:
    kind = type(variable)
    arguments: tuple[Any, ...] = (variable.__name__,)
    options: dict[str, Any] = {}
    if kind is typing.NewType:
        arguments = (variable.__qualname__, variable.__supertype__)
    elif kind is not typing.TypeVarTuple:
        arguments += getattr(variable, "__constraints__", ())
        options = {"covariant": variable.__covariant__, "contravariant": variable.__contravariant__}
        if variable.__bound__ is not None:
            options["bound"] = variable.__bound__
    return kind, arguments, options, variable.__module__
