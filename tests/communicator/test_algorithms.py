"""How data moves: whatever ranks have, the outcome is the plain definition's, and the cost what the docstring says."""

from __future__ import annotations

import math
import operator

import pytest
from contracts.clocks import counted
from contracts.definitions import DEFINITIONS, LISTS, REDUCTIONS, call, plain
from contracts.ranks import LIMIT, ranks
from contracts.worlds import Worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.communicator.algorithms import LARGE_BYTES

numpy = pytest.importorskip("numpy")

MOVING = sorted(set(DEFINITIONS) - REDUCTIONS - {"barrier"})
SIZES = [1, 2, 3, 4, 5, 7, 8, 16, 33, 64]

arrays = st.builds(
    lambda count, dtype, start: numpy.arange(start, start + count).astype(dtype),
    st.sampled_from([0, 1, 5, 3000, 8192, 8193, 70_000]),
    st.sampled_from(["i8", "f8", "u1", "c16"]),
    st.integers(0, 100),
)
things = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=3), arrays,
    st.sampled_from([b"", b"x" * LARGE_BYTES, "y" * (LARGE_BYTES + 1), bytearray(600_000), [0] * 5000]),
)  # fmt: skip


def rounds(size):
    return math.ceil(math.log2(size))


@pytest.mark.parametrize("name", MOVING)
def test_the_outcome_is_the_definitions(name):
    with Worlds() as worlds:

        @settings(max_examples=15, deadline=None, database=None)
        @given(st.data())
        def check(data):
            size = data.draw(st.integers(1, 7))
            root = data.draw(st.integers(0, size - 1))
            thing = st.lists(things, min_size=size, max_size=size) if name in LISTS else things
            objs = data.draw(st.lists(thing, min_size=size, max_size=size))
            start = data.draw(st.booleans())

            def body(comm):
                done = call(comm, name, objs[comm.rank], root, start=start)
                return done.wait(LIMIT) if start else done

            got = worlds[size].run(body)
            assert [plain(one) for one in got] == [plain(one) for one in DEFINITIONS[name](objs, root, operator.add)]

        check()


@pytest.mark.parametrize("size", [8, 11, 16])
def test_a_large_object_is_scattered_to_many(size):
    things = [
        bytes(range(256)) * 2048,
        numpy.arange(80_000.0),
        [numpy.arange(50_000), {"more": numpy.arange(40_000)}, "and", numpy.arange(3)],
    ]
    with ranks(size, "memory") as made, counted() as cost:
        for thing in things:
            for root in (0, size - 2):
                for start in (False, True):
                    cost.clear()

                    def body(comm, thing=thing, root=root, start=start):
                        done = call(comm, "bcast", thing, root, start=start)
                        return done.wait(LIMIT) if start else done

                    got = made.run(body)
                    assert all(plain(one) == plain(thing) for one in got)
                    assert got[root] is thing
                    if not start:
                        assert cost.depth <= rounds(size) + size
                        assert cost.total == (size - 1) + (size - 1) + size * (size - 1)


# What the docstrings say of n ranks: messages, and rounds at most.
COSTS = {
    "barrier": (lambda comm: comm.barrier(), lambda n: n * rounds(n), rounds),
    "bcast": (lambda comm: comm.bcast(1, comm.size - 1), lambda n: n - 1, rounds),
    "scatter": (lambda comm: comm.scatter([1] * comm.size, comm.size // 2), lambda n: n - 1, lambda n: 1),
    "gather": (lambda comm: comm.gather(1, comm.size // 2), lambda n: n - 1, lambda n: 1),
    "allgather": (lambda comm: comm.allgather(1), lambda n: n * rounds(n), rounds),
    "allgather of large": (
        lambda comm: comm.allgather(bytes(LARGE_BYTES)),
        lambda n: n * rounds(n) + (n * (n - 1) if n > 2 else 0),
        lambda n: rounds(n) + n - 1,
    ),
    "allgather of one large": (
        lambda comm: comm.allgather(bytes(LARGE_BYTES) if comm.rank == 1 else b""),
        lambda n: n * rounds(n) + (n - 1 if n > 2 else 0),
        lambda n: rounds(n) + n - 1,
    ),
    "alltoall": (lambda comm: comm.alltoall([1] * comm.size), lambda n: n * (n - 1), lambda n: 1),
    "alltoall of large": (
        lambda comm: comm.alltoall([bytes(LARGE_BYTES)] * comm.size),
        lambda n: n * (n - 1),
        lambda n: n - 1,
    ),
    "split": (lambda comm: comm.split(comm.rank % 2), lambda n: n * rounds(n), rounds),
}


@pytest.mark.parametrize("size", SIZES)
def test_cost(size):
    with ranks(size, "memory") as made, counted() as cost:
        for name, (action, messages, most_rounds) in COSTS.items():
            if size > 16 and "large" in name:
                continue
            cost.clear()
            made.run(action)
            assert cost.total == messages(size), name
            assert cost.depth <= most_rounds(size), name


def test_bytes_of_an_allgather():
    """Each large object goes to each rank once."""
    with ranks(4, "memory") as made:
        before = sum(endpoint.statistics().bytes_sent for endpoint in made.endpoints)
        made.run(lambda comm: comm.allgather(bytes(LARGE_BYTES)))
        sent = sum(endpoint.statistics().bytes_sent for endpoint in made.endpoints) - before
        assert 12 * LARGE_BYTES < sent < 12.5 * LARGE_BYTES


@pytest.mark.parametrize("transport", ["memory", "stream", "shm"])
def test_what_comes_is_the_receivers_own(transport):
    if transport == "shm":
        pytest.importorskip("klyng_mp.native").core or pytest.skip("the native core is not in use")
    for size in (4, 9):
        with ranks(size, transport) as made:
            for action in (
                lambda comm: comm.bcast(numpy.zeros(100_000) if comm.rank == 0 else None),
                lambda comm: comm.allgather(numpy.zeros(100_000))[0],
                lambda comm: comm.allreduce(numpy.zeros(100_000)),
                lambda comm: comm.ibcast(numpy.zeros(100_000) if comm.rank == 0 else None).wait(LIMIT),
            ):
                got = made.run(action)
                for rank, own in enumerate(got):
                    own[:] += rank + 1
                assert all((own == rank + 1).all() for rank, own in enumerate(got))


def test_who_has_nothing_to_pass_on_leaves_early():
    """A leaf of the tree needs only its parent, and the root nobody."""
    with ranks(4, "memory") as made:
        root, leaf = made.comms[0], made.comms[1]
        root.bcast("x", timeout=LIMIT)
        assert leaf.bcast(timeout=LIMIT) == "x"
        assert root.scatter([1, 2, 3, 4], timeout=LIMIT) == 1
        assert leaf.scatter(timeout=LIMIT) == 2
