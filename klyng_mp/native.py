"""Whether the C core is in use in this process, and the core itself.

Layer: leaf. `core` is the module ``klyng_mp._core``, or None where it was not built; ``KLYNG_MP_NATIVE=1`` makes its
absence an error, at import, and ``KLYNG_MP_NATIVE=0`` does without it. What has a native twin takes it from here when
it is imported, so it is the same everywhere in a process.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["VARIABLE", "core", "find_core", "is_wanted"]

VARIABLE = "KLYNG_MP_NATIVE"


def is_wanted(wish: str | None) -> bool:
    """Tell what a value of the variable asks for.

    Raises:
        ValueError: it is neither empty nor 0 nor 1.
    """
    if wish not in (None, "", "0", "1"):
        raise ValueError(f"{VARIABLE} is 1 (use the native core, or fail) or 0 (do without it), not {wish!r}")
    return wish != "0"


def find_core(wish: str | None) -> Any:
    """Return the native core, or None where it is not wanted, or was not built.

    Raises:
        ImportError: it must be there and is not, or it cannot be loaded; says what to do.
    """
    if not is_wanted(wish):
        return None
    reason = "only its sources are here"  # import takes their folder for a package
    try:
        found = import_module("klyng_mp._core")
    except ModuleNotFoundError as error:
        reason = str(error)
    except ImportError as error:
        raise ImportError(
            f"klyng_mp's native core cannot be loaded ({error}): install klyng_mp again, or do without it: {VARIABLE}=0"
        ) from error
    else:
        if found.__spec__ is not None and found.__spec__.origin is not None:
            return found
    if wish != "1":
        return None
    raise ImportError(
        f"{VARIABLE}=1 asks for klyng_mp's native core, which is not built ({reason}): install klyng_mp where there is "
        "a C compiler, or unset the variable"
    )


if TYPE_CHECKING:
    import klyng_mp._core as core  # or None, which a type checker cannot be told of a module
else:
    core = find_core(os.environ.get(VARIABLE))
