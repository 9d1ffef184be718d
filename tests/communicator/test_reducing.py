"""How data is combined: in rank order whatever the operator, as the definition says, at the cost of the docstring."""

from __future__ import annotations

import math
from functools import reduce as fold

import pytest
from contracts.clocks import counted
from contracts.definitions import DEFINITIONS, LISTS, REDUCTIONS, call, plain
from contracts.ranks import LIMIT, Background, ranks
from contracts.worlds import Worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.communicator.algorithms import LARGE_BYTES
from klyng_mp.communicator.reductions import BOR, LAND, MAX, MAXLOC, MIN, PROD, SUM
from klyng_mp.communicator.reductions import BXOR as XOR

numpy = pytest.importorskip("numpy")

SIZES = [1, 2, 3, 4, 5, 7, 8, 16, 33, 64]


def multiply(a, b):
    """Multiply 2 x 2 matrices, which do not commute, with elements modulo a prime."""
    return tuple(
        tuple(sum(a[row][k] * b[k][column] for k in range(2)) % 997 for column in range(2)) for row in range(2)
    )


def last_that_is_not_zero(a, b):
    """Choose element by element: associative, and not commutative."""
    return numpy.where(b != 0, b, a)


def words(text):
    return st.lists(st.text("abc", max_size=3), min_size=text, max_size=text)


matrices = st.tuples(*[st.tuples(st.integers(0, 996), st.integers(0, 996))] * 2)
shapes = st.sampled_from([(), (1,), (7,), (30_000,), (3, 1), (1, 7), (200, 50), (30_000, 1)])


def arrays(shape, dtype="i8"):
    size = math.prod(shape)
    return st.integers(0, 50).map(lambda start: (numpy.arange(size) * 7 % 13 - start).reshape(shape).astype(dtype))


of_one_shape = shapes.flatmap(arrays)
CASES = [
    (st.integers(-(2**70), 2**70), (SUM, PROD, MAX, MIN, XOR, math.gcd)),
    (st.text("abc", max_size=3), (SUM, MAX, lambda a, b: a + b)),
    (st.lists(st.integers(), max_size=2), (SUM, MIN)),
    (matrices, (multiply,)),
    (st.sets(st.integers(0, 5)), (BOR,)),
    (st.tuples(st.integers(0, 3), st.integers(0, 9)), (MAXLOC,)),
]
ON_ARRAYS = (SUM, PROD, MAX, MIN, XOR, BOR, LAND, last_that_is_not_zero, lambda a, b: a + b)


@st.composite
def reductions(draw):
    """Draw (size, root, what each rank gives, operator)."""
    size = draw(st.integers(1, 7))
    kind = draw(st.integers(0, len(CASES) + 2))
    if kind < len(CASES):
        thing, operators = CASES[kind]
    else:
        operators = ON_ARRAYS
        shape = draw(shapes)
        thing = {  # all of one shape; some of them small and broadcast; some of them numbers
            0: arrays(shape),
            1: st.one_of(arrays(shape), arrays((1,))),
            2: st.one_of(arrays(shape), arrays(shape, "i4"), st.integers(0, 9).map(numpy.int64)),
        }[kind - len(CASES)]
    return size, draw(st.integers(0, size - 1)), thing, draw(st.sampled_from(operators))


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_the_outcome_is_the_definitions(name):
    with Worlds() as worlds:

        @settings(max_examples=20, deadline=None, database=None)
        @given(st.data())
        def check(data):
            size, root, thing, op = data.draw(reductions())
            one = st.lists(thing, min_size=size, max_size=size) if name in LISTS else thing
            objs = data.draw(st.lists(one, min_size=size, max_size=size))
            start = data.draw(st.booleans())

            def body(comm):
                done = call(comm, name, objs[comm.rank], root, op, start=start)
                return done.wait(LIMIT) if start else done

            got = worlds[size].run(body)
            assert [plain(one) for one in got] == [plain(one) for one in DEFINITIONS[name](objs, root, op)]

        check()


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c16", "?", "u1", "i2", ">i4"])
def test_large_arrays_are_combined_piece_by_piece(size, dtype):
    rows = [(numpy.arange(200_001) * (rank + 1) % 5).astype(dtype) for rank in range(size)]
    with ranks(size, "memory") as made:
        for op in (SUM, MAX):
            expected = fold(op, rows)
            for got in made.run(lambda comm, op=op: comm.allreduce(rows[comm.rank], op)):
                assert got.dtype == numpy.dtype(dtype)
                assert (got == expected).all()


def test_all_have_the_same_result_to_the_last_bit():
    dice = numpy.random.default_rng(3)
    for count in (3, 50_000):
        rows = [dice.random(count) * 10.0 ** dice.integers(-9, 9) for _ in range(7)]
        with ranks(7, "memory") as made:
            got = made.run(lambda comm, rows=rows: comm.allreduce(rows[comm.rank]))
            assert len({one.tobytes() for one in got}) == 1
            assert numpy.allclose(got[0], sum(rows))


def test_arrays_without_order_in_memory_are_combined_too():
    table = numpy.arange(90_000).reshape(300, 300)
    with ranks(3, "memory") as made:
        for one in (table.T, table[::2], numpy.asfortranarray(table)):
            for got in made.run(lambda comm, one=one: comm.allreduce(one)):
                assert (got == 3 * one).all()


def test_a_result_is_not_what_was_given():
    for size in (1, 2, 5):
        for count in (10, 50_000):
            with ranks(size, "memory") as made:
                given_ = [numpy.ones(count) for _ in range(size)]
                got = made.run(lambda comm, rows=given_: comm.allreduce(rows[comm.rank]))
                for one in got:
                    one[:] = -1
                assert all((one == 1).all() for one in given_)


def test_an_operator_that_fails_is_told_where_it_did_and_the_next_call_is_clean():
    def refuse(a, b):
        raise ZeroDivisionError(f"{a} and {b}")

    for start in (False, True):
        with ranks(2, "memory") as made:

            def body(comm, start=start):
                with pytest.raises(ZeroDivisionError, match="0 and 1"):
                    comm.iallreduce(comm.rank, refuse).wait(LIMIT) if start else comm.allreduce(comm.rank, refuse)
                return comm.allreduce(comm.rank)

            assert made.run(body) == [1, 1]


def test_arrays_of_shapes_that_do_not_fit_fail_on_all():
    with ranks(4, "memory") as made:

        def body(comm):
            with pytest.raises(ValueError, match="could not be broadcast"):
                comm.allreduce(numpy.zeros(50_000 + comm.rank // 2))
            return comm.allreduce(1)

        assert made.run(body) == [4] * 4


def test_the_operator_of_objects_is_called_and_that_of_arrays_is_vectorised():
    calls = []

    def add(a, b):
        calls.append((a, b))
        return a + b

    with ranks(4, "memory") as made:
        assert made.run(lambda comm: comm.reduce(f"{comm.rank}", add))[0] == "0123"
        assert sorted(calls) == [("0", "1"), ("01", "23"), ("2", "3")]
        background = Background(lambda: made.run(lambda comm: comm.allreduce(numpy.ones(2_000_000), PROD)))
        assert all(one.sum() == 2_000_000 for one in background.result())


# -- costs -----------------------------------------------------------------------------------------


def rounds(size):
    return math.ceil(math.log2(size))


def doubling(size):
    """Messages and rounds of recursive doubling among the largest power of two, and of those that stand apart."""
    doubles = 1 << (size.bit_length() - 1)
    extra = size - doubles
    return doubles * rounds(doubles) + 2 * extra, rounds(doubles) + (2 if extra else 0)


def shifting(size):
    return sum(max(0, size - (1 << turn)) for turn in range(rounds(size)))


LARGE = numpy.ones(LARGE_BYTES // 8)
COSTS = {
    "reduce": (lambda comm: comm.reduce(1), lambda n: n - 1, rounds),
    "reduce to the last": (
        lambda comm: comm.reduce(1, SUM, comm.size - 1),
        lambda n: n if n > 1 else 0,
        lambda n: rounds(n) + 1,
    ),
    "allreduce": (lambda comm: comm.allreduce(1), lambda n: doubling(n)[0], lambda n: doubling(n)[1]),
    "dup": (lambda comm: comm.dup(), lambda n: doubling(n)[0], lambda n: doubling(n)[1]),
    "create": (lambda comm: comm.create(comm.group), lambda n: doubling(n)[0], lambda n: doubling(n)[1]),
    "create_cart": (lambda comm: comm.create_cart([comm.size]), lambda n: doubling(n)[0], lambda n: doubling(n)[1]),
    "allreduce of large": (
        lambda comm: comm.allreduce(LARGE),
        lambda n: doubling(n)[0] + (2 if n == 2 else 2 * n * (n - 1)),
        lambda n: doubling(n)[1] + (1 if n == 2 else 2 * (n - 1)),
    ),
    "allreduce of mixed": (
        lambda comm: comm.allreduce(LARGE if comm.rank else 1.0),
        lambda n: 2 * doubling(n)[0],
        lambda n: 2 * doubling(n)[1],
    ),
    "reduce_scatter": (lambda comm: comm.reduce_scatter([1] * comm.size), lambda n: n * (n - 1), lambda n: 1),
    "scan": (lambda comm: comm.scan(1), shifting, rounds),
    "exscan": (lambda comm: comm.exscan(1), lambda n: shifting(n) + n - 1, lambda n: rounds(n) + 1),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_cost(size):
    with ranks(size, "memory") as made, counted() as cost:
        for name, (action, messages, most_rounds) in COSTS.items():
            if size > 16 and "of" in name.split():
                continue
            cost.clear()
            made.run(action)
            assert cost.total == messages(size), name
            assert cost.depth <= most_rounds(size), name


def test_bytes_of_an_allreduce_of_large_arrays():
    size, array = 4, numpy.ones(4 * LARGE_BYTES // 8)
    with ranks(size, "memory") as made:
        before = [endpoint.statistics().bytes_sent for endpoint in made.endpoints]
        made.run(lambda comm: comm.allreduce(array))
        for endpoint, earlier in zip(made.endpoints, before, strict=True):
            sent = endpoint.statistics().bytes_sent - earlier
            least = 2 * array.nbytes * (size - 1) // size
            assert least <= sent <= least + 2000


@pytest.mark.parametrize("size", [2, 3])
def test_arrays_that_are_read_only_are_combined_as_any(size):
    """What comes is read-only, too, so that nothing can be combined in its memory."""

    def body(comm):
        array = numpy.full(LARGE_BYTES, comm.rank + 1.0)
        array.setflags(write=False)
        return comm.allreduce(array, timeout=LIMIT), comm.iallreduce(array).wait(LIMIT)

    with ranks(size) as made:
        for blocking, started in made.run(body):
            assert (blocking == size * (size + 1) / 2).all()
            assert (started == blocking).all()
            assert blocking.flags.writeable
