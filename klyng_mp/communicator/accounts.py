"""What an endpoint has done, and for how long it has waited: numbers, for whoever asks.

Layer: communicator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.communicator.carrying import Carrying
from klyng_mp.wire.frames import is_collective
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from klyng_mp.wire.frames import Message

__all__ = ["Accounts", "EndpointStatistics"]


class EndpointStatistics(NamedTuple):
    """What an endpoint has done and holds; bytes are those on the wire."""

    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    connections: int
    dropped: int
    waiting: int


class Accounts(Carrying):
    """What an endpoint counts; see `Membership` for its arguments and attributes."""

    def sent_counts(self) -> dict[int, int]:
        """Return how many messages of users (not of collectives) went to whom since `begin_run`."""
        with self._room.lock:
            if self.port is not None:
                for peer, count in self.port.take_counts().items():
                    self._sent[peer] += count
            return dict(self._sent)

    def unreceived(self, low: int, high: int) -> list[Message]:
        """Return users' messages with low <= context < high that nobody has received, in the order of arrival."""
        with self._room.lock:
            return [message for message in self.mailbox.waiting(low, high) if not is_collective(message.context)]

    def statistics(self) -> EndpointStatistics:
        """Return what it has done so far and what it holds."""
        with self._room.lock:
            moved = self._transport.statistics()
            dropped = self._dropped + self.mailbox.dropped + (0 if self.port is None else self.port.dropped)
            return EndpointStatistics(*moved, dropped, len(self.mailbox))

    def pending(self) -> int:
        """Return the bytes that are queued for the peers whose places are known, so not those for a driver."""
        with self._room.lock:
            return sum(self._transport.pending(peer) for peer in self.incarnations)

    def traffic(self) -> dict[int, tuple[int, int]]:
        """Return how many messages, and how many bytes on the wire, have left for whom; see `Transport.traffic`."""
        with self._room.lock:
            return self._transport.traffic()

    def waited(self) -> dict[int, tuple[int, int]]:
        """Return how many nanoseconds were waited for whom, and how often this process went to sleep for it.

        Where it is not known whom a wait was for, or anybody would do, it is ANY_SOURCE. What the core spins before it
        sleeps counts as time, and not as a sleep; but for the first microseconds, which count nowhere.
        """
        with self._room.lock:
            spent = [(ANY_SOURCE if on is None else on, *spent) for on, spent in self._room.waited.items()]
            if self.port is not None:
                spent += [(peer, nanoseconds, 0) for peer, nanoseconds in self.port.spins().items()]
            waited: dict[int, tuple[int, int]] = {}
            for peer, nanoseconds, waits in spent:
                before = waited.get(peer, (0, 0))
                waited[peer] = before[0] + nanoseconds, before[1] + waits
            return waited
