"""The ways between a pool and its workers: shared memory where the core is in use, else a socket for each.

Layer: pooling; imports streambench, trays, transports and communicator's poller.

A `Seat` is what a worker is given to find its way back: descriptors, which it inherits by a fork, or which are
duplicated for it where the start method pickles it.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from klyng_mp.native import core
from klyng_mp.pooling.streambench import StreamBench
from klyng_mp.pooling.trays import TRAY_BYTES, TrayContent, make_tray, map_tray, read_tray
from klyng_mp.reduction import DupFd
from klyng_mp.transports.shm import Segment, ShmTransport
from klyng_mp.transports.stream import StreamTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap

    from klyng_mp.transports.contract import Poller, Sink

__all__ = [
    "OPEN_WAYS",
    "PARENT",
    "CrewTransport",
    "Seat",
    "SharedWays",
    "SocketWays",
    "Ways",
    "WorkerTransport",
    "make_ways",
    "never_connect",
    "open_stream",
    "ring_bytes",
]

PARENT = 0  # its place, and its incarnation

OPEN_WAYS: WeakSet[Any] = WeakSet()  # of this process, or inherited from its parent by a fork

_STREAM_FDS = 2
_RINGS_BYTES = 1 << 32  # of address space; only what is used becomes memory
_LARGEST_RING = 1 << 20
_SMALLEST_RING = 4096


def ring_bytes(places: int) -> int:
    """Return the bytes of one ring: a power of two."""
    share = _RINGS_BYTES // (places * places)
    return min(_LARGEST_RING, max(_SMALLEST_RING, 1 << (share.bit_length() - 1)))


class Seat:
    """A worker's place.

    Attributes:
        place: its number, from 1.
        places: how many there are, with the parent's.
        incarnation: the how-manieth worker at this place.
        fds: (segment, own bell, the parent's bell), or (socket, tray).
        is_guest: see `klyng_mp.pooling.farways.FarSeat`; no worker is one that is started here.
    """

    is_guest = False

    def __init__(self, place: int, places: int, incarnation: int, fds: tuple[int, ...]) -> None:
        self.place = place
        self.places = places
        self.incarnation = incarnation
        self.fds = fds

    @property
    def shares_memory(self) -> bool:
        """Whether the worker shares memory with its parent; else there is a stream."""
        return len(self.fds) > _STREAM_FDS

    def __reduce__(self) -> tuple[Any, ...]:
        if get_spawning_popen() is None:
            raise RuntimeError("a pool's seat can only be given to a process that is being started")
        fds = tuple(DupFd(fd) for fd in self.fds)
        return _take_over, (self.place, self.places, self.incarnation, fds)

    def open(self, sink: Sink, poller: Poller) -> Any:
        """Return the worker's transport, which owns the descriptors from now on; a stream's has a bench, too."""
        if not self.shares_memory:
            tray = map_tray(self.fds[1])
            os.close(self.fds[1])
            return open_stream(sink, poller, socket.socket(fileno=self.fds[0]), tray)
        segment, own, parent = self.fds
        place = (segment, own, self.places, self.place, self.incarnation)
        shm = CrewTransport(sink, poller, place)
        shm.bench = core.Bench(shm.port)
        shm.learn_bell(PARENT, parent)
        return shm


def _take_over(place: int, places: int, incarnation: int, fds: tuple[Any, ...]) -> Seat:
    taken = tuple(fd.detach() for fd in fds)
    for fd in taken:
        os.set_inheritable(fd, False)  # what the worker starts is no worker
    return Seat(place, places, incarnation, taken)


def open_stream(sink: Sink, poller: Poller, sock: Any, tray: mmap) -> WorkerTransport:
    """Return a worker's transport over a socket to its parent, which is owned from now on."""
    transport = WorkerTransport(sink, poller, connect=never_connect)
    transport.bench = StreamBench(tray)
    transport.adopt(PARENT, sock)
    return transport


def never_connect(peer: int) -> None:
    """Refuse to connect: ways are opened otherwise."""
    raise OSError(f"there is no way to {peer}")


class WorkerTransport(StreamTransport):
    """A worker's side of a stream.

    Attributes:
        bench: its tasks and answers.
    """

    bench: Any = None


class CrewTransport(ShmTransport):
    """A pool's side, or a worker's, of the shared memory.

    Attributes:
        ledger: in the parent, reads the rings and enters results.
        bench: in a worker, does tasks.
    """

    def __init__(self, sink: Sink, poller: Poller, place: tuple[int, int, int, int, int]) -> None:
        self.ledger: Any = None
        self.bench: Any = None
        self._unread: deque[Any] = deque()  # what an interrupt has kept from being delivered
        super().__init__(sink, poller, place=place, spin=True, call=never_connect, progress=_nothing)

    @staticmethod
    def ring_size(ranks: int) -> int:
        """See `ShmTransport.ring_size`."""
        return ring_bytes(ranks)

    def look(self) -> None:
        """Take all that is there, and send on what waits for room."""
        self._receive(None)
        if self._outboxes:
            for peer, outbox in list(self._outboxes.items()):
                self._flush(peer, outbox)

    def _receive(self, peer: int | None) -> int:
        if self.ledger is None:
            return super()._receive(peer)
        items = self.ledger.read(peer)
        self._unread.extend(items)
        while self._unread:
            self._sink.deliver(-1, self._unread.popleft())
        self._tell_endings()
        return len(items)


def _nothing() -> None:
    """Nobody uses the short way."""


class SharedWays:
    """Shared memory for a pool and its workers.

    Raises:
        OSError: no memory or descriptors; nothing is left.
    """

    can_be_cut = False

    def __init__(self, workers: int, sink: Sink, poller: Poller) -> None:
        self._places = workers + 1
        self._segment = Segment(self._places, ring=ring_bytes(self._places))
        fds = os.dup(self._segment.fd), os.dup(self._segment.bells[PARENT])
        self.transport = CrewTransport(sink, poller, (*fds, self._places, PARENT, PARENT))
        self.transport.ledger = self.ledger = core.Ledger(self.transport.port)
        for place in range(1, self._places):
            self.transport.learn_bell(place, os.dup(self._segment.bells[place]))

    def seat(self, place: int, incarnation: int) -> Seat:
        """Return what the next worker at a place is given."""
        bells = self._segment.bells
        self.ledger.reset(place)
        return Seat(place, self._places, incarnation, (self._segment.fd, bells[place], bells[PARENT]))

    def seated(self, place: int, process: Any) -> None:
        """Take note that the worker has its descriptors."""

    def is_open(self, place: int) -> bool:
        """See `SocketWays.is_open`: what was said is in the segment."""
        del place
        return False

    def fate_of(self, place: int) -> tuple[str, str]:
        """See `SocketWays.fate_of`."""
        del place
        return "", ""

    def left_by(self, place: int) -> TrayContent | None:
        """See `SocketWays.left_by`: the segment says it."""
        del place
        return None

    def close(self) -> None:
        """Close everything."""
        OPEN_WAYS.discard(self)
        self.transport.close()
        self._segment.close()

    def abandon(self, seat: Seat | None) -> None:
        """In a forked child: close its copies, but those of a seat."""
        OPEN_WAYS.discard(self)
        self.transport.abandon()
        for fd in {self._segment.fd, *self._segment.bells} - set(seat.fds if seat else ()):
            os.close(fd)


class SocketWays:
    """A socket to each worker."""

    ledger: Any = None
    can_be_cut = False  # a socket ends with its worker only

    def __init__(self, workers: int, sink: Sink, poller: Poller) -> None:
        self._places = workers + 1
        self._theirs: dict[int, socket.socket] = {}
        self._trays: dict[int, int] = {}
        self.transport = StreamTransport(sink, poller, connect=never_connect)

    def seat(self, place: int, incarnation: int) -> Seat:
        """Return what the next worker at a place is given."""
        if place in self._trays:
            os.close(self._trays.pop(place))
        self._trays[place] = tray = make_tray()
        ours, theirs = socket.socketpair()
        self.transport.adopt(place, ours)
        self._theirs[place] = theirs
        return Seat(place, self._places, incarnation, (theirs.fileno(), tray))

    def seated(self, place: int, process: Any = None) -> None:
        """Take note that the worker has its descriptors."""
        del process
        self._theirs.pop(place).close()

    def is_open(self, place: int) -> bool:
        """Tell whether more may come from a worker, although it has ended."""
        return self.transport.is_known(place)

    def fate_of(self, place: int) -> tuple[str, str]:
        """Return where a worker was, and why its host is lost, if it is; nothing of one that was here."""
        del place
        return "", ""

    def left_by(self, place: int) -> TrayContent | None:
        """Return what a worker that has ended has left; None: nobody knows."""
        return read_tray(os.pread(self._trays[place], TRAY_BYTES, 0))

    def close(self) -> None:
        """Close everything."""
        OPEN_WAYS.discard(self)
        self.transport.close()
        for place in list(self._theirs):
            self.seated(place)
        while self._trays:
            os.close(self._trays.popitem()[1])

    def abandon(self, seat: Seat | None) -> None:
        """In a forked child: close its copies, but those of a seat."""
        OPEN_WAYS.discard(self)
        self.transport.abandon()
        for theirs in self._theirs.values():
            if seat is not None and theirs.fileno() in seat.fds:
                theirs.detach()
            else:
                theirs.close()
        for tray in set(self._trays.values()) - set(seat.fds if seat else ()):
            os.close(tray)


Ways = SharedWays | SocketWays


def make_ways(workers: int, sink: Sink, poller: Poller) -> Ways:
    """Return the ways between a pool and so many workers."""
    make: Callable[..., Ways] = SocketWays if core is None or workers >= core.MAX_RANKS else SharedWays
    ways = make(workers, sink, poller)
    OPEN_WAYS.add(ways)
    return ways
