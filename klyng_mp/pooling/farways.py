"""The ways between a pool and workers that are processes of a World with hosts: a channel of the job to each.

Layer: pooling; imports seats and trays. Knows no network: the World dials, and a worker's process claims.

Invariants: the transport is used with the desk's lock held. What is sent to a worker before its channel is open waits
in the transport.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.deadline import Deadline
from klyng_mp.launch.started import bequeath, claim_channel
from klyng_mp.pooling.seats import OPEN_WAYS, WorkerTransport, open_stream
from klyng_mp.pooling.trays import TrayContent, make_tray, map_tray, read_tray
from klyng_mp.transports.stream import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.pooling.desk import Desk
    from klyng_mp.transports.contract import Poller, Sink

__all__ = ["Dialler", "FarSeat", "FarWays"]

_CLAIM_SECONDS = 30.0  # in which a channel is open that leads to a process that has begun


class Dialler(Protocol):
    """A World with hosts, as far as a pool's channels go."""

    def next_channel(self) -> int:
        """Return a number that no channel has had."""

    def dial(self, process: Any, number: int, opened: Callable[[Any, str], None]) -> None:
        """Open a channel to a process; ``opened`` gets a socket and "", or None and the reason."""

    def left_by(self, process: Any) -> bytes:
        """Return what a process that has ended has left, once."""

    def place_of(self, process: Any) -> tuple[int, str]:
        """Return the rank and the host of a process that lives, or -1."""

    def loss_of(self, rank: int) -> str:
        """Return why the host of a rank is lost, or an empty text."""

    def has_place(self) -> bool:
        """Whether another process could be started now; raises why none ever can."""

    @property
    def has_guests(self) -> bool:
        """Whether its processes are guests in ranks, which go on after them."""


class FarSeat:
    """A worker's place; see `klyng_mp.pooling.seats.Seat`. It is made of numbers only, so it travels to any host.

    Attributes:
        channel: the number of the channel.
        is_guest: whether the worker's process goes on after it.
    """

    shares_memory = False

    def __init__(self, place: int, incarnation: int, channel: int, *, is_guest: bool) -> None:
        self.place = place
        self.incarnation = incarnation
        self.channel = channel
        self.is_guest = is_guest

    def open(self, sink: Sink, poller: Poller) -> WorkerTransport:
        """Return the worker's transport, once the channel is open.

        Raises:
            LaunchError: it was not opened in time.
        """
        sock = claim_channel(self.channel, Deadline(_CLAIM_SECONDS))
        fd = make_tray()
        try:
            bequeath(fd)
            return open_stream(sink, poller, sock, map_tray(fd))
        finally:
            os.close(fd)


class FarWays:
    """A channel to each worker.

    Attributes:
        can_be_cut: whether a channel that ends before its process means that the worker cannot be reached any more;
            that of a guest ends before.
    """

    ledger: Any = None

    def __init__(self, sink: Sink, desk: Desk, world: Dialler) -> None:
        self._sink = sink
        self._desk = desk
        self._world = world
        self._numbers: dict[int, int] = {}
        self._processes: dict[int, Any] = {}
        self._places: dict[int, tuple[int, str]] = {}
        self._opened: dict[int, int] = {}  # the channel of each place that was opened last
        self.has_place = world.has_place
        self.can_be_cut = not world.has_guests
        self.transport = StreamTransport(sink, desk.poller, connect=_await_channel)
        OPEN_WAYS.add(self)

    def seat(self, place: int, incarnation: int) -> FarSeat:
        """Return what the next worker at a place is given."""
        number = self._numbers[place] = self._world.next_channel()
        return FarSeat(place, incarnation, number, is_guest=self._world.has_guests)

    def seated(self, place: int, process: Any) -> None:
        """Open the channel to a worker that was started."""
        self._processes[place] = process
        self._places[place] = self._world.place_of(process)
        number = self._numbers[place]
        self._world.dial(process, number, partial(self._take, place, number))

    def is_open(self, place: int) -> bool:
        """Tell whether more may come from a worker, although it has ended."""
        return self._opened.get(place) == self._numbers.get(place) and self.transport.is_known(place)

    def fate_of(self, place: int) -> tuple[str, str]:
        """Return where a worker was, and why its host is lost, if it is."""
        rank, host = self._places.get(place, (-1, ""))
        return (f"rank {rank} on {host}", self._world.loss_of(rank)) if rank >= 0 else ("", "")

    def left_by(self, place: int) -> TrayContent | None:
        """Return what a worker that has ended has left; None: nobody knows."""
        data = self._world.left_by(self._processes[place])
        return read_tray(data) if data else None

    def close(self) -> None:
        """Close everything."""
        OPEN_WAYS.discard(self)
        self._numbers.clear()
        self.transport.close()

    def abandon(self, seat: object) -> None:
        """In a forked child: close its copies."""
        del seat
        OPEN_WAYS.discard(self)
        self.transport.abandon()

    def _take(self, place: int, number: int, sock: Any, reason: str) -> None:
        """A channel is open, or will never be; in a thread of the World's."""
        with self._desk.lock:
            wanted = self._numbers.get(place) == number
            if sock is None:
                if wanted and self.transport.is_known(place):
                    self.transport.give_up(place, reason)
                elif wanted:
                    self._sink.lost(place, reason)
            elif wanted:
                self._opened[place] = number
                self.transport.adopt(place, sock)
            else:
                sock.close()


def _await_channel(place: int) -> None:
    """Let what is sent to a worker wait until its channel is open."""
    del place
