"""What a transport is: the protocols between it, the endpoint above it, and the wait that serves it.

Layer: transports; nothing here moves anything.

A transport never blocks and starts no thread. It is called with its endpoint's lock held, and calls
the endpoint back from within those calls and from the poller's callbacks. New transport: one file, one
row in `klyng_mp.transports.TRANSPORTS`, one subclass of ``tests/contracts``' ``TransportContract``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from klyng_mp.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.wire.frames import Message

__all__ = ["SENT", "Nowhere", "Poller", "Sink", "Ticket", "Transport", "TransportStatistics"]


class Sink(Protocol):
    """The endpoint, as a transport sees it."""

    def deliver(self, peer: int, message: Message) -> None:
        """Take a message that arrived from ``peer``."""

    def lost(self, peer: int, reason: str) -> None:
        """Note that the connection is at its end and everything that came over it was delivered."""


class Poller(Protocol):
    """The descriptors that the one waiting function watches; ``events`` are ``select.EPOLLIN`` and ``EPOLLOUT``."""

    def register(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(events)`` with the endpoint's lock held whenever something is due at ``fd``."""

    def modify(self, fd: int, events: int) -> None:
        """Change what is watched for."""

    def unregister(self, fd: int) -> None:
        """Watch no longer; to be called before ``fd`` is closed."""

    def attend(self, fd: int, is_quiet: Callable[[bool], bool]) -> None:
        """Ask whether nothing is due at ``fd`` that does not show there, with True before a sleep, until `unregister`.

        Who said yes before a sleep sees to it that whatever is due later shows; or, where nothing can, see `pace`.
        """

    def pace(self, pause: Callable[[float], float]) -> None:
        """Ask before each sleep for how many seconds it may last, out of so many; then ask again who attends."""


class TransportStatistics(NamedTuple):
    """What a transport has done so far; bytes include headers where there are any."""

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    connections: int


class Ticket:
    """The state of one message on its way out. Read it, and call its methods, with the endpoint's lock held.

    Attributes:
        done: it is with the kernel, whole.
        started: a part of it is, so it cannot be withdrawn.
        error: why it never will be, or None.
    """

    __slots__ = ("done", "error", "started")

    def __init__(self, *, done: bool = False) -> None:
        self.done = done
        self.started = done
        self.error: Exception | None = None

    def withdraw(self) -> bool:
        """Take the message back; return False, and change nothing, if a part of it has left."""
        return False

    def keep(self) -> None:
        """Copy what has not left, so that the sender may change its buffers."""


SENT = Ticket(done=True)  # what most sends return: nothing is left to be known of them


class Transport(Protocol):
    """Moves messages between this endpoint and its peers, each sender's in order."""

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """Hand as much as possible to the kernel now and queue the rest; never wait.

        Args:
            peer: the receiver's number.
            message: what to send.
            copy: whether what has to be queued is copied, so that the caller may change its buffers.

        Raises:
            MessageTooLargeError: nothing was sent.
            LocalProtocolError: nothing was sent.
        """

    def drain(self, peer: int) -> None:
        """Deliver all that has arrived from ``peer``, without waiting."""

    def pending(self, peer: int | None = None) -> int:
        """Return the bytes that are queued for a peer, or for all."""

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """Close the connection and drop what is queued for it; says nothing to the sink.

        Args:
            peer: its number.
            dead: its process has ended, so nobody is there to be told, and its successor must not be.
        """

    def close(self) -> None:
        """Close every connection and descriptor; may be called again."""

    def abandon(self) -> None:
        """In a forked child: close its copies of the descriptors and tell nobody."""

    def statistics(self) -> TransportStatistics:
        """Return what it has done so far."""

    def traffic(self) -> dict[int, tuple[int, int]]:
        """Return how many messages have left, whole, for each peer, and how many bytes of any; also for lost peers."""


class Nowhere:
    """The transport of an endpoint that has no peers: whatever is sent raises."""

    def send(self, peer: int, message: Message, *, copy: bool) -> Ticket:
        """See `Transport.send`."""
        del message, copy
        raise ClosedError(f"there is no way to {peer}: this rank is alone")

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""

    def pending(self, peer: int | None = None) -> int:
        """See `Transport.pending`."""
        del peer
        return 0

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`."""

    def close(self) -> None:
        """See `Transport.close`."""

    def abandon(self) -> None:
        """See `Transport.abandon`."""

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        return TransportStatistics(0, 0, 0, 0, 0)

    def traffic(self) -> dict[int, tuple[int, int]]:
        """See `Transport.traffic`."""
        return {}
