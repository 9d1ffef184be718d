"""Files that a command writes when all is over: refused before anything runs if that cannot be, and written whole.

Layer: launch; imports nothing of klyng_mp.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["explain_unwritable", "write_whole"]


def explain_unwritable(path: str) -> str | None:
    """Return why a file cannot be written, as a phrase that follows its name, or None if it seems that it can."""
    if not path or os.path.isdir(path):
        return "is a folder, and a file is needed" if path else "is no name of a file"
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        return f"cannot be written: there is no folder {folder}"
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        return "cannot be written: permission denied"
    if _is_replaced(path) and not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot be written: files may not be made in {folder}"
    return None


def write_whole(path: str, chunks: Iterable[bytes]) -> None:
    """Write a file so that nobody ever sees a part of it; what is no regular file (a pipe, a device) is written to.

    Raises:
        OSError: it cannot be written; a file that was there before is as it was.
    """
    if not _is_replaced(path):
        with open(path, "wb") as file:
            file.writelines(chunks)
        return
    final = os.path.realpath(path)
    partial = f"{final}.{os.getpid()}.part"
    try:
        with open(partial, "xb") as file:
            file.writelines(chunks)
        os.replace(partial, final)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def _is_replaced(path: str) -> bool:
    return os.path.isfile(path) or not os.path.exists(path)
