"""A segment for tests, and the transports of some of its ranks in this process."""

from __future__ import annotations

import os

from klyng_mp.transports.shm import Segment, ShmTransport


class Shared:
    """A segment, and the transports of its ranks."""

    def __init__(self, ranks=2):
        self.segment = Segment(ranks)
        self.ranks = ranks
        self.calls = []

    def join(self, side, *, incarnation=3, known_bells=False):
        def call(peer):
            self.calls.append((side.number, peer))
            self.segment.ring(peer)
            side.transport.learn_bell(peer, os.dup(self.segment.bells[peer]))

        place = os.dup(self.segment.fd), os.dup(self.segment.bells[side.number]), self.ranks, side.number, incarnation
        side.transport = ShmTransport(side, side.poller, place=place, spin=False, call=call, progress=side.turn)

    def close(self):
        self.segment.close()
