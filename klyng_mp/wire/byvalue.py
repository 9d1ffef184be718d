"""The sender's half of by-value pickling: picklers that take along what a receiver cannot import.

Layer: wire; imports references, namespace, rebuild and definition.

Invariants: only what plain pickle has refused, or what it would have written as a reference into ``__main__``, comes
here. Classes, module-level functions and sentinels are written as tokens (namespace.py), so that each is built once
per process; lambdas and nested functions are written out where they stand. Of a namespace only those globals travel
that some function on its way refers to. The receiver needs plain ``pickle.loads`` only.
"""

from __future__ import annotations

import _thread
import functools
import io
import pickle
import sys
import types
import weakref
from enum import EnumMeta
from types import CellType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from klyng_mp.wire import rebuild
from klyng_mp.wire.definition import (
    HEAP_TYPE,
    LRU_CACHE,
    TYPE_VARIABLES,
    class_of_method,
    function_state,
    home_of,
    lru_cache_arguments,
    member_parts,
    place_of_globals,
)
from klyng_mp.wire.namespace import MAIN_NAMES, NAMESPACES, REGISTRY, Item, lookup, resolve
from klyng_mp.wire.references import study

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.wire.packing import Packing

__all__ = ["REFUSALS", "ByValue", "make_pickler"]

# How pickle says that it cannot; anything else comes from the objects' own methods, and no other tier would help.
REFUSALS = (pickle.PicklingError, TypeError, AttributeError)

# dill would make new ones, which protect nothing and write to nowhere.
_REFUSED_BY_US: tuple[type, ...] = (_thread.LockType, _thread.RLock, io.IOBase)

# Sentinels of the standard library that are compared with ``is`` and that classes carry about.
_CONSTANTS = {
    "dataclasses": (
        "MISSING",
        "KW_ONLY",
        "_FIELD",
        "_FIELD_CLASSVAR",
        "_FIELD_INITVAR",
        "_HAS_DEFAULT_FACTORY",
    ),
}

_Reduced = Any  # what __reduce__ returns, or NotImplemented


class ByValue:
    """What both picklers do with an object before they do anything else."""

    packing: Packing
    plain: set[type]
    inside: Any = None
    """The class or function that is being defined, whose own parts are written out."""

    def reducer_override(self, obj: Any) -> _Reduced:
        """Return how ``obj`` is to be pickled, or NotImplemented for pickle's own way."""
        kind = type(obj)
        if kind in self.plain:
            return NotImplemented
        reducer = _REDUCERS.get(kind)
        if reducer is not None:
            return reducer(self, obj)
        if issubclass(kind, type):
            return _reduce_class(self, obj)
        return _reduce_instance(self, kind, obj)


class _FastPickler(ByValue, pickle.Pickler):
    """The C pickler, with by-value rules: the second tier."""


class _Sharing(ByValue):
    """For definitions: an object that a global is bound to stays that object."""

    shared = False
    shared_objects: dict[int, tuple[int, str, Any]]

    def persistent_id(self, obj: Any) -> tuple[int, str] | None:
        """Return ``(namespace, name)`` of a global's mutable object."""
        found = self.shared_objects.get(id(obj))
        if found is None or _has_name(obj):
            return None
        self.shared = True
        number, name, _ = found
        self.packing.refer(number, (name,))
        return number, name


class _FastSharingPickler(_Sharing, pickle.Pickler):
    """The C pickler for definitions."""


@functools.cache
def _dill_pickler(*, sharing: bool) -> Callable[..., Any]:
    import dill  # noqa: PLC0415 - the third tier: most programs never need it, and it is slow to import

    class DillPickler(_Sharing if sharing else ByValue, dill.Pickler):  # type: ignore[misc]
        """dill, for what only it knows how to pickle; with our rules where they apply."""

        def reducer_override(self, obj: Any) -> _Reduced:
            if isinstance(obj, _REFUSED_BY_US):
                raise pickle.PicklingError(f"cannot pickle {type(obj).__name__!r} object")
            return super().reducer_override(obj)

    return DillPickler


def make_pickler(
    packing: Packing,
    file: io.BytesIO,
    callback: Callable[[Any], Any] | None,
    *,
    dill: bool,
    inside: Any = None,
    sharing: bool = False,
) -> Any:
    """Return a pickler with by-value rules.

    Args:
        packing: is told what the pickle refers to.
        file: where the pickle goes.
        callback: pickle's ``buffer_callback``.
        dill: let dill pickle what no rule and not pickle itself can.
        inside: the item whose definition this is.
        sharing: write objects that globals are bound to as references to those globals.
    """
    if dill:
        pickler = _dill_pickler(sharing=sharing)(file, 5, buffer_callback=callback)
    else:
        pickler = (_FastSharingPickler if sharing else _FastPickler)(file, 5, buffer_callback=callback)
    pickler.packing = packing
    pickler.dispatch_table = packing.reducers
    pickler.plain = packing.plain
    pickler.inside = inside
    if sharing:
        pickler.shared_objects = packing.shared_objects
    return pickler


# References and items


def _importable(pickler: ByValue, obj: Any, name: str) -> bool:
    module_name = getattr(obj, "__module__", None)
    if module_name in MAIN_NAMES and not pickler.packing.main_by_reference:
        return False
    module = sys.modules.get(module_name) if module_name is not None else None
    if module is None:
        return False
    first, _, rest = name.partition(".")
    found = getattr(module, first, None)  # not from its __dict__: some modules make what is asked for
    return (lookup({first: found}, name) if rest else found) is obj


def _reduce_item(pickler: ByValue, item: Item, obj: Any) -> _Reduced:
    pickler.packing.use(item, obj)
    return resolve, (item.token, item.name)


def _reduce_class(pickler: ByValue, cls: type) -> _Reduced:
    item = REGISTRY.find(cls)
    if item is None:
        if _importable(pickler, cls, cls.__qualname__):
            return NotImplemented
        if not cls.__flags__ & HEAP_TYPE:
            return _reduce_builtin_type(cls)
        item = REGISTRY.register(cls, cls.__qualname__, local="<locals>" in cls.__qualname__)
    return _reduce_item(pickler, item, cls)


@functools.cache
def _names_of_types() -> dict[type, str]:
    return {value: name for name, value in vars(types).items() if isinstance(value, type)}


def _reduce_builtin_type(cls: type) -> _Reduced:
    name = _names_of_types().get(cls)
    return NotImplemented if name is None else (rebuild.get_constant, ("types", name))


@functools.cache
def _constants_of(module: str) -> dict[int, str]:
    return {id(getattr(sys.modules[module], name)): name for name in _CONSTANTS[module]}


def _reduce_instance(pickler: ByValue, kind: type, obj: Any) -> _Reduced:
    if kind is pickler.inside and issubclass(type(kind), EnumMeta):
        # As it is, without the class's own __new__ and __init__.
        arguments, state = member_parts(kind, obj)
        return rebuild.make_member, arguments, state, None, None, rebuild.fill_object
    if kind.__module__ in _CONSTANTS:
        name = _constants_of(kind.__module__).get(id(obj))
        if name is not None:
            return rebuild.get_constant, (kind.__module__, name)
    if issubclass(kind, property):
        return _reduce_property(pickler, obj)
    if kind in pickler.packing.reducers or _is_plain(kind):
        pickler.plain.add(kind)
        return NotImplemented
    reduced = obj.__reduce_ex__(5)
    return _reduce_named(pickler, obj, reduced) if isinstance(reduced, str) else reduced


def _has_name(obj: Any) -> bool:
    """Tell whether an object is pickled as a name: then it is the same object everywhere without our help."""
    return not _is_plain(type(obj)) and isinstance(obj.__reduce_ex__(5), str)


def _is_plain(kind: Any) -> bool:
    plain: bool = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    return plain


def _reduce_named(pickler: ByValue, obj: Any, name: str) -> _Reduced:
    item = REGISTRY.find(obj)
    if item is None:
        module = getattr(obj, "__module__", None)
        if _importable(pickler, obj, name) or (module not in MAIN_NAMES and not isinstance(obj, TYPE_VARIABLES)):
            return name
        item = REGISTRY.register(obj, name, local="<locals>" in name)
    return _reduce_item(pickler, item, obj)


# Functions


def _reduce_function(pickler: ByValue, function: FunctionType) -> _Reduced:
    item = REGISTRY.find(function)
    if item is not None:
        return _reduce_item(pickler, item, function)
    name = function.__qualname__
    inside = pickler.inside
    if isinstance(inside, type) and name == f"{inside.__qualname__}.{function.__name__}":
        return _reduce_by_value(pickler, function)
    if _importable(pickler, function, name):
        return NotImplemented
    if function.__module__ in MAIN_NAMES:
        if home_of(function).get(name) is function:
            return _reduce_item(pickler, REGISTRY.register(function, name, local=False), function)
        cls = class_of_method(function)
        if cls is not None and cls is not inside:
            return getattr, (cls, name.rpartition(".")[2])
    return _reduce_by_value(pickler, function)


def _reduce_by_value(pickler: ByValue, function: FunctionType) -> _Reduced:
    place = place_of_globals(pickler.packing, function)
    arguments: tuple[Any, ...] = (study(function.__code__).packed, place)
    if function.__closure__:
        arguments += (function.__closure__,)
    state = function_state(pickler.packing, function, place)
    return rebuild.make_function, arguments, state or None, None, None, rebuild.fill_function


def _reduce_cell(pickler: ByValue, cell: CellType) -> _Reduced:
    inside = pickler.inside
    if type(inside) is FunctionType:
        for index, own in enumerate(inside.__closure__ or ()):
            if own is cell:
                return rebuild.cell_of, (inside, index)
    try:
        content = (cell.cell_contents,)
    except ValueError:
        return rebuild.make_cell, ()
    return rebuild.make_cell, (), content, None, None, rebuild.fill_cell


def _reduce_method(_: ByValue, method: MethodType) -> _Reduced:
    function, owner = method.__func__, method.__self__
    name = getattr(function, "__name__", "")
    if getattr(owner, name, None) == method:
        return NotImplemented
    return MethodType, (function, owner)


def _reduce_lru_cache(pickler: ByValue, function: Any) -> _Reduced:
    name = function.__reduce__()
    item = REGISTRY.find(function)
    if item is None and not _importable(pickler, function, name):
        variables = getattr(getattr(function, "__wrapped__", None), "__globals__", {})
        if lookup(variables, name) is not function:
            return (rebuild.make_lru_cache, lru_cache_arguments(function))
    return _reduce_named(pickler, function, name)


# Further things that pickle refuses


def _reduce_module(pickler: ByValue, module: ModuleType) -> _Reduced:
    name = module.__name__
    number = NAMESPACES.id_of(vars(module))
    if number is not None and not pickler.packing.main_by_reference:
        return rebuild.get_namespace, (number,)
    if sys.modules.get(name) is not module:
        raise pickle.PicklingError(f"cannot pickle module {name!r}: it cannot be imported by that name")
    return rebuild.import_module, (name,)


def _reduce_property(_: ByValue, obj: property) -> _Reduced:
    arguments = (type(obj), (obj.fget, obj.fset, obj.fdel), obj.__doc__)
    state = getattr(obj, "__dict__", None)
    if not state:
        return rebuild.make_property, arguments
    return rebuild.make_property, arguments, state, None, None, rebuild.fill_object


def _reduce_code(_: ByValue, code: CodeType) -> _Reduced:
    return rebuild.make_code, (study(code).packed,)


def _reduce_wrapper(_: ByValue, wrapper: Any) -> _Reduced:
    return type(wrapper), (wrapper.__func__,)


def _reduce_proxy(_: ByValue, proxy: MappingProxyType[Any, Any]) -> _Reduced:
    return MappingProxyType, (dict(proxy),)


def _reduce_weak_dict(_: ByValue, obj: Any) -> _Reduced:
    return type(obj), (dict(obj),)


def _reduce_cached_property(_: ByValue, obj: functools.cached_property[Any]) -> _Reduced:
    return rebuild.make_cached_property, (obj.func, obj.attrname)


def _reduce_descriptor(_: ByValue, obj: Any) -> _Reduced:
    return getattr, (obj.__objclass__, obj.__name__)


_REDUCERS: dict[type, Callable[[Any, Any], _Reduced]] = {
    FunctionType: _reduce_function,
    CellType: _reduce_cell,
    MethodType: _reduce_method,
    ModuleType: _reduce_module,
    CodeType: _reduce_code,
    property: _reduce_property,
    staticmethod: _reduce_wrapper,
    classmethod: _reduce_wrapper,
    MappingProxyType: _reduce_proxy,
    functools.cached_property: _reduce_cached_property,
    types.GetSetDescriptorType: _reduce_descriptor,
    types.MemberDescriptorType: _reduce_descriptor,
    weakref.WeakKeyDictionary: _reduce_weak_dict,
    weakref.WeakValueDictionary: _reduce_weak_dict,
    LRU_CACHE: _reduce_lru_cache,
}
