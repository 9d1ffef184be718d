"""Messages through MPI: between ranks that an MPI launcher has brought to life.

Layer: transports; the only part of klyng_mp, beside the room `cluster`, that calls MPI.

A message goes as one message of MPI, on the communicator of its context (`Comms`), under its own tag if that is a
number which MPI has, so that MPI's matching is ours. Its bytes are a frame within a pickle, of which `pickle` makes a
`Frame` again: the short way (`klyng_mp.cluster.lane`), which sends bare pickles under the same tags, may meet one
where it receives. What arrives here as a bare pickle becomes a message of the codec's kind PICKLE.

Large buffers wait for their receiver: the frame tells their sizes; the receiver posts what they are to be received into
and says so (`CLEAR`); then they go, each as a message of MPI, on a communicator of their own, under a number that the
receiver has chosen. Until then they are the sender's, who may want to copy them and go on.

MPI has no descriptor to sleep on. So who waits looks again and again: at once, or after giving the processor to others,
as long as that was not in vain for a while, and then every millisecond.

Invariants: what a peer sent is delivered in its order, also where a large message is followed by small ones; MPI is
called with the endpoint's lock held.
"""

from __future__ import annotations

import os
from operator import ge
from typing import TYPE_CHECKING

from klyng_mp.transports.contract import TransportStatistics
from klyng_mp.transports.mpi_messages import Patience
from klyng_mp.transports.mpi_natives import MpiNatives
from klyng_mp.transports.mpi_receiving import MpiReceiver
from klyng_mp.transports.mpi_sending import BEFORE, BYE, COLLECTIVE, USERS, Comms, Way, forget_sent

if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import Callable, Mapping

    from klyng_mp.transports.contract import Poller, Sink
    from klyng_mp.wire.frames import Message

__all__ = ["MpiTransport"]


class MpiTransport(MpiReceiver):
    """A transport through MPI; see `MpiSender` for `send` and what it counts.

    Args:
        sink: gets messages and losses.
        poller: is had to look again and again while it sleeps.
        comms: in which this side receives.
        peers: how each of the others is reached, by number.
        context: of the communicator of all ranks, which has `Comms.users` to itself, and `Comms.collective` for its
            collectives.
        spin: whether a core is free to wait on.

    Attributes:
        natives: the collectives of the communicator of all ranks that MPI has itself.
        hear: is given the messages of the context CONTROL that are not for this transport.
    """

    def __init__(
        self,
        sink: Sink,
        poller: Poller,
        *,
        comms: Comms,
        peers: Mapping[int, Way],
        context: int,
        spin: bool,
    ) -> None:
        self._spin = spin
        super().__init__(sink, comms, peers, context)
        self.hear: Callable[[Message], None] = _ignore
        self._poller = poller
        self._patience = Patience(spin=spin)
        # The poller knows this transport by a descriptor, at which nothing ever shows.
        self._handle = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poller.register(self._handle, 0, self._react)
        poller.attend(self._handle, self._is_quiet)
        poller.pace(self._patience.pause)

    def _begin(self) -> None:
        super()._begin()
        self._leaving: dict[int, tuple[int, int]] = {}  # peers that have said goodbye, and what comes before that
        self.natives = MpiNatives(self.comms.natives, spin=self._spin)

    def enter(self, comms: Comms, peers: Mapping[int, Way], context: int) -> None:
        """Move messages through these from now on, and forget those of before; all sides do so."""
        self._leave_rest()
        forget_sent()
        self.comms, self._peers, self._context = comms, peers, context
        self._begin()

    def drain(self, peer: int) -> None:
        """See `Transport.drain`."""
        del peer
        if not self._closed:
            self._react(0)

    def has_arrived(self) -> bool:
        """Whether MPI has a message for this rank, or has taken one from it."""
        return (
            any(self.comms[lane].Iprobe(self.any_rank, self.any_tag) for lane in range(3))
            or any(one.advance() for one in self._sending)
            or any(queue[0].is_here() for queue in self._coming.values())
            or self.natives.advance()
        )

    # -- ends

    def disconnect(self, peer: int, *, dead: bool = False) -> None:
        """See `Transport.disconnect`; MPI has no connection to close."""
        if not self._closed and peer in self._peers and peer not in self._parted:
            if not dead:
                self.say_goodbye(peer)
            self._part_from(peer, "was disconnected from")

    def keep(self, peer: int) -> None:
        """Take note that a peer is there although it has said goodbye: another program has come to its rank."""
        self._leaving.pop(peer, None)
        self.natives.left.pop(peer, None)

    def is_alone(self) -> bool:
        """Whether all peers have said goodbye, and MPI has all that was sent."""
        return not self._sending and self._parted.issuperset(self._peers)

    def close(self) -> None:
        """See `Transport.close`; what MPI has been given goes on."""
        if not self._closed:
            for peer in self._peers:
                self.disconnect(peer)
            self._sending = [one for one in self._sending if not one.advance()]
            self._release()

    def abandon(self) -> None:
        """See `Transport.abandon`; a forked child leaves MPI alone."""
        if not self._closed:
            self._release()

    def statistics(self) -> TransportStatistics:
        """See `Transport.statistics`."""
        met = {peer for counts in (*self._sent, *self._received) for peer, count in counts.items() if count}
        sent = _sum(self._sent) + sum(one.sent(peer) for one in self.passed for peer in self._peers)
        received = _sum(self._received) + sum(one.received(peer) for one in self.passed for peer in self._peers)
        bytes_sent = sum(size for _, size in self._traffic.values())
        return TransportStatistics(sent, received, bytes_sent, self._bytes_received, 0 if self._closed else len(met))

    # -- inside

    def _is_quiet(self, before_sleep: bool) -> bool:
        if self._closed:
            return True
        return not any(self.has_arrived() for _ in range(self._patience.looks if before_sleep else 1))

    def _react(self, _events: int) -> None:
        if self._closed:
            return
        self._patience.renew()
        for lane in range(3):
            for source, data in self._take_from(lane):
                self.take(lane, source, data)
        self._sending = [one for one in self._sending if not self._is_gone(one)]
        for source in list(self._coming):
            self._hand_on(source)
        self.natives.advance()
        for peer in list(self._leaving):
            self._see_off(peer)

    def _obey(self, message: Message) -> None:
        peer = message.source
        if message.tag == BYE:
            users, collective, self.natives.left[peer] = BEFORE.unpack(message.head)
            self._leaving[peer] = users, collective
            self._see_off(peer)
        else:
            self.hear(message)

    def _see_off(self, peer: int) -> None:
        """Tell that a peer is gone, if all that it sent before is delivered."""
        taken = [self._received[lane][peer] + self.passed[lane].received(peer) for lane in (USERS, COLLECTIVE)]
        if peer not in self._coming and all(map(ge, taken, self._leaving[peer])):
            del self._leaving[peer]
            if peer not in self._parted:
                self._part_from(peer, "closed its connection")
                self._sink.lost(peer, "closed its connection")

    def _release(self) -> None:
        self._closed = True
        self._leave_rest()
        self._poller.unregister(self._handle)
        os.close(self._handle)


def _ignore(message: Message) -> None:
    del message


def _sum(counts: list[defaultdict[int, int]]) -> int:
    return sum(sum(one.values()) for one in counts)
