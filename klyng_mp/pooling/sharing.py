"""What all workers of a pool share: encoded once, and mapped by each.

Layer: pooling; imports reduction. ``klyng_mp.shared()`` is its face.

Invariants: the memory has no name, and nobody writes it after it is made: arrays are read-only where they are read.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import NothingSharedError
from klyng_mp.launch.task import seal
from klyng_mp.reduction import DupFd, codec
from klyng_mp.segments import aligned, views_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from klyng_mp.wire.codec import Codec

__all__ = ["Shared", "SharedValues", "install_shared", "shared"]


class Shared:
    """The shared objects of a pool as bytes.

    Attributes:
        fd: a memfd.
        code: the codec's.
        lengths: of the head and of each buffer.
    """

    def __init__(self, fd: int, code: int, lengths: list[int]) -> None:
        self.fd = fd
        self.code = code
        self.lengths = lengths

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Shared:
        """Encode what is to be shared.

        Raises:
            CodecError: something cannot travel; names what.
            TypeError: it is no mapping of names to objects.
        """
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise TypeError(f"shared= takes a mapping of names to objects, not {type(values).__name__}")
        code, head, buffers = codec().encode(dict(values), name="shared")
        parts = [memoryview(head), *buffers]
        fd = os.memfd_create("klyng_mp shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            position = 0
            for part in parts:
                _write(fd, part, position)
                position += aligned(len(part))
            os.ftruncate(fd, max(position, 1))
            seal(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, code, [len(part) for part in parts])

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise RuntimeError("what a pool shares can only be given to a process that is being started")
        return _take_over, (DupFd(self.fd), self.code, self.lengths)

    def read(self, decoder: Codec) -> dict[str, Any]:
        """Map the memory and return the objects."""
        view = memoryview(mmap.mmap(self.fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
        head, *buffers = views_of(view, self.lengths)
        values: dict[str, Any] = decoder.decode(self.code, bytes(head), buffers)
        return values

    def close(self) -> None:
        """Close the descriptor; what is mapped stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _write(fd: int, view: memoryview, position: int) -> None:
    while view:
        count = os.pwrite(fd, view, position)
        view = view[count:]
        position += count


def _take_over(fd: Any, code: int, lengths: list[int]) -> Shared:
    taken = fd.detach()
    os.set_inheritable(taken, False)
    return Shared(taken, code, lengths)


class SharedValues(Mapping[str, Any]):
    """What a pool's workers share, by name: as items or as attributes. Arrays are read-only."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"the pool shares nothing that is called {name!r}") from None

    def __repr__(self) -> str:
        return f"<shared: {', '.join(self._values)}>"


class _Installed:
    def __init__(self) -> None:
        self.shared: Shared | None = None
        self.values: SharedValues | None = None


_installed = _Installed()


def install_shared(found: Shared | None) -> None:
    """Let `shared` return this in this process; it is read when it is asked for."""
    _installed.shared, _installed.values = found, None


def shared() -> SharedValues:
    """Return what the pool of this worker shares, its ``shared=``.

    Raises:
        NothingSharedError: this is no worker of a pool, or its pool shares nothing.
    """
    if _installed.values is None:
        if _installed.shared is None:
            raise NothingSharedError
        _installed.values = SharedValues(_installed.shared.read(codec(by_reference=True)))
        _installed.shared.close()
    return _installed.values
