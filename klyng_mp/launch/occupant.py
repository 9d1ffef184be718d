"""The process that fills a place, or was started without one, as its supervisor sees it.

Layer: launch.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from klyng_mp.launch.launcher import Body
    from klyng_mp.launch.loop import Loop

__all__ = ["ESTATE_BYTES", "Occupant", "StartedProcess"]

ESTATE_BYTES = 1 << 17  # of what a process leaves: more is not read


class StartedProcess(NamedTuple):
    """What a supervisor knows of a process that was started to do one thing.

    Attributes:
        serial: counts those of one World.
        name: its own.
        run: the number that the contexts of its communicator are made of.
        no_rank: why it has no rank, or an empty string.
        exit_pipe: where its exit code goes; None where its job's owner tells it.
        task: descriptors of what it is to do, until it has been told.
    """

    serial: int
    name: str
    run: int
    no_rank: str
    exit_pipe: int | None
    task: list[int]


class Occupant:
    """The process that fills a place, as its supervisor sees it."""

    __slots__ = (
        "bells",
        "body",
        "channel",
        "ended_run",
        "estate",
        "exitcode",
        "incarnation",
        "orderly",
        "process",
        "profile",
        "rank",
        "ready",
        "retired",
        "unfit",
    )

    def __init__(self, rank: int, incarnation: int, body: Body, process: StartedProcess | None = None) -> None:
        self.rank = rank
        self.incarnation = incarnation
        self.body = body
        self.process = process  # what it was started as, if it does not serve runs
        self.channel = body.channel
        self.ended_run = 0
        self.bells: set[int] = set()  # which it was sent
        self.ready = False  # it has reached its own main
        self.unfit = ""  # why it could not reach it
        self.orderly = False  # it has said goodbye
        self.retired = False  # it was asked to give way to a process
        self.exitcode: int | None = None
        self.profile: tuple[Any, ...] | None = None  # where its time went, if it was to tell
        self.estate: int | None = None  # a file in memory that tells, when it has ended, how far it had come

    @property
    def alive(self) -> bool:
        """Whether its end has not been seen yet."""
        return self.exitcode is None

    @property
    def holder(self) -> str:
        """The name of the process that it was started as, if it does not serve runs."""
        return "" if self.process is None else self.process.name

    def tell(self, loop: Loop, record: tuple[Any, ...], fds: Sequence[int]) -> None:
        """Send a record to it, at once or when it reads."""
        self.channel.send(*record, fds=fds)
        if self.channel.blocked and loop.watches(self.channel.fileno()):
            loop.modify(self.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def take_note(self, kind: str, value: Any = None) -> None:
        """Keep what the process says of itself."""
        if kind == "ready":
            self.ready = True
        elif kind == "unfit":
            self.unfit = value
        elif kind == "profile":
            self.profile = value
        elif kind == "bequeath":
            self.bequeath(value)

    def bequeath(self, fd: int) -> None:
        """Keep a file that it wants to be read when it has ended; owns the descriptor."""
        if self.estate is not None:
            os.close(self.estate)
        self.estate = fd

    def read_estate(self) -> bytes:
        """Return what is in that file, but for zeros at its end, and close it; nothing where there is none."""
        if self.estate is None:
            return b""
        fd, self.estate = self.estate, None
        data = os.pread(fd, ESTATE_BYTES, 0).rstrip(b"\0")
        os.close(fd)
        return data

    def asks_first(self, bell: int) -> bool:
        """Take note that it asks for a bell, and tell whether for the first time: it asks until it has the answer."""
        known = bell in self.bells
        self.bells.add(bell)
        return not known
