"""What mpi4py's MPI module has besides its classes: constants, time, names, the beginning and the end.

Layer: MPI; imports communicator for what ends with the run.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, final

from klyng_mp.communicator.current import comm
from klyng_mp.communicator.topology import compute_dims
from klyng_mp.machine import hostname
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ANY_SOURCE",
    "ANY_TAG",
    "CART",
    "COMM_TYPE_SHARED",
    "CONGRUENT",
    "ERRORS_ABORT",
    "ERRORS_ARE_FATAL",
    "ERRORS_RETURN",
    "IDENT",
    "INFO_NULL",
    "IN_PLACE",
    "MAX_ERROR_STRING",
    "MAX_LIBRARY_VERSION_STRING",
    "MAX_PROCESSOR_NAME",
    "PROC_NULL",
    "SIMILAR",
    "SUBVERSION",
    "SUCCESS",
    "TAG_UB",
    "THREAD_FUNNELED",
    "THREAD_MULTIPLE",
    "THREAD_SERIALIZED",
    "THREAD_SINGLE",
    "UNDEFINED",
    "UNEQUAL",
    "UNIVERSE_SIZE",
    "VERSION",
    "WTIME_IS_GLOBAL",
    "Compute_dims",
    "Errhandler",
    "Finalize",
    "Get_library_version",
    "Get_processor_name",
    "Get_version",
    "InPlaceType",
    "Info",
    "Init",
    "Init_thread",
    "Is_finalized",
    "Is_initialized",
    "Is_thread_main",
    "Query_thread",
    "Wtick",
    "Wtime",
    "end_job",
    "get_vendor",
]

# The values are mpi4py's with MPICH, except for those that klyng_mp has itself. Programs use the names.
UNDEFINED = -32766
SUCCESS = 0
IDENT, CONGRUENT, SIMILAR, UNEQUAL = range(4)
CART = 2
COMM_TYPE_SHARED = 1
THREAD_SINGLE, THREAD_FUNNELED, THREAD_SERIALIZED, THREAD_MULTIPLE = range(4)
MAX_PROCESSOR_NAME = 128
MAX_ERROR_STRING = 512
MAX_LIBRARY_VERSION_STRING = 8192
TAG_UB, UNIVERSE_SIZE, WTIME_IS_GLOBAL = 0x64400001, 0x64400009, 0x64400007  # keys of Comm.Get_attr
VERSION, SUBVERSION = 3, 1  # what the names here are taken from: that of non-blocking collectives


@final
class InPlaceType:
    """The type of ``IN_PLACE``, which says that a rank's part is in its receive buffer already."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "IN_PLACE"

    def __reduce__(self) -> str:
        return "IN_PLACE"


@final
class Info:
    """The type of ``INFO_NULL``, the only one there is: klyng_mp takes no hints."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "INFO_NULL"

    def __reduce__(self) -> str:
        return "INFO_NULL"


@final
class Errhandler:
    """What is to be done with errors: they are raised whichever is set, and end the job if nothing catches them."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


IN_PLACE = InPlaceType()
INFO_NULL = Info()
ERRORS_RETURN = Errhandler("ERRORS_RETURN")
ERRORS_ARE_FATAL = Errhandler("ERRORS_ARE_FATAL")
ERRORS_ABORT = Errhandler("ERRORS_ABORT")


def Init() -> None:
    """Do nothing: a rank is ready when its program begins."""


def Init_thread(required: int = THREAD_MULTIPLE) -> int:
    """Return what threads may do, which is all of it."""
    del required
    return THREAD_MULTIPLE


def Query_thread() -> int:
    """Return what threads may do, which is all of it."""
    return THREAD_MULTIPLE


def Is_thread_main() -> bool:
    """Return whether this is the thread that the program began in."""
    return threading.current_thread() is threading.main_thread()


def Is_initialized() -> bool:
    """Return True: a rank is ready when its program begins."""
    return True


def Finalize() -> None:
    """Say that this rank sends and receives no more; later calls raise ClosedError. A program need not."""
    comm().close()


def Is_finalized() -> bool:
    """Return whether `Finalize` was called in this run."""
    return comm().closed


def Get_version() -> tuple[int, int]:
    """Return the version of the MPI standard that the names are taken from."""
    return VERSION, SUBVERSION


def Get_library_version() -> str:
    """Return the name and version of what does the work."""
    return f"klyng_mp {_version()}"


def get_vendor() -> tuple[str, tuple[int, int, int]]:
    """Return the name and version of what does the work, as data."""
    major, minor, micro = (int(number) for number in _version().split(".")[:3])
    return "klyng_mp", (major, minor, micro)


def Get_processor_name() -> str:
    """Return the name of this machine."""
    return hostname()


def Wtime() -> float:
    """Return seconds since some moment, the same for all ranks of a host."""
    return time.perf_counter()


def Wtick() -> float:
    """Return the resolution of `Wtime`, in seconds."""
    return time.get_clock_info("perf_counter").resolution


def Compute_dims(nnodes: int, dims: int | Sequence[int]) -> list[int]:
    """Return the lengths of a grid's dimensions, as near to each other as can be, the longest first.

    Args:
        nnodes: how many points it has.
        dims: how many dimensions, or for each one its length, 0 where it is to be found.

    Raises:
        ValueError: the lengths that are given do not divide ``nnodes``.
    """
    if isinstance(dims, int):
        return compute_dims(nnodes, dims)
    given = list(dims)
    rest = nnodes
    for length in given:
        if length and rest % length:
            raise ValueError(f"Compute_dims(): {given} is no grid of {nnodes} points")
        rest //= length or 1
    if 0 not in given:
        if rest != 1:
            raise ValueError(f"Compute_dims(): {given} is no grid of {nnodes} points")
        return given
    found = iter(compute_dims(rest, given.count(0)))
    return [length or next(found) for length in given]


def end_job(code: int) -> NoReturn:
    """End this process at once, and with it all ranks of its World; the command exits with the code if it is not 0."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code & 0xFF)


def _version() -> str:
    facade: Any = sys.modules[__name__.partition(".")[0]]
    version: str = facade.__version__
    return version
