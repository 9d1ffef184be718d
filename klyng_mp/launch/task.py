"""What a started process is to do, as a file in memory that only descriptors lead to.

Layer: launch. A large argument is written once, by who starts the process, and read where it lies: what the process
sees of it are private pages, which are copied when it writes to them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.wire.frames import Part

__all__ = ["Task", "is_sealed", "read_task", "seal", "write_copy", "write_task"]

_ALIGNMENT = 64  # of buffers, as arrays like it
_LENGTH = struct.Struct("<Q")
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class Task(NamedTuple):
    """What a started process is to do.

    Attributes:
        name: of the process.
        by_reference: whether things of ``__main__`` are found by their names.
        authkey: of whoever started it.
        log_level, log_to_stderr: of multiprocessing's logger.
        work: a function that returns the process object, and its arguments, as a codec has encoded them.
    """

    name: str
    by_reference: bool
    authkey: bytes
    log_level: int | None
    log_to_stderr: bool
    work: tuple[int, bytes, Sequence[Any]]


def write_task(task: Task) -> int:
    """Return the descriptor of a file in memory with the task.

    Raises:
        OSError: there is no room, or no descriptor left; nothing was kept.
    """
    code, head, buffers = task.work
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    front = pickle.dumps((*task[:-1], (code, head, [view.nbytes for view in views])), 5)
    fd = os.memfd_create("klyng-task", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(_LENGTH.pack(len(front)) + front)
            for view in views:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                file.write(view)
    except BaseException:
        os.close(fd)
        raise
    return fd


def write_copy(content: Part) -> int:
    """Return the descriptor of a sealed file in memory with this content, as another process has it.

    Raises:
        OSError: as by `write_task`.
    """
    fd = os.memfd_create("klyng-copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Let nobody change a file in memory any more, so that a copy of it is as good on another host."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)


def is_sealed(fd: int) -> bool:
    """Whether a descriptor is that of a file in memory which nobody can change any more."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:  # it is no such file
        return False


def read_task(fd: int) -> Task:
    """Return the task of a file, with buffers that are this process's own; close it."""
    try:
        memory = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(fd)
    (length,) = _LENGTH.unpack_from(memory)
    position = _LENGTH.size + length
    name, by_reference, authkey, level, to_stderr, (code, head, sizes) = pickle.loads(  # noqa: S301 - from this World's driver
        memory[_LENGTH.size : position]
    )
    buffers = []
    for size in sizes:
        position += -position % _ALIGNMENT
        buffers.append(memory[position : position + size])
        position += size
    return Task(name, by_reference, authkey, level, to_stderr, (code, head, buffers))
