"""What a World makes for its processes to share: where they are on several hosts, objects that all of them reach.

Layer: above context and objects, below world_context. A World of this machine makes what every context makes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from klyng_mp.context import BaseContext
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.far_queues import JoinableQueue, Queue, SimpleQueue
from klyng_mp.objects.locks import BoundedSemaphore, Lock, RLock, Semaphore
from klyng_mp.objects.shared import Numbers
from klyng_mp.objects.signals import Barrier, Condition, Event
from klyng_mp.wire.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.driver import Job
    from klyng_mp.launch.spec import RankSpec
    from klyng_mp.remote.world_hosts import WorldHosts

__all__ = ["WorldObjects"]


class WorldObjects(BaseContext):
    """The objects of a World; see `BaseContext` for the methods.

    Those of a World with hosts live in this process, the World's driver, as long as the World does; a queue lives where
    it is read first. They may be pickled at any time, also into each other, and are of no use outside of the World.
    """

    _spec: RankSpec
    _hosts: WorldHosts | None
    _job: Job | None
    _objects: Numbers | None = None

    def _serve_objects(self) -> None:
        """Let the present ranks use what was made, and what will be."""
        if self._hosts is None or self._job is None:
            return
        if self._objects is None:
            desk = Desk(self._job.endpoint, Codec(main_by_reference=self._spec.main_by_reference))
            self._objects = Numbers(desk)
        else:
            self._objects.desk.attach(self._job.endpoint)

    def _publish(self, address: Any, authkey: bytes) -> Any:
        """See `BaseContext._publish`."""
        if self._objects is None or not isinstance(address, str):  # one of a network is as it is
            return super()._publish(address, authkey)
        from klyng_mp.connection import Client
        from klyng_mp.objects.doors import open_door

        return open_door(self._objects, address, partial(Client, address, authkey=authkey))

    def Pipe(self, duplex: bool = True) -> Any:
        """Return two connections that are the ends of one pipe."""
        if self._objects is None:
            return super().Pipe(duplex)
        from klyng_mp.objects.ends import make_pipe

        return make_pipe(self._objects, duplex=duplex)

    def Lock(self) -> Any:
        """Return a lock."""
        return super().Lock() if self._objects is None else Lock(self._objects)

    def RLock(self) -> Any:
        """Return a recursive lock."""
        return super().RLock() if self._objects is None else RLock(self._objects)

    def Condition(self, lock: Any = None) -> Any:
        """Return a condition variable."""
        return super().Condition(lock) if self._objects is None else Condition(self._objects, lock)

    def Semaphore(self, value: int = 1) -> Any:
        """Return a semaphore."""
        return super().Semaphore(value) if self._objects is None else Semaphore(self._objects, value)

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Return a semaphore that cannot be released beyond its first value."""
        return super().BoundedSemaphore(value) if self._objects is None else BoundedSemaphore(self._objects, value)

    def Event(self) -> Any:
        """Return an event."""
        return super().Event() if self._objects is None else Event(self._objects)

    def Barrier(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> Any:
        """Return a barrier."""
        if self._objects is None:
            return super().Barrier(parties, action, timeout)
        return Barrier(self._objects, parties, action, timeout)

    def Queue(self, maxsize: int = 0) -> Any:
        """Return a queue."""
        return super().Queue(maxsize) if self._objects is None else Queue(self._objects, maxsize)

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """Return a queue with ``task_done`` and ``join``."""
        return super().JoinableQueue(maxsize) if self._objects is None else JoinableQueue(self._objects, maxsize)

    def SimpleQueue(self) -> Any:
        """Return a queue without a bound."""
        return super().SimpleQueue() if self._objects is None else SimpleQueue(self._objects)

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a value without a lock."""
        if self._objects is None:
            return super().RawValue(typecode_or_type, *args)
        from klyng_mp.objects.values import RawValue

        return RawValue(self._objects, typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return an array without a lock."""
        if self._objects is None:
            return super().RawArray(typecode_or_type, size_or_initializer)
        from klyng_mp.objects.values import RawArray

        return RawArray(self._objects, typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a value, with a lock unless ``lock`` is false."""
        if self._objects is None:
            return super().Value(typecode_or_type, *args, lock=lock)
        from klyng_mp.objects.values import RawValue, Value

        if lock is False:
            return RawValue(self._objects, typecode_or_type, *args)
        return Value(self._objects, typecode_or_type, *args, lock=lock)

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return an array, with a lock unless ``lock`` is false."""
        if self._objects is None:
            return super().Array(typecode_or_type, size_or_initializer, lock=lock)
        from klyng_mp.objects.values import Array, RawArray

        if lock is False:
            return RawArray(self._objects, typecode_or_type, size_or_initializer)
        return Array(self._objects, typecode_or_type, size_or_initializer, lock=lock)
