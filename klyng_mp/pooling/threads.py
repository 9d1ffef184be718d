"""How many threads BLAS and OpenMP use in a worker.

Layer: pooling; imports launch's names of the variables.

What is loaded before a fork is limited by the parent for as long as it forks: a forked OpenBLAS that is told a number
starts its threads anew, which takes milliseconds. Which libraries are loaded is found out once.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from klyng_mp.launch.spec import BLAS_VARIABLES

__all__ = ["limit_forks", "limit_threads"]

# What brings libraries with threads of their own along.
_PACKAGES = ("numpy", "scipy", "sklearn", "torch", "numexpr", "numba", "faiss")

_found: dict[frozenset[str], Any] = {}  # the controller of the libraries, by the packages that were loaded


def _find_libraries() -> Any:
    """Return threadpoolctl's controller of the libraries that are loaded now, or None where there can be none."""
    packages = frozenset(name for name in _PACKAGES if name in sys.modules)
    if packages and packages not in _found:
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - only who has loaded such packages needs it

        _found.clear()
        _found[packages] = ThreadpoolController()
    return _found.get(packages)


def limit_forks(number: int | None) -> AbstractContextManager[Any]:
    """Return a context in which forks get libraries that use so many threads; None: as many as here."""
    controller = None if number is None else _find_libraries()
    limits: AbstractContextManager[Any] = nullcontext() if controller is None else controller.limit(limits=number)
    return limits


def limit_threads(number: int, *, loaded: bool) -> None:
    """Let libraries use so many threads in this process.

    Args:
        number: of threads.
        loaded: also those that are loaded already.
    """
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, str(number)))
    controller = _find_libraries() if loaded else None
    if controller is not None:
        controller.limit(limits=number)
