"""Counts what collective calls cost: their messages, and the longest chain of messages that wait for each other."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import contextmanager

import pytest

from klyng_mp.communicator.call import Call

__all__ = ["Cost", "counted"]


class Cost:
    """What the calls between two looks at it cost.

    Attributes:
        messages: how many each rank sent, by rank.
        depth: how many messages are in the longest chain in which each was sent after the one before was received.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self.clear()

    def clear(self):
        self.messages = defaultdict(int)
        self.depth = 0
        self._times = defaultdict(int)
        self._on_their_way = defaultdict(deque)

    def sends(self, rank, dest, number):
        with self._lock:
            self.messages[rank] += 1
            self._on_their_way[number, rank, dest].append(self._times[rank] + 1)
            self.depth = max(self.depth, self._times[rank] + 1)

    def receives(self, rank, source, number):
        with self._lock:
            self._times[rank] = max(self._times[rank], self._on_their_way[number, source, rank].popleft())

    @property
    def total(self):
        return sum(self.messages.values())


@contextmanager
def counted():
    """Give the `Cost` of all calls that wait, of whichever ranks of this process."""
    cost = Cost()
    dispatch, receive = Call._dispatch, Call._receive

    def spy_on_dispatch(self, message, peer):
        cost.sends(self.rank, self.comm.rank_of(peer), self.number)
        dispatch(self, message, peer)

    def spy_on_receive(self, source):
        got = receive(self, source)
        cost.receives(self.rank, source if source >= 0 else ~source, self.number)
        return got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "_dispatch", spy_on_dispatch)
        patch.setattr(Call, "_receive", spy_on_receive)
        yield cost
