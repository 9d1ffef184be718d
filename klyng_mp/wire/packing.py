"""One object made ready to travel by value: its pickle, the definitions and the globals that it needs.

Layer: wire; imports namespace, rebuild, definition and byvalue.

Invariants: the head is three parts behind each other: a prelude (constants and definitions), the data (globals that
are neither constants nor items, all in one pickle, so that two names for one list stay so), and the object. The
receiver takes them in that order, so that whatever code of the user unpickling runs finds its globals.
"""

from __future__ import annotations

import builtins
import copyreg
import io
import pickle
import struct
import sys
from contextlib import suppress
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from klyng_mp.wire.byvalue import REFUSALS, make_pickler
from klyng_mp.wire.definition import home_of, skeleton_of, state_of
from klyng_mp.wire.namespace import NAMESPACES, PROCESS, REGISTRY, Definition, Item
from klyng_mp.wire.rebuild import bind_global, fill_function, import_module, make_function, make_globals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

__all__ = ["APART_BYTES", "Known", "Packing", "Reducers", "body_of", "keep_large", "unpack"]

# Below this a buffer is cheaper inside the pickle than as a part of its own in the message.
APART_BYTES = 4096

Reducers: TypeAlias = "MutableMapping[type, Callable[[Any], Any]]"

_LENGTHS = struct.Struct("<QQ")

_CONSTANT_TYPES = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis)})

# Objects of these types never have to stay the same object, or have their own way of doing so.
_NEVER_SHARED = _CONSTANT_TYPES | {tuple, frozenset, FunctionType, BuiltinFunctionType, ModuleType}

# The state of most functions: all is as it is made.
_AS_MADE = pickle.dumps((fill_function, {}), 5)


class Known:
    """What every rank of a run has received with it."""

    __slots__ = ("items", "main", "names")

    def __init__(self) -> None:
        self.items: dict[int, Any] = {}
        self.names: set[tuple[int, str]] = set()
        self.main: ModuleType | None = None


class _Foreign:
    """The globals of functions whose module cannot be imported; one object stands for one dict."""

    __slots__ = ("variables",)

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables

    def __reduce__(self) -> tuple[Any, ...]:
        return make_globals, (str(self.variables.get("__name__", "?")),)


class _Binding:
    """Is pickled as a call that assigns a global, so that what comes after it can use it already."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return bind_global, self.arguments


def keep_large(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a ``buffer_callback`` that puts large buffers into the list and leaves small ones in the pickle."""

    def callback(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < APART_BYTES:
            return True
        buffers.append(view)
        return False

    return callback


def _or_dill(dump: Callable[..., bytes]) -> bytes:
    try:
        return dump(dill=False)
    except REFUSALS as error:
        refusal = error
    try:
        with suppress(Exception):  # whatever dill says, the C pickler said it better
            return dump(dill=True)
        raise refusal
    finally:
        del refusal  # it holds this frame, which must not hold it


class Packing:
    """The by-value encoding of one object; used once.

    Args:
        main_by_reference: the receiver's ``__main__`` is the same program.
        known: what the receivers are known to have; None: nothing.
        reducers: how objects of certain types are pickled; None: as copyreg says.
    """

    def __init__(
        self, *, main_by_reference: bool, known: Known | None = None, reducers: Reducers | None = None
    ) -> None:
        self.main_by_reference = main_by_reference
        self.reducers: Reducers = copyreg.dispatch_table if reducers is None else reducers
        self.plain: set[type] = set()
        self.items: dict[int, Any] = {}
        self._referred: set[tuple[int, str]] = set()
        self._known = known or Known()
        self._pending: list[tuple[Item, Any]] = []
        self._new_names: list[tuple[int, str]] = []
        self._words: set[str] = set()
        self._foreign: dict[int, _Foreign] = {}
        self._shared_objects: dict[int, tuple[int, str, Any]] | None = {} if main_by_reference else None
        self._definitions: list[tuple[Any, ...]] = []
        self._constants: dict[int, tuple[dict[str, Any], dict[str, str], list[str]]] = {}
        self._data: dict[int, dict[str, Any]] = {}

    # What the picklers tell

    def use(self, item: Item, obj: Any) -> None:
        """Note that a pickle refers to an item."""
        if item.token not in self.items:
            self.items[item.token] = obj
            if item.token not in self._known.items:
                self._pending.append((item, obj))

    def refer(self, number: int, names: Iterable[str], words: Iterable[str] = ()) -> None:
        """Note that something refers to globals of a namespace, and which words may name submodules of theirs."""
        for name in names:
            place = (number, name)
            if place not in self._referred:
                self._referred.add(place)
                if place not in self._known.names:
                    self._new_names.append(place)
        self._words.update(words)

    def foreign(self, variables: dict[str, Any]) -> _Foreign:
        """Return the object that stands for globals that have no module and no namespace."""
        found = self._foreign.get(id(variables))
        if found is None:
            found = self._foreign[id(variables)] = _Foreign(variables)
        return found

    @property
    def shared_objects(self) -> dict[int, tuple[int, str, Any]]:
        """Namespace, name and value of the globals that are bound to mutable objects, by the objects' ids."""
        if self._shared_objects is None:
            self._shared_objects = {
                id(value): (number, name, value)
                for number, variables in NAMESPACES.all()
                for name, value in list(variables.items())
                if type(value) not in _NEVER_SHARED
                and not issubclass(type(value), (type, Enum))
                and not name.startswith("__")
            }
        return self._shared_objects

    # The parts of the head

    def pack(self, obj: Any, *, run: bool = False) -> tuple[bytes, bytes, list[memoryview]]:
        """Return the prelude and data as one part (``b""`` if neither is needed), the pickle, and the buffers."""
        body_buffers: list[memoryview] = []
        body = self.dump(obj, body_buffers)
        data, data_buffers = self._settle(run=run)
        if not (run or self._definitions or self._constants or data):
            return b"", body, body_buffers
        main = NAMESPACES.main_id() if run and not self.main_by_reference else 0
        constants = [
            (number, values, {name: (module, self._submodules(module)) for name, module in modules.items()}, absent)
            for number, (values, modules, absent) in self._constants.items()
        ]
        prelude = pickle.dumps((main, PROCESS.owner, constants, self._definitions), 5)
        return _LENGTHS.pack(len(prelude), len(data)) + prelude + data, body, data_buffers + body_buffers

    def dump(self, obj: Any, buffers: list[memoryview]) -> bytes:
        """Return a pickle of ``obj``; its large buffers are put into the list."""

        def dump(*, dill: bool) -> bytes:
            buffers.clear()
            file = io.BytesIO()
            make_pickler(self, file, keep_large(buffers), dill=dill).dump(obj)
            return file.getvalue()

        return _or_dill(dump)

    def _define(self, item: Item, obj: Any) -> None:
        shared = False

        def skeleton(*, dill: bool) -> bytes:
            made = skeleton_of(self, obj)
            if made[0] is make_function and type(made[1][1]) is int:  # the most common, and nothing to be looked into
                return pickle.dumps(made, 5)
            file = io.BytesIO()
            pickler = make_pickler(self, file, None, dill=dill, inside=obj)
            pickler.dump(made)
            return file.getvalue()

        def state(*, dill: bool) -> bytes:
            nonlocal shared
            content = state_of(self, obj)
            if content is None:
                return b""
            if not content[1] and content[0] is fill_function:
                return _AS_MADE
            file = io.BytesIO()
            pickler = make_pickler(self, file, None, dill=dill, inside=obj, sharing=True)
            pickler.dump(content)
            shared = pickler.shared
            return file.getvalue()

        parts = _or_dill(skeleton), _or_dill(state)
        received = item.definition
        if received is not None:
            where, local = received.where, received.local
        else:
            where, local = self._where(item.name, obj), "<locals>" in item.name
        self._definitions.append(tuple(Definition(item.token, item.name, where, local, shared, *parts)))

    def _settle(self, *, run: bool) -> tuple[bytes, list[memoryview]]:
        """Define items and look up globals until nothing new turns up; return the data's pickle."""
        data = b""
        buffers: list[memoryview] = []
        while self._pending or self._new_names:
            while self._pending:
                self._define(*self._pending.pop())
            if self._take_names():
                data = self.dump(self._bindings(run=run), buffers)
        return data, buffers

    def _where(self, name: str, obj: Any) -> int:
        variables = home_of(obj)
        return (NAMESPACES.id_of(variables) or 0) if variables.get(name) is obj else 0

    def _bindings(self, *, run: bool) -> list[_Binding]:
        """Return what assigns the data, in the order in which the program did."""
        return [
            _Binding(number, name, value, run)
            for number, values in self._data.items()
            for name, value in (values if len(values) == 1 else _in_order(number, values)).items()
        ]

    def _take_names(self) -> bool:
        """Sort the globals that were referred to into constants and data; tell whether there are new data."""
        grown = False
        names, self._new_names = self._new_names, []
        for number, name in names:
            variables = NAMESPACES.variables(number)
            if number not in self._constants:
                self._constants[number] = ({}, {}, [])
            constants, modules, absent = self._constants[number]
            if name not in variables:
                if not hasattr(builtins, name):
                    absent.append(name)
                continue
            value = variables[name]
            if type(value) in _CONSTANT_TYPES:
                constants[name] = value
            elif type(value) is ModuleType and _goes_by_name(value):
                modules[name] = value.__name__
            else:
                self._data.setdefault(number, {})[name] = value
                grown = True
        return grown

    def _submodules(self, package: str) -> list[str]:
        found = [name for word in self._words if (name := f"{package}.{word}") in sys.modules]
        return [deeper for name in found for deeper in (name, *self._submodules(name))]


def _in_order(number: int, values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in list(NAMESPACES.variables(number)) if name in values}


def _goes_by_name(module: ModuleType) -> bool:
    return sys.modules.get(module.__name__) is module and module.__name__ != "__main__"


def _ends(view: memoryview) -> tuple[int, int]:
    prelude, data = _LENGTHS.unpack_from(view)
    return _LENGTHS.size + prelude, _LENGTHS.size + prelude + data


def body_of(head: bytes) -> memoryview:
    """Return the pickle of the object, of a head that has a prelude; or nothing, if it is none."""
    view = memoryview(head)
    return view[_ends(view)[1] :] if len(view) >= _LENGTHS.size else view[:0]


def unpack(head: bytes, buffers: Iterable[Any], *, run: bool) -> tuple[Any, Known]:
    """Return the object of a head that has a prelude, and what has come with it.

    With ``run`` the globals are assigned anew; without it those that are here stay as they are.
    """
    view = memoryview(head)
    prelude_end, data_end = _ends(view)
    supply = iter(buffers)
    known = Known()
    main, sender, constants, definitions = pickle.loads(view[_LENGTHS.size : prelude_end])  # noqa: S301
    for number, values, modules, absent in constants:
        values.update((name, import_module(module, parts)) for name, (module, parts) in modules.items())
        NAMESPACES.bind(number, values, replace=run)
        if run:
            NAMESPACES.unbind(number, absent)
        known.names.update((number, name) for name in values)
    known.items, volatile = REGISTRY.build(definitions, sender=sender, run=run)
    try:
        if data_end > prelude_end:
            known.names.update(pickle.loads(view[prelude_end:data_end], buffers=supply))  # noqa: S301
        REGISTRY.refill(volatile)
    except BaseException:
        REGISTRY.take_back(volatile)
        raise
    if main and run:
        known.main = NAMESPACES.module(main)
    obj = pickle.loads(view[data_end:], buffers=supply)  # noqa: S301
    return obj, known
