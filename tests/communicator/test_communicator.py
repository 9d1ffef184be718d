"""The communicator keeps its contract on every transport, and what is its own."""

from __future__ import annotations

import pytest
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, ranks

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.errors import DeadlineError, PeerLostError


class TestByMemory(CommunicatorContract):
    transport = "memory"


class TestByStream(CommunicatorContract):
    transport = "stream"


def test_two_communicators_of_one_endpoint_do_not_meet():
    with ranks(2) as made:
        sender, receiver = made.comms
        others = [
            Communicator(c.endpoint, c.codec, context=c.context + 2, rank=c.rank, members=range(2)) for c in made.comms
        ]
        sender.send("first", 1)
        others[0].send("second", 1)
        assert others[1].recv(0, timeout=LIMIT) == "second"
        assert receiver.recv(0, timeout=LIMIT) == "first"


def test_any_source_is_anybody_of_the_group():
    with ranks(3) as made:
        endpoint, codec = made.endpoints[0], made.comms[0].codec
        group = Communicator(endpoint, codec, context=made.comms[0].context + 2, rank=0, members=[0, 1])
        made.endpoints[1].close()
        for call in (group.recv, group.irecv().wait, group.probe):
            with pytest.raises(PeerLostError, match="every other rank is gone"):
                call(timeout=LIMIT)
        with pytest.raises(DeadlineError):
            made.comms[0].recv(timeout=0)  # of all three, one is left
