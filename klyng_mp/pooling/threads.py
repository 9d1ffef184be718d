"""How many threads BLAS and OpenMP use in a worker.

Layer: pooling; imports launch's names of the variables.

What is loaded before a fork is limited by the parent for as long as it forks. Not so OpenBLAS: a fork ends its threads,
and to tell it a number, in the parent or in the child, starts them anew, which then spin for a tenth of a second beside
the workers. So the child writes the number where OpenBLAS keeps it, before it has any threads. Which libraries are
loaded is found out once.
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
    """Return a context in which forks get libraries that use so many threads, but for what `limit_threads` does there.

    Args:
        number: of threads; None: as many as here.
    """
    controller = None if number is None else _find_libraries()
    if controller is None:
        return nullcontext()
    others = [library.filepath for library in controller.lib_controllers if _number_of(library) is None]
    limits: AbstractContextManager[Any] = controller.select(filepath=others).limit(limits=number)
    return limits


def limit_threads(number: int, *, is_fork: bool) -> AbstractContextManager[Any]:
    """Let libraries use so many threads in this process from now on.

    Args:
        number: of threads.
        is_fork: this process was just forked, in `limit_forks`.

    Returns:
        A context at whose end libraries may use as many as before, where this process is no fork.
    """
    os.environ.update(dict.fromkeys(BLAS_VARIABLES, str(number)))
    controller = _find_libraries()
    if controller is None:
        return nullcontext()
    if not is_fork:
        limits: AbstractContextManager[Any] = controller.limit(limits=number)
        return limits
    for library in controller.lib_controllers:
        if (place := _number_of(library)) is not None:
            place.value = number
    return nullcontext()


def _number_of(library: Any) -> Any:
    """Return where an OpenBLAS keeps the number of its threads; None for any other library."""
    if library.internal_api != "openblas":
        return None
    import ctypes  # noqa: PLC0415 - only where there is such a library

    try:
        return ctypes.c_int.in_dll(library.dynlib, "blas_cpu_number")
    except ValueError:  # one that hides it
        return None
