"""Objects that live in a process of their own, and proxies for them elsewhere; multiprocessing.managers' names.

Layer: above pool and shared_memory. Server, manager and proxies are the standard module's, with listeners and clients
of klyng_mp.connection: so arguments, results and stored values may be lambdas, closures, local classes and things of a
notebook's ``__main__``.

Invariants: the standard module's own tables stay as they are. What a server cannot rebuild is an error for who sent
it, and nothing to the server. A server that a manager has started ends with the process of that manager.
"""

from __future__ import annotations

import functools
import multiprocessing.managers as standard
import os
from contextlib import closing, suppress
from multiprocessing.context import ProcessError
from multiprocessing.managers import (  # type: ignore[attr-defined]
    Array,
    Namespace,
    ProcessLocalSet,
    RemoteError,
    State,
    Token,
    Value,
    all_methods,
    convert_to_error,
    dispatch,
    public_methods,
    rebuild_as_list,
    reduce_array,
)
from typing import TYPE_CHECKING, Any

from klyng_mp import shared_memory
from klyng_mp.connection import Client, Listener, Pipe, XmlClient, XmlListener
from klyng_mp.leash import put_on_leash
from klyng_mp.pool import Pool
from klyng_mp.process import START_METHOD, current_process, parent_process
from klyng_mp.util import Finalize, get_temp_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "HAS_SHMEM",
    "AcquirerProxy",
    "Array",
    "ArrayProxy",
    "AutoProxy",
    "BarrierProxy",
    "BaseListProxy",
    "BaseManager",
    "BasePoolProxy",
    "BaseProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "MakeProxyType",
    "Namespace",
    "NamespaceProxy",
    "PoolProxy",
    "ProcessLocalSet",
    "RebuildProxy",
    "RemoteError",
    "Server",
    "SharedMemoryManager",
    "SharedMemoryServer",
    "State",
    "SyncManager",
    "Token",
    "Value",
    "ValueProxy",
    "all_methods",
    "convert_to_error",
    "dispatch",
    "listener_client",
    "public_methods",
    "rebuild_as_list",
    "reduce_array",
]

HAS_SHMEM = True

listener_client: dict[str, tuple[Any, Any]] = {
    "pickle": (Listener, Client),
    "xmlrpclib": (XmlListener, XmlClient),
}


_STANDARD_AUTO_PROXY: Any = standard.AutoProxy  # type: ignore[attr-defined]


class Server(standard.Server):
    """What runs in a manager's process; see ``multiprocessing.managers.Server``."""

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        super().__init__(registry, address, authkey, serializer)
        listener_client[serializer][0].take_over(self.listener)  # type: ignore[attr-defined]


class BaseManager(standard.BaseManager):
    """Makes objects in a process of its own; see ``multiprocessing.managers.BaseManager``.

    The process that `start` makes is killed when this one has ended without ending it.
    """

    _Server: Any = Server
    _address: Any
    _authkey: Any
    _ctx: Any
    _finalize_manager: Any
    _process: Any
    _registry: Any
    _serializer: Any
    _shutdown_timeout: Any
    _state: Any

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        context = ctx or START_METHOD.context()
        super().__init__(address, authkey, serializer, context, shutdown_timeout=shutdown_timeout)
        self._Listener, self._Client = listener_client[serializer]

    def get_server(self) -> Any:
        """Return a server with `serve_forever` and an address, for a process that is to be the server itself.

        Raises:
            ProcessError: this manager has a server, or had one.
        """
        self._check_new()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def _check_new(self) -> None:
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")

    def start(self, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start a process with a server, and use that.

        Args:
            initializer: called in the process, first, with initargs.
            initargs: its arguments.

        Raises:
            EOFError: the process ended before it served. Nothing is left of it.
            ProcessError: this manager has a server, or had one.
        """
        self._check_new()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        get_temp_dir()  # this process's, which it removes at its end: a server that is killed leaves its socket there
        reader, writer = Pipe(duplex=False)
        with reader:
            with writer:
                start = self._registry, self._address, self._authkey, self._serializer, writer, initializer, initargs
                process = self._ctx.Process(target=type(self)._run_server, args=start)
                process.name = "-".join((type(self).__name__, ":".join(map(str, process._identity))))
                process.start()
            try:
                address = reader.recv()
            except EOFError:
                process.join()
                raise
        publish = getattr(self._ctx, "_publish", None)  # the standard library's contexts have none
        self._address = address if publish is None else publish(address, self._authkey)
        self._process = process
        self._state.value = State.STARTED
        server = process, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout
        self.shutdown = Finalize(self, type(self)._finalize_manager, args=server, exitpriority=0)

    def connect(self) -> None:
        """Use the server that is at the address.

        Raises:
            OSError: there is none.
            AuthenticationError: it has another authkey.
        """
        with closing(self._Client(self._address, authkey=self._authkey)) as connection:
            dispatch(connection, None, "dummy")
        self._state.value = State.STARTED

    @classmethod
    def _run_server(cls, *args: Any) -> None:
        parent = parent_process()
        if parent is not None:
            put_on_leash(parent.sentinel, os.getpid())
        super()._run_server(*args)  # type: ignore[misc]

    @classmethod
    def register(  # noqa: PLR0917 - multiprocessing's own parameters
        cls,
        typeid: str,
        callable: Callable[..., object] | None = None,  # noqa: A002 - multiprocessing's name
        proxytype: Any = None,
        exposed: Sequence[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Let managers of this class make objects of a type; see ``multiprocessing.managers.BaseManager.register``."""
        proxytype = AutoProxy if proxytype is None else proxytype
        super().register(typeid, callable, proxytype, exposed, method_to_typeid, create_method)


class _NoManager:
    """In the place of the manager of a proxy that was sent here: knows the types of results that are proxies."""

    _state = None

    @property
    def _registry(self) -> Any:
        return SyncManager._registry


class BaseProxy(standard.BaseProxy):
    """Stands for an object in a manager's server; see ``multiprocessing.managers.BaseProxy``."""

    _manager: Any

    def __init__(  # noqa: PLR0917 - multiprocessing's own parameters
        self,
        token: Any,
        serializer: str,
        manager: Any = None,
        authkey: Any = None,
        exposed: Any = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        super().__init__(token, serializer, manager, authkey, exposed, False, manager_owned)
        self._Client = listener_client[serializer][1]
        if incref:
            self._incref()  # type: ignore[attr-defined]

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: Mapping[Any, Any] | None = None) -> Any:
        if self._manager is None:
            self._manager = _NoManager()
        return super()._callmethod(methodname, args, dict(kwds or {}))

    def __reduce__(self) -> tuple[Any, ...]:
        _, (kind, *rest) = super().__reduce__()
        return RebuildProxy, (AutoProxy if kind is _STANDARD_AUTO_PROXY else kind, *rest)


def RebuildProxy(func: Any, token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
    """Return a proxy from what has travelled of it; pickles call this."""
    return standard.RebuildProxy(func, token, serializer, kwds)  # type: ignore[attr-defined]


def MakeProxyType(name: str, exposed: Iterable[str]) -> Any:
    """Return a class of proxies with these methods; the same for the same name and methods."""
    return _proxy_type(name, tuple(exposed))


@functools.cache
def _proxy_type(name: str, exposed: tuple[str, ...]) -> Any:
    methods = standard.MakeProxyType(name, exposed)  # type: ignore[attr-defined]
    return type(name, (methods, BaseProxy), {"__module__": __name__})


def AutoProxy(  # noqa: PLR0917 - multiprocessing's own parameters
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Sequence[str] | None = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> Any:
    """Return a proxy with the public methods of its object."""
    if authkey is None:
        authkey = current_process().authkey if manager is None else manager._authkey
    if exposed is None:
        with closing(listener_client[serializer][1](token.address, authkey=authkey)) as connection:
            exposed = dispatch(connection, None, "get_methods", (token,))
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed or ())
    proxy = kind(token, serializer, manager, authkey, incref=incref, manager_owned=manager_owned)
    proxy._isauto = True
    return proxy


class IteratorProxy(standard.IteratorProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for an iterator."""


class AcquirerProxy(standard.AcquirerProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for a lock or semaphore."""


class ConditionProxy(standard.ConditionProxy, AcquirerProxy):  # type: ignore[misc, name-defined]
    """Stands for a condition variable."""


class EventProxy(standard.EventProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for an event."""


class BarrierProxy(standard.BarrierProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for a barrier."""


class NamespaceProxy(standard.NamespaceProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for a namespace: its attributes are the namespace's."""


class ValueProxy(standard.ValueProxy, BaseProxy):  # type: ignore[type-arg]
    """Stands for a value."""


class BaseListProxy(standard.BaseListProxy, BaseProxy):  # type: ignore[type-arg]
    """What `ListProxy` begins with."""


class ListProxy(standard.ListProxy, BaseListProxy):  # type: ignore[type-arg]
    """Stands for a list."""


class DictProxy(standard.DictProxy, BaseProxy):  # type: ignore[type-arg]
    """Stands for a dict."""


class ArrayProxy(standard.ArrayProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """Stands for an array."""


class BasePoolProxy(standard.BasePoolProxy, BaseProxy):  # type: ignore[misc, name-defined]
    """What `PoolProxy` begins with."""


class PoolProxy(standard.PoolProxy, BasePoolProxy):  # type: ignore[misc, name-defined]
    """Stands for a pool."""


class SyncManager(BaseManager, standard.SyncManager):
    """Makes lists, dicts, queues, locks and so on; see ``multiprocessing.Manager``."""


_PROXIES: Mapping[Any, Any] = {
    getattr(standard, name): kind
    for name, kind in (
        ("AcquirerProxy", AcquirerProxy),
        ("ArrayProxy", ArrayProxy),
        ("AutoProxy", AutoProxy),
        ("BarrierProxy", BarrierProxy),
        ("ConditionProxy", ConditionProxy),
        ("DictProxy", DictProxy),
        ("EventProxy", EventProxy),
        ("IteratorProxy", IteratorProxy),
        ("ListProxy", ListProxy),
        ("NamespaceProxy", NamespaceProxy),
        ("PoolProxy", PoolProxy),
        ("ValueProxy", ValueProxy),
    )
}


def _register_all() -> None:
    """Register what the standard manager makes, with proxies of ours."""
    for typeid, (make, exposed, typeids, proxytype) in standard.SyncManager._registry.items():  # type: ignore[attr-defined]
        SyncManager.register(
            typeid,
            Pool if typeid == "Pool" else make,
            _PROXIES.get(proxytype, proxytype),
            exposed,
            typeids,
            create_method=hasattr(standard.SyncManager, typeid),
        )


_register_all()


class _SharedMemoryTracker(standard._SharedMemoryTracker):  # type: ignore[misc, name-defined]
    """The blocks of a server."""

    def destroy_segment(self, segment_name: str) -> None:
        """Remove a block."""
        self.segment_names.remove(segment_name)
        block = shared_memory.SharedMemory(segment_name)
        block.close()
        block.unlink()

    def unlink(self) -> None:
        """Remove all blocks; those that somebody has removed already are none."""
        for name in self.segment_names[:]:
            with suppress(FileNotFoundError):
                self.destroy_segment(name)


class SharedMemoryServer(Server, standard.SharedMemoryServer):
    """What runs in the process of a `SharedMemoryManager`."""

    shared_memory_context: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared_memory_context = _SharedMemoryTracker(self.shared_memory_context.shared_memory_context_name, [])

    def track_segment(self, c: Any, segment_name: str) -> str:  # type: ignore[override]
        """Take over a block that a client has made; return which resource tracker will see to it."""
        super().track_segment(c, segment_name)
        return shared_memory.adopt(segment_name)


class SharedMemoryManager(BaseManager, standard.SharedMemoryManager):
    """Makes blocks of shared memory that end with it; see ``multiprocessing.managers.SharedMemoryManager``."""

    _Server = SharedMemoryServer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # so that it is called as the standard one

    def SharedMemory(self, size: int) -> shared_memory.SharedMemory:
        """Return a new block, which the manager removes at its end."""
        block = shared_memory.SharedMemory(create=True, size=size)
        self._have_tracked(block)
        return block

    def ShareableList(self, sequence: Iterable[Any] | None) -> shared_memory.ShareableList:
        """Return a new list in shared memory, which the manager removes at its end."""
        made = shared_memory.ShareableList(sequence)
        self._have_tracked(made.shm)
        return made

    def _have_tracked(self, block: shared_memory.SharedMemory) -> None:
        try:
            with closing(self._Client(self._address, authkey=self._authkey)) as connection:
                block.leave_to(dispatch(connection, None, "track_segment", (block.name,)))
        except BaseException:
            block.unlink()
            raise
