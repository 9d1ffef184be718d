"""Collectives into buffers: what comes is where it belongs, and what does not fit is refused before it is sent."""

from __future__ import annotations

import array as stdlib
import inspect
import operator
from functools import reduce as fold

import pytest
from contracts.ranks import LIMIT, ranks
from contracts.worlds import Worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp import native
from klyng_mp.communicator.collectives_into import CollectivesInto
from klyng_mp.communicator.reductions import LAND, LOR, MAX, PROD, SUM
from klyng_mp.errors import DeadlineError

numpy = pytest.importorskip("numpy")

TRANSPORTS = ["memory", "stream", pytest.param("shm", marks=pytest.mark.skipif(native.core is None, reason="no core"))]
NAMES = [name for name in vars(CollectivesInto) if name.endswith("_into")]


def plain(name, rows, root):
    """Return what each rank's buffer has then, given its array of as many equal parts as there are ranks."""
    size = len(rows)
    parts = [numpy.split(row, size) for row in rows]
    total = fold(operator.add, rows)
    return {
        "bcast_into": lambda rank: rows[root],
        "scatter_into": lambda rank: parts[root][rank],
        "gather_into": lambda rank: numpy.concatenate(rows) if rank == root else None,
        "allgather_into": lambda rank: numpy.concatenate(rows),
        "alltoall_into": lambda rank: numpy.concatenate([one[rank] for one in parts]),
        "reduce_into": lambda rank: total if rank == root else None,
        "allreduce_into": lambda rank: total,
        "reduce_scatter_into": lambda rank: fold(operator.add, [one[rank] for one in parts]),
        "scan_into": lambda rank: fold(operator.add, rows[: rank + 1]),
        "exscan_into": lambda rank: fold(operator.add, rows[:rank]) if rank else None,
    }[name]


def fill(comm, name, row, root, buffer, **timeout):
    """Make the call with a rank's array and its buffer."""
    if name == "bcast_into":
        comm.bcast_into(row if comm.rank == root else buffer, root, **timeout)
        if comm.rank == root:
            buffer[: row.size] = row
    elif name == "scatter_into":
        comm.scatter_into(row if comm.rank == root else None, buffer, root, **timeout)
    elif name == "gather_into":
        comm.gather_into(row, buffer, root, **timeout)
    elif name == "reduce_into":
        comm.reduce_into(row, buffer, SUM, root, **timeout)
    else:
        getattr(comm, name)(row, buffer, **timeout)


def check(made, name, rows, root):
    size = len(rows)
    expected = [plain(name, rows, root)(rank) for rank in range(size)]
    first = numpy.full(rows[0].size * (size if "gather" in name else 1), 77, rows[0].dtype)

    def body(comm):
        wanted = expected[comm.rank]
        if wanted is None and name != "exscan_into":
            fill(comm, name, rows[comm.rank], root, None, timeout=LIMIT)  # elsewhere than at the root
            return None
        buffer = first[: first.size if wanted is None else wanted.size].copy()
        fill(comm, name, rows[comm.rank], root, buffer, timeout=LIMIT)
        return buffer

    before = [row.copy() for row in rows]
    for got, wanted in zip(made.run(body), expected, strict=True):
        if wanted is None:
            assert got is None or (got == 77).all()
        else:
            assert got.dtype == wanted.dtype
            assert numpy.array_equal(got, wanted)
    assert all((one == other).all() for one, other in zip(before, rows, strict=True))


def test_these_are_all_of_them():
    assert len(NAMES) == 10


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_buffers_are_filled(size, transport):
    with ranks(size, transport) as made:
        for name in NAMES:
            for count, dtype in ((1, "i8"), (0, "f4"), (4000, "f8"), (20_000, "i4")):
                rows = [numpy.arange(count * size, dtype=dtype) * (rank + 1) for rank in range(size)]
                check(made, name, rows, size - 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_outcome_is_the_definitions(name):
    with Worlds() as worlds:

        @settings(max_examples=10, deadline=None, database=None)
        @given(st.data())
        def try_out(data):
            size = data.draw(st.integers(1, 7))
            count = size * data.draw(st.sampled_from([0, 1, 3, 2000, 12_000]))
            dtype = data.draw(st.sampled_from(["i1", "u4", "i8", "f8", "c8"]))
            rows = [numpy.arange(count).astype(dtype) + data.draw(st.integers(0, 9)) for _ in range(size)]
            rows = [row.astype(dtype) for row in rows]
            check(worlds[size], name, rows, data.draw(st.integers(0, size - 1)))

        try_out()


def test_buffers_need_not_be_arrays():
    with ranks(3, "memory") as made:

        def body(comm):
            text, numbers = bytearray(6), stdlib.array("i", [0, 0, 0])
            comm.allgather_into(bytes([65 + comm.rank]) * 2, text)
            comm.gather_into(stdlib.array("i", [comm.rank]), numbers if comm.rank == 1 else None, 1)
            other = bytearray(3)
            comm.alltoall_into(bytes(range(3)), memoryview(other))
            comm.gather_into(memoryview(b"abc")[comm.rank :][:1], text[:3] if comm.rank == 0 else None)
            one = bytearray(1)
            comm.scatter_into(bytearray(b"xyz"), one, 2)
            assert one == b"xyz"[comm.rank : comm.rank + 1]
            comm.bcast_into(text if comm.rank == 0 else (text := bytearray(b"......---")))
            return bytes(text), numbers.tolist(), bytes(other)

        got = made.run(body)
        assert [one[0] for one in got] == [b"AABBCC", b"AABBCC---", b"AABBCC---"]
        assert [one[1] for one in got] == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]
        assert [one[2] for one in got] == [bytes([rank] * 3) for rank in range(3)]


def test_shapes_are_those_of_the_buffers():
    with ranks(4, "memory") as made:

        def body(comm):
            table, row = numpy.zeros((4, 2, 3)), numpy.full((2, 3), comm.rank)
            comm.allgather_into(row.astype(float), table)
            assert (table == numpy.arange(4).reshape(4, 1, 1)).all()
            square = numpy.zeros((2, 2))
            comm.scatter_into(numpy.arange(16.0).reshape(4, 4) if comm.rank == 0 else None, square)
            assert square.ravel().tolist() == [4 * comm.rank + place for place in range(4)]
            point = numpy.zeros(())
            comm.allreduce_into(numpy.array(2.0), point, PROD)
            return point.item()

        assert made.run(body) == [16.0] * 4


@pytest.mark.parametrize("count", [10, 100_000])
def test_an_array_may_be_its_own_buffer(count):
    with ranks(3, "memory") as made:

        def body(comm):
            both = numpy.full(count, comm.rank + 1.0)
            comm.allreduce_into(both, both)
            assert (both == 6).all()
            comm.scan_into(both, both, MAX)
            comm.reduce_into(both, both, SUM, 2)
            return both[0], both[-1]

        assert made.run(body) == [(6, 6), (6, 6), (18, 18)]


def test_a_large_sum_is_made_in_the_buffer():
    with ranks(2, "memory") as made:

        def body(comm):
            buffer = numpy.zeros(100_000)
            address = buffer.__array_interface__["data"]
            comm.allreduce_into(numpy.ones(100_000), buffer)
            return address == buffer.__array_interface__["data"] and (buffer == 2).all()

        assert made.run(body) == [True, True]


def test_truth_becomes_what_the_buffer_has():
    with ranks(2, "memory") as made:

        def body(comm):
            array = numpy.array([0, comm.rank, 5])
            found = []
            for buffer in (numpy.zeros(3, "i8"), numpy.zeros(3, bool), numpy.zeros(3)):
                comm.allreduce_into(array, buffer, LAND)
                found.append(buffer.tolist())
                comm.allreduce_into(array, buffer, LOR)
                found.append(buffer.tolist())
            return found

        assert made.run(body) == [[[0, 0, 1], [0, 1, 1]] * 3] * 2


def read_only(count):
    array = numpy.zeros(count)
    array.setflags(write=False)
    return array


two, six = numpy.zeros(2), numpy.zeros(6)
# Of three ranks, all of which can know.
MISUSES = [
    (lambda comm: comm.bcast_into(two, 3), ValueError, "root must be"),
    (lambda comm: comm.bcast_into("text", comm.rank), TypeError, r"bcast_into\(\) needs an array, or bytes"),
    (lambda comm: comm.bcast_into(numpy.array([{}]), comm.rank), TypeError, "array of Python objects"),
    (lambda comm: comm.bcast_into(b"read", (comm.rank + 1) % 3), TypeError, r"bcast_into\(\).*read-only"),
    (lambda comm: comm.scatter_into(six, two, -1), ValueError, "root must be"),
    (lambda comm: comm.scatter_into(six, numpy.zeros(1), comm.rank), ValueError, "the buffer has 8 bytes, and 16 are"),
    (lambda comm: comm.scatter_into(six, numpy.zeros(2, "i8"), comm.rank), TypeError, "one of float64, and the buffer"),
    (lambda comm: comm.scatter_into(numpy.zeros(7), two, comm.rank), ValueError, "7 elements has no 3 equal parts"),
    (lambda comm: comm.scatter_into(None, two, comm.rank), TypeError, r"scatter_into\(\) needs an array, or bytes"),
    (lambda comm: comm.scatter_into(None, None, (comm.rank + 1) % 3), TypeError, "something to write to"),
    (lambda comm: comm.gather_into(two, numpy.zeros(5), comm.rank), ValueError, "48 are needed: 3 x 16"),
    (lambda comm: comm.gather_into([1], None, (comm.rank + 1) % 3), TypeError, r"gather_into\(\) needs an array"),
    (lambda comm: comm.gather_into(two, None, comm.rank), TypeError, "something to write to"),
    (lambda comm: comm.allgather_into(two, numpy.zeros(5)), ValueError, "48 are needed"),
    (lambda comm: comm.allgather_into(two, numpy.zeros(6, "i8")), TypeError, "and the buffer one of int64"),
    (lambda comm: comm.allgather_into(two, read_only(6)), TypeError, "read-only"),
    (lambda comm: comm.allgather_into(two, numpy.zeros((6, 2))[:, 0]), ValueError, "contiguous"),
    (lambda comm: comm.alltoall_into(six, numpy.zeros(5)), ValueError, "48 are needed"),
    (lambda comm: comm.alltoall_into(numpy.zeros(4), six), ValueError, "4 elements has no 3 equal parts"),
    (lambda comm: comm.reduce_into(two, numpy.zeros(1), SUM, comm.rank), ValueError, "16 are needed"),
    (lambda comm: comm.reduce_into(two, two.copy(), "sum", comm.rank), TypeError, "op must be"),
    (lambda comm: comm.reduce_into(3, None, SUM, (comm.rank + 1) % 3), TypeError, r"reduce_into\(\) needs an array"),
    (lambda comm: comm.allreduce_into(two, numpy.zeros(1)), ValueError, "16 are needed"),
    (lambda comm: comm.allreduce_into(two, b"0123456789abcdef"), TypeError, "read-only"),
    (lambda comm: comm.reduce_scatter_into(six, numpy.zeros(1)), ValueError, "16 are needed"),
    (lambda comm: comm.reduce_scatter_into(two, two.copy()), ValueError, "2 elements has no 3 equal parts"),
    (lambda comm: comm.scan_into(two, numpy.zeros(1)), ValueError, "16 are needed"),
    (lambda comm: comm.exscan_into(two, numpy.zeros(1)), ValueError, "16 are needed"),
    (lambda comm: comm.exscan_into({}, two.copy()), TypeError, r"exscan_into\(\) needs an array"),
]  # fmt: skip


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_misuse_is_refused_on_all_ranks_before_anything_is_sent(transport):
    with ranks(3, transport) as made:
        before = [endpoint.statistics().messages_sent for endpoint in made.endpoints]

        def body(comm):
            for action, error, text in MISUSES:
                with pytest.raises(error, match=text):
                    action(comm)

        made.run(body)
        assert [endpoint.statistics().messages_sent for endpoint in made.endpoints] == before
        assert made.run(lambda comm: comm.allreduce(comm.rank)) == [3] * 3  # they did not count


def test_what_only_what_comes_can_tell_is_told_where_it_came():
    with ranks(2, "memory") as made:

        def body(comm):
            if comm.rank == 0:
                comm.bcast_into(numpy.zeros(5))
            else:
                with pytest.raises(ValueError, match=r"bcast_into\(\): what came has 40 bytes, and the buffer 32"):
                    comm.bcast_into(numpy.zeros(4))
            with pytest.raises(TypeError, match="what came is an array of"):
                comm.alltoall_into(*[numpy.zeros(2, "i8" if comm.rank else "f8") for _ in range(2)])
            return comm.allreduce(1)

        assert made.run(body) == [2, 2]


@pytest.mark.parametrize("name", NAMES)
def test_who_is_left_alone_gives_up(name):
    root = 1 if name in ("bcast_into", "scatter_into") else 0
    alone = 1 if name in ("scan_into", "exscan_into") else 0
    with ranks(2, "memory") as made:
        comm, other = made.comms[alone], made.comms[1 - alone]
        kind = name.removesuffix("_into")
        with pytest.raises(DeadlineError, match=rf"^{kind}\(.*\) did not finish within 0\.01 s"):
            fill(comm, name, numpy.zeros(2), root, numpy.zeros(4), timeout=0.01)
        fill(other, name, numpy.zeros(2), root, numpy.zeros(4), timeout=LIMIT)
        assert made.run(lambda comm: comm.allreduce(comm.rank)) == [1, 1]


def test_all_have_a_timeout():
    for name in NAMES:
        assert inspect.signature(getattr(CollectivesInto, name)).parameters["timeout"].default is None


def test_what_is_gathered_may_lie_anywhere_in_the_buffer():
    def body(comm):
        found = []
        for place in range(comm.size):
            buffer = numpy.full(2 * comm.size, comm.rank)
            comm.allgather_into(buffer[2 * place : 2 * place + 2], buffer)
            found.append(buffer.tolist())
        return found

    with ranks(3) as made:
        assert made.run(body) == [[[0, 0, 1, 1, 2, 2]] * 3] * 3
