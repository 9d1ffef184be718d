"""What a World makes for its processes to share: where they are on several hosts, objects that all of them reach.

Layer: above context and objects, below world_context. A World of this machine makes what every context makes.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from klyng_mp.context import BaseContext
from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.world_hosts import WorldHosts

__all__ = ["WorldObjects"]


class _NoObjects:
    """What a World has instead of objects where it has none: whoever makes one is told."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotAcrossHostsError(
            "a lock, queue, value or pipe of a World with engine='mpi'",
            "send messages between its ranks (klyng_mp.comm()), give a Manager an address of a network, or use a World "
            "of this machine or with hosts=",
        )


class WorldObjects(BaseContext):
    """The objects of a World; see `BaseContext` for the methods.

    Those of a World with hosts live in this process, the World's driver, as long as the World does; a queue lives where
    it is read first. They may be pickled at any time, also into each other, and are of no use outside of the World.
    """

    _spec: RankSpec
    _hosts: WorldHosts | None
    _job: Job | None
    _objects: Any = None  # Numbers, where processes may be on several hosts

    def _serve_objects(self) -> None:
        """Let the present ranks use what was made, and what will be."""
        if self._spec.by_mpi:
            self._objects = _NoObjects()
        if self._hosts is None or self._job is None:
            return
        if self._objects is None:
            from klyng_mp.objects.desk import Desk
            from klyng_mp.objects.shared import Numbers

            desk = Desk(self._job.endpoint, Codec(main_by_reference=self._spec.main_by_reference))
            self._objects = Numbers(desk)
        else:
            self._objects.desk.attach(self._job.endpoint)

    def _publish(self, address: Any, authkey: bytes) -> Any:
        """See `BaseContext._publish`."""
        if self._objects is None or not isinstance(address, str):  # one of a network is as it is
            return super()._publish(address, authkey)
        from klyng_mp.connection import Client

        return self._far("doors").open_door(self._objects, address, partial(Client, address, authkey=authkey))

    @staticmethod
    def _far(name: str) -> Any:
        """Return the module of a kind of objects, which only Worlds with hosts need."""
        return import_module(f"klyng_mp.objects.{name}")

    def Pipe(self, duplex: bool = True) -> Any:
        """Return two connections that are the ends of one pipe."""
        if self._objects is None:
            return super().Pipe(duplex)
        return self._far("ends").make_pipe(self._objects, duplex=duplex)

    def Lock(self) -> Any:
        """Return a lock."""
        return super().Lock() if self._objects is None else self._far("locks").Lock(self._objects)

    def RLock(self) -> Any:
        """Return a recursive lock."""
        return super().RLock() if self._objects is None else self._far("locks").RLock(self._objects)

    def Condition(self, lock: Any = None) -> Any:
        """Return a condition variable."""
        return super().Condition(lock) if self._objects is None else self._far("signals").Condition(self._objects, lock)

    def Semaphore(self, value: int = 1) -> Any:
        """Return a semaphore."""
        return super().Semaphore(value) if self._objects is None else self._far("locks").Semaphore(self._objects, value)

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Return a semaphore that cannot be released beyond its first value."""
        if self._objects is None:
            return super().BoundedSemaphore(value)
        return self._far("locks").BoundedSemaphore(self._objects, value)

    def Event(self) -> Any:
        """Return an event."""
        return super().Event() if self._objects is None else self._far("signals").Event(self._objects)

    def Barrier(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> Any:
        """Return a barrier."""
        if self._objects is None:
            return super().Barrier(parties, action, timeout)
        return self._far("signals").Barrier(self._objects, parties, action, timeout)

    def Queue(self, maxsize: int = 0) -> Any:
        """Return a queue."""
        if self._objects is None:
            return super().Queue(maxsize)
        return self._far("far_queues").Queue(self._objects, maxsize)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """Return a queue with ``task_done`` and ``join``."""
        if self._objects is None:
            return super().JoinableQueue(maxsize)
        return self._far("far_queues").JoinableQueue(self._objects, maxsize)

    def SimpleQueue(self) -> Any:
        """Return a queue without a bound."""
        return super().SimpleQueue() if self._objects is None else self._far("far_queues").SimpleQueue(self._objects)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a value without a lock."""
        if self._objects is None:
            return super().RawValue(typecode_or_type, *args)
        return self._far("values").RawValue(self._objects, typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return an array without a lock."""
        if self._objects is None:
            return super().RawArray(typecode_or_type, size_or_initializer)
        return self._far("values").RawArray(self._objects, typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a value, with a lock unless ``lock`` is false."""
        if self._objects is None:
            return super().Value(typecode_or_type, *args, lock=lock)
        if lock is False:
            return self._far("values").RawValue(self._objects, typecode_or_type, *args)
        return self._far("values").Value(self._objects, typecode_or_type, *args, lock=lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return an array, with a lock unless ``lock`` is false."""
        if self._objects is None:
            return super().Array(typecode_or_type, size_or_initializer, lock=lock)
        if lock is False:
            return self._far("values").RawArray(self._objects, typecode_or_type, size_or_initializer)
        return self._far("values").Array(self._objects, typecode_or_type, size_or_initializer, lock=lock)
