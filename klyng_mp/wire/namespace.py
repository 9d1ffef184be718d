"""The things of ``__main__`` that have an identity beyond one process, and the namespaces that they live in.

Layer: wire; leaf, imports nothing of klyng_mp.

Invariants: a token names one class, function or sentinel for ever: the random number of the process that owns it,
then a serial number. A process builds the object of a token at most once; its owner never builds it at all, so what
comes home is the original. A namespace (some process's ``__main__``) has a token too, and one module per process
that stands for it. A definition is compared as a whole, byte by byte: it has arrived anyway, comparing is faster than
hashing, and two definitions can never be mistaken for each other.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import sys
import threading
import weakref
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

__all__ = [
    "MAIN_NAMES",
    "NAMESPACES",
    "PROCESS",
    "REGISTRY",
    "Definition",
    "Item",
    "Namespaces",
    "Process",
    "Registry",
    "install_main",
    "lookup",
    "resolve",
]

# Spawned children of multiprocessing know their parent's program by the second name.
MAIN_NAMES = frozenset({"__main__", "__mp_main__"})

_SERIAL_BITS = 32

# How far an item has come: known by its definition; being made; made, but empty; being filled; as its owner has it.
_DECLARED, _MAKING, _MADE, _FILLING, _READY = range(5)

_Reference: TypeAlias = "weakref.ReferenceType[Any]"


class Definition(NamedTuple):
    """How an item is rebuilt elsewhere; travels as a plain tuple of these fields."""

    token: int
    name: str
    where: int
    """The namespace in which ``name`` is bound to the item, or 0."""
    local: bool
    """Made inside a function, so that nothing may keep it alive but its users."""
    volatile: bool
    """Shares objects with the namespace's data, so it is filled again whenever those have been assigned."""
    skeleton: bytes
    """A pickled ``(function, arguments)`` that makes it, still empty."""
    state: bytes
    """A pickled ``(function, state)`` that fills it; ``b""`` for nothing to fill."""


class Item:
    """One class, function or sentinel that has a token in this process."""

    __slots__ = ("definition", "name", "stage", "target", "token", "updating")

    def __init__(self, token: int, name: str, target: object, definition: Definition | None) -> None:
        self.token = token
        self.name = name
        self.target = target
        self.definition = definition  # None: this process is its owner
        self.stage = _READY if definition is None else _DECLARED
        self.updating = False

    def get(self) -> Any:
        """Return the object, or None if it does not exist (any more)."""
        target = self.target
        return target() if type(target) is weakref.ReferenceType else target


class Process:
    """The random number of this process, and the tokens and the lock that go with it.

    A forked child keeps what it has inherited, but what it makes from now on is its own.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._owner = int.from_bytes(os.urandom(8), "little") | 1
        self._serial = 0
        self._lock = threading.RLock()

    def locked(self) -> AbstractContextManager[Any]:
        """Return the lock that is held while tables change; looking up does not need it."""
        if self._pid != os.getpid():
            self._begin()
        return self._lock

    @property
    def owner(self) -> int:
        """The number that the tokens of this process begin with."""
        with self.locked():
            return self._owner

    def new_token(self) -> int:
        """Return a token that no other thing has, in any process; the lock is held."""
        self._serial += 1
        return self._owner << _SERIAL_BITS | self._serial


class Namespaces:
    """The modules that stand for the ``__main__`` of processes, this one's own among them.

    Threads: all may use it.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._modules: dict[int, ModuleType] = {}
        self._variables: dict[int, dict[str, Any]] = {}
        self._ids: dict[int, int] = {}
        self._homes: set[int] = set()

    def id_of(self, variables: dict[str, Any]) -> int | None:
        """Return the token of the namespace with these variables, or None if it is none."""
        number = self._ids.get(id(variables))
        if number is not None or not _is_main_name(variables.get("__name__")):
            return number
        for name in MAIN_NAMES:
            module = sys.modules.get(name)
            if module is not None and any(variables is own for own in _both_globals(module)):
                return self._adopt(module)
        return None

    def _adopt(self, module: ModuleType) -> int:
        with self._process.locked():
            number = self._ids.get(id(vars(module)))
            if number is None:
                number = self._process.new_token()
                self._homes.add(number)
                self._enter(number, module)
            return number

    def _enter(self, number: int, module: ModuleType) -> None:
        for variables in _both_globals(module):
            self._variables[number] = variables
            self._ids[id(variables)] = number
        self._modules[number] = module  # at last: who finds it there takes no lock

    def main_id(self) -> int:
        """Return the token of what is ``__main__`` in this process now."""
        module = sys.modules["__main__"]
        return self._ids.get(id(vars(module))) or self._adopt(module)

    def module(self, number: int) -> ModuleType:
        """Return the module that stands for a namespace; it is made empty when it is first asked for."""
        module = self._modules.get(number)
        if module is None:
            with self._process.locked():
                module = self._modules.get(number)
                if module is None:
                    module = ModuleType("__main__")
                    vars(module)["__builtins__"] = builtins
                    self._enter(number, module)
        return module

    def variables(self, number: int) -> dict[str, Any]:
        """Return the globals of a namespace's functions."""
        self.module(number)
        return self._variables[number]

    def all(self) -> list[tuple[int, dict[str, Any]]]:
        """Return every namespace that this process knows, its own included."""
        self.main_id()
        return list(self._variables.items())

    def bind(self, number: int, values: Mapping[str, Any], *, replace: bool) -> None:
        """Assign globals of a namespace; those of this process's own ``__main__`` are never replaced."""
        if not number:
            return
        variables = self.variables(number)
        if replace and number not in self._homes:
            variables.update(values)
        else:
            for name, value in values.items():
                variables.setdefault(name, value)

    def unbind(self, number: int, names: Iterable[str]) -> None:
        """Remove globals that their owner does not have any more."""
        if number not in self._homes:
            variables = self.variables(number)
            for name in names:
                variables.pop(name, None)


def _is_main_name(name: object) -> bool:
    return isinstance(name, str) and name in MAIN_NAMES


def _both_globals(module: ModuleType) -> list[dict[str, Any]]:
    """Return the globals of a module; the last are those that its functions use.

    In a child that multiprocessing has spawned they are not the same: the program ran elsewhere, and its ``__main__``
    was given a copy of what came out.
    """
    variables = vars(module)
    for value in list(variables.values()):
        if type(value) is FunctionType and value.__globals__.get("__name__") == "__mp_main__":
            if value.__globals__ is not variables:
                return [variables, value.__globals__]
            break
    return [variables]


class Registry:
    """The items of this process.

    Threads: all may use it.
    """

    def __init__(self, process: Process, namespaces: Namespaces) -> None:
        self._process = process
        self._namespaces = namespaces
        self._filling = False
        self._late: list[Item] = []
        self._by_token: dict[int, Item] = {}
        self._by_id: dict[int, Item] = {}

    def find(self, obj: object) -> Item | None:
        """Return the item of ``obj``, if it has one."""
        item = self._by_id.get(id(obj))
        return item if item is not None and item.get() is obj else None

    def register(self, obj: object, name: str, *, local: bool) -> Item:
        """Return the item of ``obj``, which this process owns unless it was received."""
        with self._process.locked():
            item = self.find(obj)
            if item is None:
                item = Item(self._process.new_token(), name, None, None)
                self._enter(item, obj, local=local)
            return item

    def _enter(self, item: Item, obj: object, *, local: bool) -> None:
        token, key = item.token, id(obj)

        def forget(_: _Reference) -> None:
            # Takes no lock: the collector may run this anywhere.
            for table, index in ((self._by_token, token), (self._by_id, key)):
                if table.get(index) is item:
                    del table[index]

        item.target = obj
        if local:
            try:
                item.target = weakref.ref(obj, forget)
            except TypeError:
                item.target = obj  # has no room for a weak reference
        self._by_token[token] = item
        self._by_id[key] = item

    def resolve(self, token: int, name: str) -> Any:
        """Return the object of ``token``; ``name`` is only for the error's sentence.

        Raises:
            LookupError: it is not known here, or does not exist any more.
        """
        item = self._by_token.get(token)
        if item is None:
            raise LookupError(f"{name!r} of another process's __main__ is not known here, or does not exist any more")
        if item.stage != _READY:
            self._advance(item)
        obj = item.get()
        if obj is None:
            raise LookupError(f"{name!r} does not exist any more in the process that it came from")
        return obj

    def _advance(self, item: Item) -> None:
        with self._process.locked():
            if item.stage == _DECLARED:
                self._make(item)
            elif item.stage == _MAKING:
                raise LookupError(f"{item.name!r} is needed to make {item.name!r} itself")
            if item.stage == _MADE and self._filling:
                self._fill_first(item)

    # Definitions

    def build(
        self, definitions: Iterable[tuple[Any, ...]], *, sender: int, run: bool
    ) -> tuple[dict[int, Any], list[Item]]:
        """Build what is not here yet; change what has become different, if its owner says so or a run begins.

        Every empty object is made before any is filled: classes that know each other can be, and a base's
        ``__init_subclass__`` cannot run again for subclasses whose making is long over.

        Returns:
            The objects by token (local ones live no longer than this, unless they are used), and those items that
            ``refill`` wants when the data are assigned.
        """
        with self._process.locked():
            changed: list[Item] = []
            volatile: list[Item] = []
            alive = []  # the collector may come at any time, and only their users keep local ones
            try:
                for fields in definitions:
                    new = Definition._make(fields)
                    item, obj = self._declare(new, changed, update=run or new.token >> _SERIAL_BITS == sender)
                    alive.append(obj)
                    if new.volatile and (run or item in changed):
                        volatile.append(item)
                for item in changed:
                    if item.stage == _DECLARED:
                        self._make(item)
                built = {fields[0]: self._by_token[fields[0]].get() for fields in definitions}
                self._filling = True
                self._late = volatile
                for item in changed:
                    if item.stage == _MADE:
                        self._fill_first(item)
            except BaseException:
                self.take_back(changed)
                raise
            finally:
                self._filling = False
            return built, volatile

    def _declare(self, new: Definition, changed: list[Item], *, update: bool) -> tuple[Item, Any]:
        item = self._by_token.get(new.token)
        obj = item.get() if item is not None else None
        if item is None or obj is None:
            item = self._by_token[new.token] = Item(new.token, new.name, None, new)
            changed.append(item)
            return item, None
        item.updating = True
        if update and item.definition is not None and item.definition != new:
            if item.definition.skeleton != new.skeleton:
                _remake(obj, new.skeleton)
            item.definition = new
            item.stage = _MADE
            item.target = obj
            changed.append(item)
            self._namespaces.bind(new.where, {new.name: obj}, replace=True)
        return item, obj

    def _make(self, item: Item) -> None:
        definition = item.definition
        assert definition is not None  # noqa: S101 - an item of our own is READY from the start
        item.stage = _MAKING
        function, arguments = pickle.loads(definition.skeleton)  # noqa: S301 - from a rank of this World
        obj = function(*arguments)
        self._enter(item, obj, local=definition.local)
        item.stage = _MADE
        if definition.local:
            # Nobody uses it yet: it must not go before its users have come.
            item.target = obj
        self._namespaces.bind(definition.where, {definition.name: obj}, replace=True)

    def _fill(self, item: Item) -> None:
        definition = item.definition
        assert definition is not None  # noqa: S101 - as above
        item.stage = _FILLING  # what it refers to may refer to it
        obj = item.get()
        if definition.state:
            function, state = _SharingUnpickler(io.BytesIO(definition.state)).load()
            function(obj, state)
        item.stage = _READY
        if definition.local and type(item.target) is not weakref.ReferenceType:
            self._enter(item, obj, local=True)

    def _fill_first(self, item: Item) -> None:
        try:
            self._fill(item)
        except Exception:  # noqa: BLE001 - code of the user's, which may need data that are not there yet
            self._late.append(item)  # refill will do it, or raise

    def refill(self, items: Iterable[Item]) -> None:
        """Fill items again whose state shares objects with data that have just been assigned."""
        with self._process.locked():
            for item in items:
                if item.definition is not None:
                    self._fill(item)

    def take_back(self, items: Iterable[Item]) -> None:
        """Forget what could not be built, and leave what could not be changed; either is tried again next time."""
        for item in items:
            if item.updating and item.definition is not None:
                item.definition = item.definition._replace(skeleton=b"")
                item.stage = _READY
            else:
                self._by_token.pop(item.token, None)
                self._by_id.pop(id(item.get()), None)


PROCESS = Process()
NAMESPACES = Namespaces(PROCESS)
REGISTRY = Registry(PROCESS, NAMESPACES)


def resolve(token: int, name: str) -> Any:
    """Return the object of ``token``: what a reference in a pickle calls."""
    return REGISTRY.resolve(token, name)


class _SharingUnpickler(pickle.Unpickler):
    """Reads a state in which ``(namespace, name)`` stands for the object that a global is bound to."""

    def persistent_load(self, pid: tuple[int, str]) -> Any:
        # Before the data are assigned there is nothing to be found; the item is filled again afterwards.
        return NAMESPACES.variables(pid[0]).get(pid[1])


def _remake(obj: Any, skeleton: bytes) -> None:
    function, arguments = pickle.loads(skeleton)  # noqa: S301 - from a rank of this World
    if type(obj) is FunctionType:
        obj.__code__ = function(*arguments).__code__


def lookup(variables: Mapping[str, Any], dotted: str) -> Any:
    """Return what a qualified name leads to, or None."""
    first, *rest = dotted.split(".")
    found = variables.get(first)
    for name in rest:
        if found is None:
            return None
        found = getattr(found, name, None)
    return found


def install_main(module: ModuleType) -> ModuleType | None:
    """Make ``module`` this process's ``__main__``, so that plain pickle finds its classes; return the former one."""
    former = sys.modules.get("__main__")
    sys.modules["__main__"] = module
    return former
