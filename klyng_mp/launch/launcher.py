"""How a rank's process is made: the contract of a launcher, and the two that exist here.

Layer: launch. A launcher turns a Place into a running process and returns its id; it supervises
nothing. To add one, write a class with ``launch`` and a row where launchers are chosen (zygote.py).
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

from klyng_mp.launch.surroundings import adopt

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.launch.spec import RankSpec

__all__ = ["ForkLauncher", "Launcher", "Place", "SpawnLauncher", "interpreter_command"]


class Place:
    """One rank's place in a World, and the descriptors that its process starts with.

    Attributes:
        spec: its surroundings.
        rank, incarnation: which place, and the how-manieth occupant of it.
        incarnations: the occupants of the other places that are not the first.
        channel: to the supervisor (seqpacket).
        leash: a pipe whose other end only the supervisor holds: its end is the end of the rank.
        streams: standard input, output and error.
        driver: stream socket to the driver, or None where there is none.
    """

    __slots__ = ("channel", "driver", "incarnation", "incarnations", "leash", "rank", "spec", "streams")

    def __init__(self, spec: RankSpec, rank: int, incarnation: int) -> None:
        self.spec = spec
        self.rank = rank
        self.incarnation = incarnation
        self.incarnations: dict[int, int] = {}
        self.channel = -1
        self.leash = -1
        self.streams = (-1, -1, -1)
        self.driver: int | None = None

    def fds(self) -> list[int]:
        """Return all its descriptors."""
        return [self.channel, self.leash, *self.streams, *(() if self.driver is None else (self.driver,))]


class Launcher(Protocol):
    """Makes processes of ranks."""

    def launch(self, place: Place) -> int:
        """Start the process of ``place`` and return its id; the caller closes its copies of the descriptors."""


class ForkLauncher:
    """Forks the calling process; the child runs ``body(place)`` and nothing else."""

    def __init__(self, body: Callable[[Place], NoReturn]) -> None:
        self._body = body

    def launch(self, place: Place) -> int:
        """Fork; in the child this never returns."""
        adopt(place.spec)
        pid = os.fork()
        if pid == 0:
            try:
                self._body(place)
            except BaseException:  # noqa: BLE001 - the last frame of this process: nobody else can tell of it
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(70)  # the body ends its process itself; this is for when it could not
        return pid


class SpawnLauncher:
    """Starts a fresh interpreter for each rank."""

    def launch(self, place: Place) -> int:
        """Start an interpreter that reads its place from a file without a name."""
        from multiprocessing.util import spawnv_passfds  # noqa: PLC0415 - only ranks by spawn need it

        memfd = os.memfd_create("klyng-place", os.MFD_CLOEXEC)
        with open(memfd, "wb") as file:
            pickle.dump(place, file, protocol=5)
            file.flush()
            command = interpreter_command("klyng_mp.launch.rank", "spawned", [memfd])
            pid: int = spawnv_passfds(os.fsencode(sys.executable), command, sorted((memfd, *place.fds())))
        return pid


def interpreter_command(module: str, function: str, numbers: list[int]) -> list[str]:
    """Return the command line of an interpreter like this one that calls ``module.function(*numbers)``.

    The interpreter finds klyng_mp where this one did, whatever its own path says, and nothing in
    the current directory can take a standard module's place.
    """
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # noqa: PLC0415 - heavy

    package_folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    arguments = ", ".join(map(str, numbers))
    code = (
        f"import sys; sys.path[:] = [p for p in sys.path if p] + [{package_folder!r}]; "
        f"from {module} import {function}; {function}({arguments})"
    )
    return [sys.executable, *_args_from_interpreter_flags(), "-c", code]
