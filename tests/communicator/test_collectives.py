"""The collectives keep their contract on every transport, and cost what they say."""

from __future__ import annotations

import math

import pytest
from contracts.collectives import SIZES, CollectivesContract
from contracts.ranks import ranks

from klyng_mp import native


class TestByMemory(CollectivesContract):
    transport = "memory"


class TestByStream(CollectivesContract):
    transport = "stream"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
class TestByShm(CollectivesContract):
    transport = "shm"


def messages(made):
    return sum(endpoint.statistics().messages_sent for endpoint in made.endpoints)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("call", "cost"),
    [
        (lambda comm: comm.barrier(), lambda size: size * math.ceil(math.log2(size))),
        (lambda comm: comm.bcast(1, comm.size - 1), lambda size: size - 1),
        (lambda comm: comm.gather(1, comm.size - 1), lambda size: size - 1),
    ],
    ids=["barrier", "bcast", "gather"],
)
def test_cost(size, call, cost):
    with ranks(size) as made:
        made.run(call)
        assert messages(made) == cost(size)


def test_bcast_encodes_once():
    with ranks(7) as made:
        encoded = []

        class Counting:
            def encode(self, obj):
                encoded.append(obj)
                return codec.encode(obj)

            def decode(self, *parts):
                return codec.decode(*parts)

        codec = made.comms[0].codec
        for comm in made.comms:
            comm.codec = Counting()
        assert made.run(lambda comm: comm.bcast("x" if comm.rank == 3 else None, 3)) == ["x"] * 7
        assert encoded == ["x"]
