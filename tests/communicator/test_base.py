"""What a communicator makes of ranks and tags of all kinds."""

from __future__ import annotations

import enum

import pytest
from contracts.ranks import ranks

from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.communicator.requests import Status
from klyng_mp.wire.codec import Codec


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


def test_the_only_rank_is_told_that_it_is():
    with ranks(1) as made, pytest.raises(ValueError, match="dest must be only 0, for this World has one rank, not 1"):
        made.comms[0].send("x", 1)
