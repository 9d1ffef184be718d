"""A beacon's store of bundles: under their digests, within a bound, whoever was used longest ago leaves first.

Layer: remote; imports errors, bundle. Several processes use one store at once, and may be killed at any time.

What is stored are archives, which each job unpacks for itself: a program that writes into its folder harms no other.
All that is said about a bundle is the kernel's and ends with a process: a lock on its file says that it is in use, the
file's date when it was last. An archive has its name only once it is whole; one that is damaged later is noticed when
it is unpacked, as its digest covers each byte, and is as good as not there.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BeaconBusyError, BundleError
from klyng_mp.remote.bundle import Limits, Unpacked, explain_full_disk, inspect, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["BundleCache", "CachedBundle", "Lease"]

_SUFFIX = ".bundle"
_PARTIAL = ".part"
_LOCK = "lock"
_HEXADECIMAL = frozenset("0123456789abcdef")


class CachedBundle(NamedTuple):
    """A bundle that is stored: its digest, the archive's length, when it was last used (seconds since 1970)."""

    digest: str
    size: int
    used: float


class Lease:
    """A bundle in use: unpacked here, and kept in the store until `close`, or this process's end.

    Attributes:
        unpacked: where its files are; they are the caller's, and stay.
    """

    def __init__(self, unpacked: Unpacked, fd: int) -> None:
        self.unpacked = unpacked
        self._fd = fd

    def close(self) -> None:
        """Let the store forget the bundle if it needs the room. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BundleCache:
    """The store in one folder, which is made if it is not there.

    Args:
        folder: is for nothing else; the one above it exists.
        limit_bytes: what all archives together may take.
        limits: of one bundle.
    """

    def __init__(self, folder: str, limit_bytes: int, limits: Limits = Limits()) -> None:  # noqa: B008 (immutable)
        self.folder = os.path.abspath(folder)
        self._limit_bytes = limit_bytes
        self._limits = limits
        with suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)

    def contents(self) -> list[CachedBundle]:
        """Return what is stored, the longest unused first."""
        found = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(_SUFFIX):
                with suppress(FileNotFoundError):  # it has just been evicted
                    status = entry.stat(follow_symlinks=False)
                    digest = entry.name.removesuffix(_SUFFIX)
                    found.append(CachedBundle(digest, status.st_size, status.st_mtime_ns / 1e9))
        return sorted(found, key=lambda one: (one.used, one.digest))

    def store(self, digest: str, data: bytes) -> None:
        """Keep a bundle; others leave for it.

        Raises:
            BundleError: it is damaged or not of that digest, larger than the limits or the store, or the disk is full.
                Nothing of it is kept.
            BeaconBusyError: there is no room, as those that are stored are in use.
        """
        if inspect(data, self._limits)[0] != digest:
            raise BundleError("a bundle came under another one's digest: send it again")
        if len(data) > self._limit_bytes:
            raise BundleError(
                f"the bundle has {len(data)} bytes, and the beacon keeps {self._limit_bytes} for all bundles: leave "
                "out files, or have cache_bytes raised in its beacon.toml"
            )
        with self._locked():
            if self._refresh(digest):
                return
            self._make_room(digest, len(data))
            partial = os.path.join(self.folder, digest + _PARTIAL)
            try:
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    file.write(data)
                os.rename(partial, self._path(digest))
            except BaseException as error:
                with suppress(FileNotFoundError):
                    os.unlink(partial)
                if isinstance(error, OSError):
                    raise BundleError(explain_full_disk(error, partial)) from error
                raise

    def fetch(self, digest: str, folder: str) -> Lease | None:
        """Unpack a bundle into a new folder; return None if it is not stored (any more), or damaged.

        Raises:
            BundleError: the folder's disk is full; the folder is not there.
        """
        fd = self._open(digest)
        if fd is None:
            return None
        try:
            os.utime(fd)
            lease = self._unpack(digest, folder, fd)
        except BaseException:
            os.close(fd)
            raise
        if lease is None:
            os.close(fd)
        return lease

    def _unpack(self, digest: str, folder: str, fd: int) -> Lease | None:
        with open(fd, "rb", closefd=False) as file:
            try:
                whole = inspect(file, self._limits)[0] == digest
            except (BundleError, OSError):
                whole = False
            if whole:
                file.seek(0)
                return Lease(unpack(file, folder, self._limits), fd)
        self._drop(digest, fd)
        return None

    def _drop(self, digest: str, fd: int) -> None:
        """Forget what is damaged, unless it has been replaced meanwhile."""
        with self._locked(), suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path(digest)), os.fstat(fd)):
                os.unlink(self._path(digest))

    def _refresh(self, digest: str) -> bool:
        """Return whether a bundle is stored already: another file under its name would not have its leases."""
        try:
            with open(self._path(digest), "rb") as file:
                whole = inspect(file, self._limits)[0] == digest
                os.utime(file.fileno())
        except (BundleError, OSError):
            return False
        return whole

    def _open(self, digest: str) -> int | None:
        if len(digest) != 64 or not _HEXADECIMAL.issuperset(digest):
            return None
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)  # waits at most while somebody evicts it
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)
        return None

    def _make_room(self, digest: str, size: int) -> None:
        for name in os.listdir(self.folder):
            if name.endswith(_PARTIAL):  # of a process that was killed, as the store is locked
                os.unlink(os.path.join(self.folder, name))
        stored = [one for one in self.contents() if one.digest != digest]
        excess = sum(one.size for one in stored) + size - self._limit_bytes
        for one in stored:
            if excess > 0 and self._evict(one.digest):
                excess -= one.size
        if excess > 0:
            raise BeaconBusyError(
                f"the bundle needs {excess} bytes more than the {self._limit_bytes} that the beacon keeps for bundles, "
                "as those that are there are in use: wait, or have cache_bytes raised in its beacon.toml"
            )

    def _evict(self, digest: str) -> bool:
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self._path(digest))
        except BlockingIOError:
            return False
        except FileNotFoundError:  # somebody has found it damaged
            return True
        finally:
            os.close(fd)
        return True

    def _path(self, digest: str) -> str:
        return os.path.join(self.folder, digest + _SUFFIX)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(os.path.join(self.folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
