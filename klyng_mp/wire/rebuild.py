"""The receiver's half of by-value pickling: the functions that a pickle calls to make and fill objects.

Layer: wire; imports namespace and references.

Invariants: everything is made empty first and filled afterwards, so that things may refer to each other in circles.
No code of the user runs where its effects have travelled already: not a metaclass's ``__new__``, not the
``__init_subclass__`` of a base that came by value, not an enum member's ``__init__``.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import builtins
import functools
import importlib
from abc import ABCMeta
from enum import EnumMeta
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any

from klyng_mp.wire.namespace import NAMESPACES, REGISTRY
from klyng_mp.wire.references import load_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "bind_global",
    "cell_of",
    "fill_cell",
    "fill_class",
    "fill_function",
    "fill_object",
    "get_constant",
    "get_namespace",
    "import_module",
    "is_own_attribute",
    "make_cached_property",
    "make_cell",
    "make_class",
    "make_code",
    "make_function",
    "make_globals",
    "make_lru_cache",
    "make_member",
    "make_property",
    "make_type_variable",
    "set_attributes",
]

# What a class has because it is one, or what its skeleton has already.
_GIVEN = frozenset({"__dict__", "__weakref__", "__module__", "__slots__", "__orig_bases__", "_abc_impl"})


def import_module(name: str, parts: Iterable[str] = ()) -> ModuleType:
    """Return the module of that name, with those of its submodules imported that the sender has."""
    for part in parts:
        importlib.import_module(part)
    return importlib.import_module(name)


def get_constant(module: str, name: str) -> Any:
    """Return what a module binds ``name`` to: for sentinels that are compared with ``is``."""
    return getattr(importlib.import_module(module), name)


def get_namespace(number: int) -> ModuleType:
    """Return the module that stands for another process's ``__main__``."""
    return NAMESPACES.module(number)


def bind_global(number: int, name: str, value: object, replace: bool) -> tuple[int, str]:
    """Assign a global of a namespace, and return which; without ``replace`` only if there is none."""
    NAMESPACES.bind(number, {name: value}, replace=replace)
    return number, name


# Functions


def make_code(packed: bytes) -> Any:
    """Return a code object."""
    return load_code(packed)


def make_globals(name: str) -> dict[str, Any]:
    """Return the globals for functions of a module that cannot be imported here."""
    return {"__name__": name, "__builtins__": builtins}


def make_function(
    packed: bytes, where: int | str | dict[str, Any], cells: tuple[CellType, ...] | int = ()
) -> FunctionType:
    """Return a function that has its code, globals and closure, and nothing else.

    Args:
        packed: its code.
        where: its globals: the token of a namespace, the name of a module, or the dict itself.
        cells: its closure, or how many empty cells that takes.
    """
    if isinstance(where, int):
        variables = NAMESPACES.variables(where)
    elif where == "__main__":
        variables = NAMESPACES.variables(NAMESPACES.main_id())
    elif isinstance(where, str):
        variables = vars(importlib.import_module(where))
    else:
        variables = where
    if isinstance(cells, int):
        cells = tuple(CellType() for _ in range(cells))
    return FunctionType(load_code(packed), variables, None, None, cells or None)


def fill_function(function: FunctionType, state: dict[str, Any]) -> None:
    """Give a function what makes it the one that was sent; what ``state`` does not name becomes what it is at first."""
    function.__defaults__ = state.pop("__defaults__", None)
    function.__kwdefaults__ = state.pop("__kwdefaults__", None)
    function.__annotations__ = state.pop("__annotations__", {})
    function.__dict__.clear()
    function.__dict__.update(state.pop("__dict__", ()))
    function.__globals__.update(state.pop("globals", ()))
    for cell, content in zip(function.__closure__ or (), state.pop("cells", ()), strict=False):
        fill_cell(cell, content)
    for name, value in state.items():
        setattr(function, name, value)


def make_cell() -> CellType:
    """Return an empty closure cell."""
    return CellType()


def fill_cell(cell: CellType, content: tuple[Any, ...]) -> None:
    """Put the one element of ``content`` into a cell; none empties it."""
    if content:
        cell.cell_contents = content[0]
    elif cell != CellType():
        del cell.cell_contents


def cell_of(function: FunctionType, index: int) -> CellType:
    """Return a cell of a function's closure: for functions inside it that share the variable."""
    assert function.__closure__ is not None  # noqa: S101 - the sender counted them
    return function.__closure__[index]


def make_lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return a function with a cache of its own, empty."""
    return functools.lru_cache(maxsize, typed)(function)


# Classes


def make_class(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """Return a class that has its name, bases and slots, and nothing else."""
    hooks = _own_hooks(bases)
    for base in hooks:
        type.__delattr__(base, "__init_subclass__")
    try:
        return _make_class(meta, name, bases, body)
    finally:
        for base, hook in hooks.items():
            type.__setattr__(base, "__init_subclass__", hook)


def _make_class(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    if issubclass(meta, EnumMeta) or meta.__module__ == "typing":
        # An enum's members, a protocol's and a typed dict's marks are filled in with the other attributes.
        cls: type = type.__new__(meta, name, bases, body)
        if issubclass(meta, ABCMeta):
            _abc._abc_init(cls)  # noqa: SLF001 - what ABCMeta.__new__ does besides
        return cls
    # Of the metaclasses that came by value, what __new__ and __init__ did is in the state.
    native = next(candidate for candidate in meta.__mro__ if REGISTRY.find(candidate) is None)
    make: Any = native if native is meta and native not in (type, ABCMeta) else functools.partial(native.__new__, meta)
    made: type = make(name, bases, body)
    return made


def _own_hooks(bases: tuple[type, ...]) -> dict[type, Any]:
    return {
        parent: vars(parent)["__init_subclass__"]
        for base in bases
        for parent in base.__mro__
        if "__init_subclass__" in vars(parent) and REGISTRY.find(parent) is not None
    }


def is_own_attribute(cls: type, name: str, value: object) -> bool:
    """Tell whether an attribute of a class has to travel, or is there as soon as the class is made."""
    if name in _GIVEN:
        return False
    if isinstance(value, (GetSetDescriptorType, MemberDescriptorType)):
        return value.__objclass__ is not cls
    return True


def set_attributes(cls: type, attributes: dict[str, Any]) -> frozenset[str]:
    """Give a class attributes, and return their names.

    By ``type``'s own method: a metaclass's ``__setattr__`` has seen the attributes already, and Enum's refuses them.
    """
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    return frozenset(attributes)


def fill_class(cls: type, state: tuple[frozenset[str], dict[str, Any], tuple[type, ...]]) -> None:
    """Give a class its attributes, and take away those it has no more.

    Args:
        cls: the class.
        state: the names of the attributes that it has already, since making the others may have called its
            methods; the other attributes; the virtual subclasses, if it is abstract.
    """
    early, attributes, registered = state
    if "_value2member_map_" in attributes:
        # What a Flag has combined here is not forgotten.
        members = vars(cls).get("_value2member_map_", {})
        attributes["_value2member_map_"] = {**members, **attributes["_value2member_map_"]}
    set_attributes(cls, attributes)
    for name in [name for name, value in vars(cls).items() if is_own_attribute(cls, name, value)]:
        if name not in attributes and name not in early and name != "__doc__":
            type.__delattr__(cls, name)
    for other in registered:
        cls.register(other)  # type: ignore[attr-defined]


def make_member(cls: type, name: str, data: type, arguments: tuple[Any, ...]) -> Any:
    """Return a member of an enum, without its attributes; the same one if the enum is only being changed."""
    member = vars(cls).get("_member_map_", {}).get(name)
    if member is not None:
        return member
    new: Callable[..., Any] = data.__new__
    return new(cls, *arguments)


def fill_object(obj: object, state: Any) -> None:
    """Set attributes as pickle does by default: a dict, or a pair of a dict and a dict of slots."""
    slots: dict[str, Any] | None = None
    if isinstance(state, tuple):
        state, slots = state
    if state:
        obj.__dict__.update(state)
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


def make_property(kind: type[property], parts: tuple[Any, Any, Any], doc: str | None) -> property:
    """Return a property (or one of a subclass)."""
    made = kind(*parts)
    if made.__doc__ != doc:
        made.__doc__ = doc
    return made


def make_cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    """Return a cached property that knows the name it is bound to."""
    made = functools.cached_property(function)
    made.attrname = name
    return made


def make_type_variable(kind: Any, arguments: tuple[Any, ...], options: dict[str, Any], module: str) -> Any:
    """Return a TypeVar, ParamSpec, TypeVarTuple or NewType."""
    made = kind(*arguments, **options)
    made.__module__ = module
    return made
