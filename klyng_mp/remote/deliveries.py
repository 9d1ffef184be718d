"""What a driver has sent for processes that it is about to start on a host: their tasks, and files that they share.

Layer: remote; part of a session.

Nothing of it is looked at here: it lies in files of the memory, whose descriptors the process is given. A file that
several processes are given is sent once; nobody can write to it once a process has it.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from typing import TYPE_CHECKING

from klyng_mp.launch.task import seal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Deliveries", "Refusal", "digest_of", "untimely"]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """What the client asks for cannot be.

    Attributes:
        reason: one of `protocol.REASONS`.
        limit: the name of the limit that is reached, or None.
    """

    def __init__(self, reason: str, sentence: str, limit: str | None = None) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.limit = limit


def untimely(name: str) -> Refusal:
    """Return the refusal of a record that came when none such was due."""
    return Refusal("failed", f"the record {name!r} came at the wrong time: both sides must run the same klyng_mp")


def digest_of(fd: int) -> bytes:
    """Return what the content of a file is known by."""
    size = os.fstat(fd).st_size
    if not size:
        return hashlib.sha256().digest()
    with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
        return hashlib.sha256(memory).digest()


class _File:
    """A file in memory, as it comes."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("klyng-delivery", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.size = 0
        self.sealed = False

    def add(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, self.size)
            self.size += count
            view = view[count:]

    def seal(self, digest: bytes) -> None:
        if not self.sealed:
            seal(self.fd)
            if digest_of(self.fd) != digest:
                raise Refusal("failed", "a file is not what it was said to be: both sides must run the same klyng_mp")
            self.sealed = True


class Deliveries:
    """Those of one job on one host.

    Args:
        most_bytes: how much may lie here at once.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._serial = 0
        self._task: _File | None = None  # of the process that is to be started next
        self._files: dict[bytes, _File] = {}

    def add_task(self, serial: int, data: bytes) -> None:
        """Keep a part of what a process is to do.

        Raises:
            Refusal: it is another one's turn, or there is too much.
        """
        if self._task is None:
            self._serial, self._task = serial, _File()
        if self._serial != serial:
            raise untimely("task")
        self._add(self._task, data)

    def add_content(self, digest: bytes, data: bytes) -> None:
        """Keep a part of a file that processes are given.

        Raises:
            Refusal: a process has it already, or there is too much.
        """
        file = self._files.get(digest)
        if file is None:
            file = self._files[digest] = _File()
        if file.sealed:
            raise untimely("content")
        self._add(file, data)

    def _add(self, file: _File, data: bytes) -> None:
        there = sum(one.size for one in self._files.values()) + (self._task.size if self._task is not None else 0)
        if there + len(data) > self._most:
            raise Refusal(
                "limit",
                f"what processes are started with has more than {self._most} bytes: send it afterwards, or raise "
                "max_bundle_bytes in its beacon.toml",
                "max_bundle_bytes",
            )
        file.add(data)

    def forget(self, digest: bytes) -> None:
        """Give up a file; processes that have it keep it."""
        if (file := self._files.pop(digest, None)) is not None:
            os.close(file.fd)

    def hand_out(self, serial: int, digests: Sequence[bytes]) -> list[int]:
        """Return descriptors of a process's task, which is the caller's to close, and of the files that it is given.

        Raises:
            Refusal: it is not there, or not as it was said to be.
        """
        if self._task is None or self._serial != serial or not all(one in self._files for one in digests):
            raise untimely("start")
        for digest in digests:
            self._files[digest].seal(digest)
        task, self._task = self._task, None
        return [task.fd, *(self._files[digest].fd for digest in digests)]

    def close(self) -> None:
        """Give up all of it."""
        for digest in list(self._files):
            self.forget(digest)
        if self._task is not None:
            os.close(self._task.fd)
            self._task = None
