"""The collectives keep their contract on every transport, and cost what they say."""

from __future__ import annotations

import math

import pytest
from contracts.collectives import SIZES, CollectivesContract
from contracts.play import once, play_at_random
from contracts.ranks import ranks

import klyng_mp as mp
from klyng_mp import native


class TestByMemory(CollectivesContract):
    transport = "memory"


class TestByStream(CollectivesContract):
    transport = "stream"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
class TestByShm(CollectivesContract):
    transport = "shm"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
@pytest.mark.slow
class TestByPlainShm(CollectivesContract):
    """Without the shortcuts through the memory."""

    transport = "plain shm"


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


# -- in processes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_programs_drawn_at_random_go_as_they_should_in_a_world(size):
    with mp.World(size) as world:
        for turn in range(2):  # the second run meets what is left of the first
            assert world.run(play_at_random, range(turn * 4, turn * 4 + 4)) == [[]] * size


def test_sixteen_ranks_make_every_call():
    with mp.World(16) as world:
        assert world.run(once, 70_000) == [[]] * 16


@pytest.mark.slow
def test_many_programs_drawn_at_random_go_as_they_should():
    for size in (2, 3, 4, 5, 8):
        with mp.World(size) as world:
            assert world.run(play_at_random, range(1000, 1060)) == [[]] * size


@pytest.mark.slow
def test_sixty_four_ranks_make_every_call():
    with mp.World(64) as world:
        assert world.run(once, 70_000) == [[]] * 64


def leave_pending():
    """Leave without having waited, and with what nobody answers."""
    comm = mp.comm()
    comm.ibarrier()
    comm.iallreduce([comm.rank])
    if comm.rank == 0:
        comm.ibcast("nobody asks for it")
        comm.irecv(1, "never")


def test_what_nobody_waited_for_does_not_disturb_the_next_run():
    with mp.World(3) as world:
        for _ in range(3):
            world.run(leave_pending)
            assert world.run(once, 70_000) == [[]] * 3
