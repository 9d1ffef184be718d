"""How a pool encodes for its workers: by reference what they have, by value what they cannot have.

Layer: pooling; imports reduction.

A worker that was forked has ``__main__`` as it was then. What was defined there later (in the next cell of a notebook,
or below the line that made the pool) goes by value.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from klyng_mp.objects.leaving import LEAVING
from klyng_mp.reduction import codec
from klyng_mp.wire.explain import names_in

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import FunctionType

    from klyng_mp.wire.codec import Codec, Encoded

__all__ = ["Encoder"]

_MAIN = b"main__"
_BY_VALUE = b"klyng_mp.wire.rebuild"  # in a pickle of what has no name: it may use any global


class Encoder:
    """Encodes functions and arguments for the workers of one pool.

    Args:
        forks: the workers are forks of this process, from now.
        leaves: some workers may be on other machines.

    Attributes:
        functions: what functions that the workers have are as messages.
        going: the context in which things are pickled for the workers.
    """

    def __init__(self, *, forks: bool, leaves: bool = False) -> None:
        self.going: AbstractContextManager[None] = LEAVING if leaves else nullcontext()
        self.functions: WeakKeyDictionary[FunctionType, Any] = WeakKeyDictionary()
        self._known = dict(_definitions()) if forks else None
        self._size = len(vars(sys.modules["__main__"]))
        self._by_reference = codec(by_reference=True)
        self._by_value = codec(by_reference=False)
        self._session = not codec().main_by_reference

    @property
    def main_by_reference(self) -> bool:
        """Whether a reference into ``__main__`` needs no second look."""
        if self._known is None:
            return codec().main_by_reference  # which a World's processes may have changed
        return not self._session and len(vars(sys.modules["__main__"])) == self._size

    @property
    def codec(self) -> Codec:
        """The codec that decodes what comes from the workers."""
        return self._by_reference

    def is_known(self, function: FunctionType) -> bool:
        """Whether the workers have a function under its name, as far as that can be told at a glance."""
        name = function.__qualname__
        module = function.__module__
        if module == "__main__":
            known = self._known
            return known is not None and known.get(name) is function and vars(sys.modules[module]).get(name) is function
        return "." not in name and getattr(sys.modules.get(module), name, None) is function

    def encode(self, obj: Any, *, name: str = "") -> Encoded:
        """Return code, head and buffers; see `Codec.encode`."""
        if self._known is None:
            with self.going:
                return codec().encode(obj, name=name)
        encoded = self._by_reference.encode(obj, name=name)
        head = encoded[1]
        if _MAIN in head and ((_BY_VALUE in head and not self.main_by_reference) or self._is_new(head)):
            return self._by_value.encode(obj, name=name)
        return encoded

    def _is_new(self, head: bytes) -> bool:
        """Whether a pickle refers to something of ``__main__`` that the workers do not have, or have otherwise."""
        assert self._known is not None  # noqa: S101 - who asks has looked
        main = vars(sys.modules["__main__"])
        for found in names_in(head):
            module, _, name = found.partition(".")
            if module in ("__main__", "__mp_main__"):
                root = name.partition(".")[0]
                if self._known.get(root) is not main.get(root, self):
                    return True
        return False


def _definitions() -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(sys.modules["__main__"]).items() if callable(value)]
