"""The communicator keeps its contract on every transport, and what is its own."""

from __future__ import annotations

import inspect
import re

import pytest
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, ranks

from klyng_mp.communicator import algorithms, reducing
from klyng_mp.communicator.collectives import Collectives
from klyng_mp.communicator.collectives_into import CollectivesInto
from klyng_mp.communicator.communicator import Cartesian, Communicator
from klyng_mp.communicator.requests import waitall
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


# -- what each method says of itself ---------------------------------------------------------------

AT_ONCE = {  # methods that wait for nothing
    "alone", "check_open", "check_rank", "close", "coords_of", "improbe", "iprobe", "irecv", "isend", "issend",
    "rank_at", "rank_of", "shift",
    *(f"i{name}" for name in vars(Collectives) if not name.startswith("_")),
}  # fmt: skip
METHODS = [
    name
    for name, value in inspect.getmembers(Cartesian)
    if not name.startswith("_") and callable(value) and hasattr(value, "__qualname__")
]
MADE_TOGETHER = [
    name
    for name in METHODS
    if name.removeprefix("i") in vars(Collectives)
    or name in vars(Collectives)
    or name in vars(CollectivesInto)
    or name in ("split", "dup", "create", "create_cart", "sub")
]


def cost_of(docstring):
    """Return whether a docstring tells the cost, or names what does."""
    if "Cost:" not in docstring:
        return any(cost_of(getattr(Communicator, name).__doc__) for name in re.findall(r"`(\w+)`", docstring))
    named = re.search(r"Cost: (?:see|that of an) `(?:(\w+)\.)?(\w+)`", docstring)
    if named is None:
        return True
    home = {"algorithms": algorithms, "reducing": reducing}.get(named[1], Communicator)
    return cost_of(getattr(home, named[2]).__doc__)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_timeout_or_waits_for_nothing(name):
    has = "timeout" in inspect.signature(getattr(Cartesian, name)).parameters
    assert has != (name in AT_ONCE)
    if has:
        assert inspect.signature(getattr(Cartesian, name)).parameters["timeout"].default is None


def test_these_are_all_collectives():
    assert len(MADE_TOGETHER) == 11 + 11 + 10 + 5


@pytest.mark.parametrize("name", MADE_TOGETHER)
def test_a_collective_tells_its_cost(name):
    assert cost_of(getattr(Cartesian, name).__doc__)


# -- communicators that are made -------------------------------------------------------------------

MAKERS = {
    "split": lambda comm, **timeout: comm.split(0, **timeout),
    "dup": lambda comm, **timeout: comm.dup(**timeout),
    "create": lambda comm, **timeout: comm.create(comm.group, **timeout),
    "create_cart": lambda comm, **timeout: comm.create_cart([2], **timeout),
}


@pytest.mark.parametrize("name", MAKERS)
def test_who_is_left_alone_makes_none_and_the_next_ones_are_apart(name):
    with ranks(2) as made:
        one, other = made.comms
        with pytest.raises(DeadlineError, match=rf"^{name}\(\) did not finish within"):
            MAKERS[name](one, timeout=0)
        late = MAKERS[name](other, timeout=LIMIT)  # it has what it needs
        assert late.size == 2
        for maker in MAKERS.values():

            def body(comm, maker=maker):
                new = maker(comm, timeout=LIMIT)
                assert new.context not in (comm.context, late.context)
                return new.allgather((comm.rank, new.rank), timeout=LIMIT)

            assert made.run(body) == [[(0, 0), (1, 1)]] * 2


def test_those_with_a_rank_in_common_have_contexts_of_their_own():
    with ranks(4) as made:

        def body(comm):
            pairs = [comm.split(None if comm.rank not in pair else 1) for pair in ((0, 1), (2, 3), (1, 2))]
            deeper = [pair and pair.dup() for pair in pairs]
            return [one.context for one in (comm, *pairs, *deeper) if one is not None]

        for contexts in made.run(body):
            assert len(set(contexts)) == len(contexts)


def test_many_can_be_made_and_end_with_the_run():
    with ranks(2) as made:

        def body(comm):
            last = comm
            for number in range(100):
                last = last.dup()
                assert last.allreduce(number) == 2 * number
            started = [last.ibarrier(), comm.ibarrier()]
            waitall(started, LIMIT)
            return last.context

        first, second = made.run(body)
        assert first == second
        for comm in made.comms:
            comm.endpoint.begin_run(comm.context + (1 << 32))
            assert comm.endpoint.free_index == 1


def test_a_grids_copy_without_points_is_no_grid():
    with ranks(1) as made:
        cart = made.comms[0].create_cart([])
        assert (cart.size, cart.dims, cart.coords, cart.sub([]).dims) == (1, (), (), ())
        with pytest.raises(ValueError, match="coords_of: rank must be"):
            cart.coords_of(1)


def test_a_communicator_of_this_rank_alone_needs_nobody():
    with ranks(2) as made:
        alone = made.comms[1].alone()
        again = made.comms[1].alone()
        assert (alone.rank, alone.size, alone.members) == (0, 1, [1])
        alone.send("mine", 0)
        again.send("mine too", 0)
        made.comms[0].send("yours", 1)
        assert again.recv(timeout=LIMIT) == "mine too"
        assert alone.recv(timeout=LIMIT) == "mine"
        assert made.comms[1].recv(timeout=LIMIT) == "yours"
        assert alone.allreduce(5, timeout=LIMIT) == 5
        duplicates = made.run(lambda comm: comm.dup(timeout=LIMIT).context)
        assert duplicates[0] == duplicates[1]
        assert duplicates[0] not in {alone.context, again.context}
