"""The communicator keeps its contract on every transport, and what is its own."""

from __future__ import annotations

import enum

import pytest
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, ranks

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.requests import Status
from klyng_mp.errors import DeadlineError, PeerLostError
from klyng_mp.wire.codec import Codec


class TestByMemory(CommunicatorContract):
    transport = "memory"


class TestByStream(CommunicatorContract):
    transport = "stream"


class Word(enum.StrEnum):
    GREETING = "greeting"


class Number(enum.IntEnum):
    SEVEN = 7


@pytest.mark.parametrize(("tag", "plain"), [(Word.GREETING, "greeting"), (Number.SEVEN, 7)])
def test_tags_of_enums_are_plain_for_the_receiver(tag, plain):
    with ranks(2) as made:
        sender, receiver = made.comms
        sender.send("x", 1, tag)
        status = Status()
        assert receiver.recv(0, plain, status=status) == "x"
        assert type(status.tag) is type(plain)


def test_ranks_are_numbers_in_the_group_and_not_of_endpoints():
    endpoint = Endpoint(5)
    comm = Communicator(endpoint, Codec(main_by_reference=True), context=1 << 32, rank=1, members=[9, 5])
    status = Status()
    comm.send("me", 1, "t")
    assert comm.recv(1, status=status) == "me"
    assert status.source == 1
    assert repr(comm) == "<Communicator rank 1 of 2>"
    assert repr(status) == f"Status(source=1, tag='t', count={status.count})"
    endpoint.close()


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


def test_the_only_rank_is_told_that_it_is():
    with ranks(1) as made, pytest.raises(ValueError, match="dest must be only 0, for this World has one rank, not 1"):
        made.comms[0].send("x", 1)


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
