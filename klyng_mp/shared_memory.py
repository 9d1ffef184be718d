"""Blocks of shared memory that have names; multiprocessing.shared_memory's names.

Layer: above resource_tracker.

Invariants (python/cpython#82300): who makes a block registers it with the resource tracker of its program, which
removes it when the program has ended or was killed. Who attaches to a block registers nothing, so a block outlives
whoever has only used it, and nobody is told of a leak for it. A tracker is never told to forget what it does not know.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]
import functools
import mmap
import multiprocessing.shared_memory as standard
import os
import struct
from multiprocessing.shared_memory import (  # type: ignore[attr-defined]
    _O_CREX,
    _SHM_NAME_PREFIX,
    _SHM_SAFE_NAME_LENGTH,
    _USE_POSIX,
    _encoding,
    _make_filename,
)
from typing import TYPE_CHECKING, Any

from klyng_mp import resource_tracker
from klyng_mp.errors import NotAcrossHostsError
from klyng_mp.objects.leaving import check_stays
from klyng_mp.util import Finalize

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ShareableList", "SharedMemory", "adopt", "rebuild_block"]

_KIND = "shared_memory"
_DIRECTORY = "/dev/shm"  # noqa: S108 - where glibc and musl have them
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_REMEDY = "send what is in it: bytes(block.buf), or an array"


def _forget(name: str) -> None:
    """Have this program's tracker forget a block, whether it knows of it or not."""
    _made.discard(name)
    if resource_tracker._resource_tracker._fd is not None:  # type: ignore[attr-defined]  # else it never knew of any
        resource_tracker.register(name, _KIND)
        resource_tracker.unregister(name, _KIND)


def _tracker() -> str:
    """Return what is the same in all processes that have the same resource tracker."""
    pipe = os.fstat(resource_tracker.getfd())  # type: ignore[arg-type]  # asking has started it
    return f"{pipe.st_dev}:{pipe.st_ino}"


def adopt(name: str) -> str:
    """Have this program's tracker remove a block in the end that another program may have made.

    Returns:
        Which tracker that is, for `SharedMemory.leave_to`.
    """
    resource_tracker.register(f"/{name}", _KIND)
    return _tracker()


def _exists(name: str) -> bool:
    try:
        os.close(_posixshmem.shm_open(name, os.O_RDONLY, mode=0))
    except FileNotFoundError:
        return False
    return True


class _Made:
    """The names of blocks that this process has made and its tracker knows.

    Another program, which has another tracker, may have removed one after this process has closed it. That is looked
    up once, at the end of the process, so that the tracker does not take it for a leak.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._pid = 0

    def add(self, name: str) -> None:
        if self._pid != os.getpid():
            self._pid, self._names = os.getpid(), set()
            Finalize(None, self._forget_removed, exitpriority=-10)  # after the program's own finalizers
        self._names.add(name)

    def discard(self, name: str) -> None:
        self._names.discard(name)

    def _forget_removed(self) -> None:
        for name in list(self._names):
            if not _exists(name):
                _forget(name)


_made = _Made()


class SharedMemory(standard.SharedMemory):
    """A block of shared memory that any program on the machine can attach to by its name.

    Args:
        name: of the block; None: a new one.
        create: whether to make the block, or attach to it.
        size: of a block that is made, in bytes; it may become whole pages.
        track: whether the resource tracker removes the block at the end of this program. None: if it is made here.

    Raises:
        FileExistsError: there is a block of this name, which was to be made.
        FileNotFoundError: there is none, to attach to.
        ValueError: size or name make no sense. Nothing was made.
    """

    _name: Any
    _fd: int
    _mmap: Any
    _buf: Any
    _flags: int
    _mode: int
    _prepend_leading_slash: bool
    _track = False

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool | None = None):
        if size < 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _O_CREX | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        if track or (create and track is None):
            resource_tracker.ensure_running()  # now: between making a block and registering it is no time for that
            self._track = True
        self._open(name)
        try:
            if self._track:
                resource_tracker.register(self._name, _KIND)
                _made.add(self._name)
            if create:
                os.ftruncate(self._fd, size)
            self._size = os.fstat(self._fd).st_size
            self._mmap = mmap.mmap(self._fd, self._size)
        except BaseException:
            if create:
                self.unlink()
            raise
        self._buf = memoryview(self._mmap)

    def _open(self, name: str | None) -> None:
        while self._fd < 0:
            path = _make_filename() if name is None else f"/{name}" if self._prepend_leading_slash else name
            try:
                self._fd = _posixshmem.shm_open(path, self._flags, mode=self._mode)
            except FileExistsError:
                if name is not None:
                    raise
            else:
                self._name = path

    def close(self) -> None:
        """Give up this process's access to the block, which stays where it is."""
        if self._track and self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
            # Somebody else has removed it, maybe of another program: our tracker is not to look for it. One that has
            # got its name since is another block.
            self._track = False
            if not _exists(self._name):
                _forget(self._name)
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        check_stays(f"the shared memory {self.name}", _REMEDY)
        return rebuild_block, (type(self), self.name, _memory())

    def leave_to(self, tracker: str) -> None:
        """Leave it to another tracker to remove the block in the end.

        Args:
            tracker: what `adopt` has returned, maybe in another program.
        """
        if self._track and tracker != _tracker():
            self._track = False
            _forget(self._name)

    def unlink(self) -> None:
        """Remove the block: nobody can attach to it any more; who has it keeps it until it is closed.

        Raises:
            FileNotFoundError: it was removed before.
        """
        if self._name:
            self._track = False
            try:
                _posixshmem.shm_unlink(self._name)
            finally:
                _forget(self._name)


def rebuild_block(kind: Any, name: str, memory: str) -> Any:
    """Return a block, or a list in one, from what has travelled of it; pickles call this.

    Raises:
        FileNotFoundError: it is not there any more.
        NotAcrossHostsError: it is not in this machine's memory.
    """
    if memory != _memory():
        raise NotAcrossHostsError(f"the shared memory {name} of another machine", _REMEDY)
    return kind(name=name)


@functools.cache
def _memory() -> str:
    """Return what is the same for all processes that find the same blocks by a name."""
    with open(_BOOT_ID, encoding="ascii") as file:
        return f"{file.read().strip()}:{os.stat(_DIRECTORY).st_dev}"


class ShareableList(standard.ShareableList[Any]):
    """A list of simple values in a block of shared memory; see ``multiprocessing.shared_memory.ShareableList``.

    Args:
        sequence: the values; None: attach to a list that is there.
        name: of the block.
        track: as `SharedMemory` has it.
    """

    shm: Any
    _format_size_metainfo: str

    def __init__(
        self, sequence: Iterable[Any] | None = None, *, name: str | None = None, track: bool | None = None
    ) -> None:
        if sequence is None and name is not None:
            self.shm = SharedMemory(name, track=track)
            self._list_len = len(self)
            offsets = struct.unpack_from(self._format_size_metainfo, self.shm.buf, 8)  # behind the length
            self._allocated_offsets = list(offsets)
        else:
            super().__init__(sequence, name=name)
            self.shm.__class__ = SharedMemory  # the same block; it ends as ours do
            self.shm._track = track is not False
            if self.shm._track:
                _made.add(self.shm._name)
            else:
                _forget(self.shm._name)

    def __reduce__(self) -> tuple[Any, ...]:
        check_stays(f"the shared memory {self.shm.name}", "send its values: list(shared)")
        return rebuild_block, (type(self), self.shm.name, _memory())
