"""The classes of the processes that are started from Worlds: ``World.Process``.

Layer: above popen_zygote. There is a class for each World whose processes are asked for. A process object travels
without its World: in the process that was started its class is `WorldProcess`, which starts none.
"""

from __future__ import annotations

import itertools
import multiprocessing.process as standard
import sys
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakValueDictionary

from klyng_mp.errors import ForkedError
from klyng_mp.process import START_METHOD, BaseProcess

if TYPE_CHECKING:
    from klyng_mp.popen_zygote import Starter

__all__ = ["WorldProcess", "bind", "is_server"]

_PREFIX = "of_world_"
_bound: WeakValueDictionary[str, type[WorldProcess]] = WeakValueDictionary()
_numbers = itertools.count(1)


class WorldProcess(BaseProcess):
    """A process that is started from a World: a fork of its zygote, with a rank if a place is free."""

    _start_method = None  # its own children are started as the default context says

    @staticmethod
    def _Popen(process_obj: Any) -> NoReturn:
        raise ForkedError(
            f"{process_obj.name} cannot be started here: its World belongs to the process that made it. Make a World "
            "in this process, or start it from the default context"
        )

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        exitcode: int = standard.BaseProcess._bootstrap(self, parent_sentinel)  # type: ignore[attr-defined]
        return exitcode  # it is on a leash already


def is_server(process_obj: Any) -> bool:
    """Whether a process is to be a manager's server."""
    managers = sys.modules.get("multiprocessing.managers")
    owner = getattr(process_obj._target, "__self__", None)
    return managers is not None and isinstance(owner, type) and issubclass(owner, managers.BaseManager)


def bind(world: Starter) -> type[WorldProcess]:
    """Return the class of the processes that a World starts."""

    class Process(WorldProcess):
        """A process that is started from this World; see `klyng_mp.World`."""

        @staticmethod
        def _Popen(process_obj: Any) -> Any:
            from klyng_mp.popen_zygote import Popen

            if world.is_spread and is_server(process_obj):  # it needs no place: the driver speaks for it
                return START_METHOD.context().Process._Popen(process_obj)
            return Popen(process_obj, world)

    name = f"{_PREFIX}{next(_numbers)}"
    Process.__qualname__ = name  # by which it is found here when it is pickled, and its base elsewhere
    Process.__name__ = "Process"
    _bound[name] = Process
    return Process


def __getattr__(name: str) -> Any:
    if name.startswith(_PREFIX):
        return _bound.get(name, WorldProcess)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
