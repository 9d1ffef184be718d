"""Files that hold a secret: written whole or not at all, and for nobody but their owner.

Layer: remote; files only.
"""

from __future__ import annotations

import os
import stat

from klyng_mp.errors import AuthenticationError

__all__ = ["read_private", "write_private"]

_LIMIT_BYTES = 1 << 20  # of a file that holds keys


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file by one that only its owner can read (0600), at once: whoever reads sees the old or the new one.

    Raises:
        OSError: it cannot be written; what was there is there still, and nothing else.
    """
    folder, name = os.path.split(os.path.abspath(path))
    beside = os.path.join(folder, f".{name}.{os.urandom(8).hex()}")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def read_private(path: str | os.PathLike[str]) -> bytes:
    """Return what a file holds that nobody but its owner can read.

    Raises:
        AuthenticationError: others can read or write it, or it is no file of a sensible size.
        OSError: it cannot be read.
    """
    # A fifo would wait for its writer.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LIMIT_BYTES:
            raise AuthenticationError(f"{os.fspath(path)} is no file with a secret: give the right one")
        if found.st_mode & 0o077:
            raise AuthenticationError(
                f"{os.fspath(path)} is open to other users: take a new secret if they may have read it, "
                f"and `chmod 600` the file"
            )
        return file.read(_LIMIT_BYTES + 1)
