"""What every collective promises, whatever moves its messages: subclass and name the transport."""

from __future__ import annotations

import operator
import threading
from functools import partial

import pytest
from contracts.definitions import DEFINITIONS, LISTS, REDUCTIONS, ROOTED, call, plain
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.group import Group
from klyng_mp.communicator.reductions import MAX, SUM
from klyng_mp.communicator.requests import waitall
from klyng_mp.errors import ClosedError, CodecError, CollectiveMismatchError, DeadlineError, PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

SIZES = [1, 2, 3, 4, 7]
NAMES = list(DEFINITIONS)


def array(count, rank, dtype="i8"):
    numpy = pytest.importorskip("numpy")
    return numpy.arange(count, dtype=dtype) * (rank + 1)


def multiply(a, b):
    """Multiply matrices of two rows and columns, which do not commute."""
    return (
        a[0] * b[0] + a[1] * b[2],
        a[0] * b[1] + a[1] * b[3],
        a[2] * b[0] + a[3] * b[2],
        a[2] * b[1] + a[3] * b[3],
    )


OBJECTS = {
    "int": lambda rank: rank,
    "str": lambda rank: "word " * rank,
    "nested": lambda rank: {"rank": rank, "in": [(rank, {"deep": [None, b"x" * rank]})]},
    "None": lambda rank: None,
    "empty array": lambda rank: array(0, rank),
    "array": lambda rank: array(10, rank),
    "large array": lambda rank: array(50_000, rank),
    "an array that is large on some": lambda rank: array(50_000 if rank % 3 == 1 else 5, rank),
    "large bytes": lambda rank: bytes([rank]) * 100_000,
    "function": lambda rank: lambda: rank,
    "what only dill can carry": lambda rank: {rank: 1, "x": 2}.keys(),
}
OPERANDS = {
    "int": (lambda rank: rank + 1, SUM),
    "int, by a function": (lambda rank: rank + 1, operator.mul),
    "str": (lambda rank: f"{rank},", SUM),
    "list": (lambda rank: [rank], operator.add),
    "matrix": (lambda rank: (1, rank, 1, 1), multiply),
    "array": (partial(array, 10), SUM),
    "empty array": (partial(array, 0), SUM),
    "large array": (partial(array, 50_000), SUM),
    "large array of floats": (partial(array, 20_001, dtype="f8"), MAX),
    "large array, by a function": (partial(array, 50_000), lambda a, b: (b % 3 > 0) * b + (b % 3 == 0) * a),
    "arrays that broadcast": (lambda rank: array(50_000 if rank % 3 == 1 else 1, rank), SUM),
    "arrays among numbers": (lambda rank: array(50_000, rank) if rank % 2 else rank, SUM),
}


# Each on a line of its own, which errors name.
CALLS = {
    "barrier": (
        lambda comm: comm.barrier(timeout=LIMIT),
        lambda comm: comm.ibarrier().wait(LIMIT),
    ),
    "bcast": (
        lambda comm: comm.bcast(1, timeout=LIMIT),
        lambda comm: comm.ibcast(1).wait(LIMIT),
    ),
    "scatter": (
        lambda comm: comm.scatter([1] * comm.size, timeout=LIMIT),
        lambda comm: comm.iscatter([1] * comm.size).wait(LIMIT),
    ),
    "gather": (
        lambda comm: comm.gather(1, timeout=LIMIT),
        lambda comm: comm.igather(1).wait(LIMIT),
    ),
    "allgather": (
        lambda comm: comm.allgather(1, timeout=LIMIT),
        lambda comm: comm.iallgather(1).wait(LIMIT),
    ),
    "alltoall": (
        lambda comm: comm.alltoall([1] * comm.size, timeout=LIMIT),
        lambda comm: comm.ialltoall([1] * comm.size).wait(LIMIT),
    ),
    "reduce": (
        lambda comm: comm.reduce(1, timeout=LIMIT),
        lambda comm: comm.ireduce(1).wait(LIMIT),
    ),
    "allreduce": (
        lambda comm: comm.allreduce(1, timeout=LIMIT),
        lambda comm: comm.iallreduce(1).wait(LIMIT),
    ),
    "reduce_scatter": (
        lambda comm: comm.reduce_scatter([1] * comm.size, timeout=LIMIT),
        lambda comm: comm.ireduce_scatter([1] * comm.size).wait(LIMIT),
    ),
    "scan": (
        lambda comm: comm.scan(1, timeout=LIMIT),
        lambda comm: comm.iscan(1).wait(LIMIT),
    ),
    "exscan": (
        lambda comm: comm.exscan(1, timeout=LIMIT),
        lambda comm: comm.iexscan(1).wait(LIMIT),
    ),
}


# Of three ranks, all of which can know.
MISUSES = [
    (lambda comm: comm.bcast(1, 3), ValueError, r"bcast: root must be from 0 to 2, not 3"),
    (lambda comm: comm.bcast(1, -1), ValueError, "root must be"),
    (lambda comm: comm.bcast(1, "0"), TypeError, "root must be the number of a rank"),
    (lambda comm: comm.ibcast(1, 3), ValueError, "root must be"),
    (lambda comm: comm.scatter([1] * 3, 3), ValueError, "root must be"),
    (lambda comm: comm.iscatter([1] * 3, -1), ValueError, "root must be"),
    (lambda comm: comm.gather(1, 3), ValueError, "root must be"),
    (lambda comm: comm.igather(1, 3), ValueError, "root must be"),
    (lambda comm: comm.reduce(1, SUM, 3), ValueError, "root must be"),
    (lambda comm: comm.ireduce(1, SUM, 3), ValueError, "root must be"),
    (lambda comm: comm.scatter([1] * 4, comm.rank), ValueError, "3 items, one for each rank, and was given 4"),
    (lambda comm: comm.scatter(None, comm.rank), TypeError, "needs a sequence of 3 items"),
    (lambda comm: comm.scatter(iter("abc"), comm.rank), TypeError, "needs a sequence of 3 items"),
    (lambda comm: comm.iscatter([], comm.rank), ValueError, "needs 3 items"),
    (lambda comm: comm.alltoall([1, 2]), ValueError, "needs 3 items, one for each rank, and was given 2"),
    (lambda comm: comm.ialltoall(7), TypeError, "needs a sequence of 3 items"),
    (lambda comm: comm.reduce_scatter([1] * 2), ValueError, "needs 3 items"),
    (lambda comm: comm.ireduce_scatter(None), TypeError, "needs a sequence of 3 items"),
    (lambda comm: comm.reduce(1, "sum"), TypeError, r"reduce\(\): op must be SUM, MAX or the like"),
    (lambda comm: comm.allreduce(1, None), TypeError, r"allreduce\(\): op must be"),
    (lambda comm: comm.iallreduce(1, 1), TypeError, r"allreduce\(\): op must be"),
    (lambda comm: comm.scan(1, None), TypeError, r"scan\(\): op must be"),
    (lambda comm: comm.exscan(1, None), TypeError, r"exscan\(\): op must be"),
    (lambda comm: comm.reduce_scatter([1] * 3, None), TypeError, r"reduce_scatter\(\): op must be"),
    (lambda comm: comm.barrier(timeout="soon"), TypeError, "timeout must be a number"),
    (lambda comm: comm.allgather(1, timeout=float("nan")), ValueError, "timeout must be a number"),
    (lambda comm: comm.split("red"), TypeError, "color must be an int"),
    (lambda comm: comm.split(0, None), TypeError, "key must be an int"),
    (lambda comm: comm.create_cart([2, 2]), ValueError, "a grid of 4 points needs more than 3 ranks"),
    (lambda comm: comm.create_cart([0]), ValueError, "at least 1"),
    (lambda comm: comm.create_cart([3], [True, False]), ValueError, "2 periods were given"),
    (lambda comm: comm.create(Group([0, 8])), ValueError, r"not in this communicator: \[8\]"),
    (lambda comm: comm.create([0, 1]), TypeError, r"create\(\) needs a Group"),
]


def given(name, make, size):
    """Return what each rank gives to a collective."""
    if name in LISTS:
        return [[make((rank + 2 * other) % size) for other in range(size)] for rank in range(size)]
    return [make(rank) for rank in range(size)]


def agree(world, name, make, op=SUM, said=""):
    """Make a call, blocking and not, and compare it with its definition."""
    size = len(world.comms)
    objs = given(name, make, size)
    for root in {0, size - 1} if name in ROOTED else {0}:
        expected = plain(DEFINITIONS[name](objs, root, op))
        got = world.run(lambda comm, r=root: call(comm, name, objs[comm.rank], r, op))
        assert plain(got) == expected, (name, said)
        got = world.run(lambda comm, r=root: call(comm, name, objs[comm.rank], r, op, start=True).wait(LIMIT))
        assert plain(got) == expected, (name, said)


def name_of(name, start):
    """Return how errors name a call: a barrier that is started is another than one that waits."""
    return "ibarrier" if name == "barrier" and start else name


def quarrel(made, *functions):
    """Let ranks make different calls, until one of them raises, which ends the run; return what each one met."""

    def body(function, comm):
        try:
            function(comm)
            comm.allgather(None, timeout=LIMIT)  # by which all hear of all
        except Exception as error:
            for endpoint in made.endpoints:
                endpoint.abort("failed", comm.rank)
            return error

    return made.run(*[partial(body, function) for function in functions])


class CollectivesContract:
    """Subclass it, name it Test…, and set `transport`."""

    transport = ""

    @pytest.fixture(params=SIZES)
    def world(self, request):
        with ranks(request.param, self.transport) as made:
            yield made

    def test_nobody_leaves_a_barrier_before_all_have_come(self, world):
        size = len(world.comms)
        come, lock = [], threading.Lock()

        def meet(comm):
            seen = []
            for turn in range(5):
                with lock:
                    come.append(turn)
                comm.barrier(timeout=LIMIT)
                with lock:
                    seen.append(come.count(turn))
            return seen

        assert world.run(meet) == [[size] * 5] * size

    def test_bcast_gives_the_roots_object_to_all(self, world):
        size = len(world.comms)
        for root in range(size):
            given = {"root": root, "much": bytes(100_000)}
            got = world.run(lambda comm, r=root, g=given: comm.bcast(g if comm.rank == r else "ignored", r))
            assert got == [given] * size
            assert got[root] is given
            assert len({id(one) for one in got}) == size

    def test_bcast_of_arrays(self, world):
        numpy = pytest.importorskip("numpy")
        for count in (10, 1_000_000):
            got = world.run(lambda comm, n=count: comm.bcast(numpy.arange(n) if comm.rank == 0 else None))
            assert all((one == numpy.arange(count)).all() for one in got)
            got[-1][0] = 99
            assert all(one[0] == 0 for one in got[:-1])

    def test_gather_brings_all_to_the_root_by_rank(self, world):
        size = len(world.comms)
        for root in range(size):
            got = world.run(lambda comm, r=root: comm.gather((comm.rank, bytes(comm.rank * 50_000)), r))
            assert got[root] == [(rank, bytes(rank * 50_000)) for rank in range(size)]
            assert [one for rank, one in enumerate(got) if rank != root] == [None] * (size - 1)

    def test_calls_do_not_mix_however_far_some_are_ahead(self, world):
        def many(comm):
            got = []
            for number in range(30):
                got.append(comm.bcast(number if comm.rank == 0 else None))
                comm.gather(number, root=comm.size - 1)
                if number % 7 == 0:
                    comm.barrier()
            return got

        assert world.run(many) == [list(range(30))] * len(world.comms)

    def test_users_messages_and_collectives_do_not_meet(self, world):
        def mixed(comm):
            for dest in range(comm.size):
                comm.send("user", dest, 0)
            comm.bcast("b")
            comm.barrier()
            got = [comm.recv(ANY_SOURCE, ANY_TAG) for _ in range(comm.size)]
            assert comm.iprobe() is None
            return got

        size = len(world.comms)
        assert world.run(mixed) == [["user"] * size] * size
        assert all(comm.endpoint.sent_counts() == dict.fromkeys(range(size), 1) for comm in world.comms)

    def test_a_world_of_one_needs_nobody(self):
        with ranks(1, self.transport) as made:
            comm = made.comms[0]
            comm.barrier(timeout=0)
            assert comm.bcast([1], timeout=0) == [1]
            assert comm.gather(2, timeout=0) == [2]

    def test_objects_of_all_kinds(self, world):
        for kind, make in OBJECTS.items():
            for name in set(NAMES) - REDUCTIONS:
                agree(world, name, make, said=kind)

    def test_reductions_of_all_kinds(self, world):
        for kind, (make, op) in OPERANDS.items():
            for name in REDUCTIONS:
                agree(world, name, make, op, said=kind)

    def test_what_a_rank_gives_is_its_own_again_when_the_call_returns(self, world):
        def body(comm, start):
            got = []
            for name in NAMES:
                mine = array(20_000, comm.rank)
                objs = [mine + other for other in range(comm.size)] if name in LISTS else mine
                done = call(comm, name, objs, start=start)
                if not start:
                    mine[:] = -1
                    for one in objs if name in LISTS else ():
                        one[:] = -1
                got.append(done)
            return waitall(got, LIMIT) if start else got

        first, second = (world.run(partial(body, start=start)) for start in (True, False))
        for name, by_request, by_call in zip(NAMES, first[-1], second[-1], strict=True):
            if name in ("allreduce", "reduce_scatter") and len(world.comms) > 1:
                assert plain(by_call) == plain(by_request)
            if name == "bcast" and len(world.comms) > 1:
                assert (by_call == array(20_000, 0)).all()

    def test_started_ones_end_in_any_order(self, world):
        size = len(world.comms)

        def body(comm):
            started = [
                call(comm, name, given(name, lambda r, t=turn: [t, r], size)[comm.rank], start=True)
                for turn in range(4)
                for name in NAMES
            ]
            order = list(range(len(started)))
            order = order[comm.rank :] + order[: comm.rank]
            found = {index: started[index].wait(LIMIT) for index in reversed(order)}
            assert all(one.done and one.test() for one in started)
            return [found[index] for index in range(len(started))]

        got = world.run(body)
        expected = [
            DEFINITIONS[name](given(name, lambda r, t=turn: [t, r], size), 0, operator.add)
            for turn in range(4)
            for name in NAMES
        ]
        assert [list(one) for one in zip(*got, strict=True)] == expected

    # -- communicators of communicators

    def test_split_by_color_and_key(self, world):
        size = len(world.comms)

        def body(comm):
            color = None if comm.rank == 1 else comm.rank % 2
            part = comm.split(color, -comm.rank, timeout=LIMIT)
            return part and (part.rank, part.allgather(comm.rank), part.allreduce(1))

        for rank, found in enumerate(world.run(body)):
            same = [other for other in reversed(range(size)) if other != 1 and other % 2 == rank % 2]
            assert found == (None if rank == 1 else (same.index(rank), same, len(same)))

    def test_communicators_do_not_mix(self, world):
        size = len(world.comms)

        def body(comm):
            double = comm.dup(timeout=LIMIT)
            part = comm.split(comm.rank % 2)
            assert (double.rank, double.size) == (comm.rank, comm.size)
            comm.send("ours", comm.rank, 1)
            double.send("the double's", comm.rank, 1)
            started = [one.iallreduce([one.rank]) for one in (part, double, comm)]
            got = [comm.bcast("a", 0), double.bcast("b", 0), part.bcast("c", 0), double.exscan(1)]
            got += [one.wait(LIMIT) for one in reversed(started)]
            return [*got, double.recv(comm.rank), comm.recv(comm.rank)]

        for rank, found in enumerate(world.run(body)):
            everybody, some = list(range(size)), list(range(len(range(rank % 2, size, 2))))
            assert found == ["a", "b", "c", rank or None, everybody, everybody, some, "the double's", "ours"]

    def test_a_group_becomes_a_communicator_in_its_order(self, world):
        size = len(world.comms)

        def body(comm):
            backwards = comm.group.include(reversed(range(comm.size)))
            made = comm.create(backwards.exclude([0]) if comm.size > 1 else backwards, timeout=LIMIT)
            return made and (made.rank, made.allgather(comm.rank), made.group.translate([0], comm.group))

        order = list(reversed(range(size)))
        if size > 1:
            order.remove(size - 1)
        got = world.run(body)
        assert got == [(order.index(r), order, order[:1]) if r in order else None for r in range(size)]

    def test_a_grid_shifts_and_has_slices(self, world):
        size = len(world.comms)

        def body(comm):
            cart = comm.create_cart([size // 2 or 1, min(2, size)], [True, False], timeout=LIMIT)
            if cart is None:
                return None
            source, dest = cart.shift(0)
            got = cart.sendrecv(cart.coords, dest, 0, source, 0)
            column = cart.sub([True, False], timeout=LIMIT)
            assert cart.rank_at(cart.coords) == cart.rank
            assert (column.dims, column.periods) == (cart.dims[:1], (True,))
            return cart.coords, got, cart.shift(1), column.allgather(cart.coords), cart.coords_of(0)

        rows, columns = size // 2 or 1, min(2, size)
        for rank, found in enumerate(world.run(body)):
            if rank >= rows * columns:
                assert found is None
                continue
            row, place = divmod(rank, columns)
            ends = (rank - 1 if place else -2, rank + 1 if place + 1 < columns else -2)
            expected = (row, place), ((row - 1) % rows, place), ends, [(other, place) for other in range(rows)], (0, 0)
            assert found == expected

    # -- what is asked wrongly

    def test_misuse_is_refused_on_all_ranks_before_anything_is_sent(self):
        with ranks(3, self.transport) as made:
            before = [endpoint.statistics().messages_sent for endpoint in made.endpoints]

            def body(comm):
                for action, error, text in MISUSES:
                    with pytest.raises(error, match=text):
                        action(comm)

            made.run(body)
            assert [endpoint.statistics().messages_sent for endpoint in made.endpoints] == before
            assert made.run(lambda comm: comm.allreduce(comm.rank)) == [3] * 3  # they did not count

    def test_a_closed_communicator_refuses_all_of_them(self):
        with ranks(1, self.transport) as made:
            comm = made.comms[0]
            comm.close()
            for name in NAMES:
                for start in (False, True):
                    with pytest.raises(ClosedError, match=rf"{name}\(\) cannot be done"):
                        call(comm, name, [1], start=start)
            for action in (comm.dup, lambda: comm.split(0), lambda: comm.create_cart([1])):
                with pytest.raises(ClosedError):
                    action()

    def test_what_cannot_travel_is_said_where_it_is_given(self):
        with ranks(2, self.transport) as made:
            lock = threading.Lock()
            for name in sorted(set(NAMES) - {"barrier"}):
                giver = made.comms[1 if name in ("gather", "reduce") else 0]
                for start in (False, True):
                    timeout = {} if start else {"timeout": LIMIT}
                    with pytest.raises(CodecError):
                        finish(call(giver, name, [lock] * 2, start=start, **timeout))

    # -- who does not come

    @pytest.mark.parametrize("name", NAMES)
    def test_who_is_left_alone_gives_up_and_the_next_call_is_clean(self, name):
        waits = 0 if name in ("gather", "reduce") else 1  # the rank that needs the other one
        with ranks(2, self.transport) as made:
            alone, other = made.comms[waits], made.comms[1 - waits]
            for timeout in (0, 0.01):
                with pytest.raises(DeadlineError, match=rf"^{name}\(.*\) did not finish within"):
                    call(alone, name, [1, 2], 0, timeout=timeout)
            # The other one comes late, and takes what it was sent; what it sends meets nobody.
            late = Background(lambda: [call(other, name, [1, 2], 0, timeout=LIMIT) for _ in range(2)])
            late.result()
            for _ in range(2):
                got = made.run(lambda comm: call(comm, name, ["a", "b"], 0))
                assert plain(got) == plain(DEFINITIONS[name]([["a", "b"]] * 2, 0, operator.add))
                assert made.run(lambda comm: comm.bcast(comm.rank)) == [0, 0]

    def test_a_request_that_is_waited_for_in_vain_goes_on(self):
        with ranks(2, self.transport) as made:
            one, other = made.comms
            request = one.iallreduce(1)
            with pytest.raises(DeadlineError, match=r"^allreduce\(\) did not finish within"):
                request.wait(0.01)
            assert not request.done
            assert not request.cancel()
            late = other.iallreduce(2)
            assert waitall([late], LIMIT) == [3]
            assert request.wait(LIMIT) == 3
            assert request.done

    @pytest.mark.parametrize("start", [False, True])
    @pytest.mark.parametrize("name", NAMES)
    def test_a_lost_rank_ends_the_call(self, name, start):
        root = 2 if name in ("bcast", "scatter") else 0
        with ranks(3, self.transport) as made:

            def body(comm):
                if comm.rank < 2:
                    with pytest.raises(PeerLostError, match=rf"rank \d .*; this rank was in i?(barrier|{name})\("):
                        both(comm)
                    made.endpoints[1 - comm.rank].abort("failed", comm.rank)

            def both(comm):
                finish(call(comm, name, [1] * 3, root, start=start))
                comm.barrier()  # where one is needed by others only

            made.endpoints[2].close()
            if name in ("scan", "exscan", "gather", "reduce"):
                self._who_needs_the_lost(made, name, start)
            else:
                made.run(body)

    def _who_needs_the_lost(self, made, name, start):
        """Of calls in which not all need the lost one: those before it in a scan have their results."""
        comms = made.comms[:2]
        if name in ("scan", "exscan"):
            calls = [Background(lambda c=comm: finish(call(c, name, [1], start=start))) for comm in comms]
            met = []
            for one in calls:
                try:
                    met.append(one.result())
                except PeerLostError as error:  # to which something was to be sent
                    met.append(error)
            assert all(isinstance(one, PeerLostError) or one in (None, [1], [1, 1]) for one in met)
            return
        sent = Background(lambda: finish(call(comms[1], name, [1], start=start)))
        assert sent.result() is None
        with pytest.raises(PeerLostError, match=rf"rank 2 .*; this rank was in {name}\(root=0\)"):
            finish(call(comms[0], name, [1], start=start))

    @pytest.mark.parametrize("start", [False, True])
    def test_a_run_that_is_ended_ends_the_call(self, start):
        with ranks(2, self.transport) as made:
            comm = made.comms[0]
            waiting = when_waiting(comm.endpoint)
            waits = Background(lambda: finish(call(comm, "allreduce", 1, start=start)))
            assert waiting.wait(LIMIT)
            comm.endpoint.abort("raised ValueError", 1)
            with pytest.raises(PeerLostError, match=r"rank 1 raised ValueError; this rank was in allreduce\(\)"):
                waits.result()
            for name in NAMES:
                with pytest.raises(PeerLostError):
                    finish(call(comm, name, [1, 2], start=start))

    # -- who disagrees

    @pytest.mark.parametrize("size", [2, 4])
    @pytest.mark.parametrize(("ours", "theirs"), [
        ("barrier", "bcast"), ("bcast", "gather"), ("gather", "allgather"), ("allreduce", "reduce"), ("scan", "exscan"),
        ("alltoall", "barrier"), ("reduce_scatter", "alltoall"), ("scatter", "bcast"), ("allreduce", "allgather"),
    ])  # fmt: skip
    def test_ranks_that_make_different_calls_are_told_at_once(self, ours, theirs, size):
        for start in (False, True):
            with ranks(size, self.transport) as made:
                one, other = CALLS[ours][start], CALLS[theirs][start]
                met = quarrel(made, one, *[other] * (size - 1))
                found = [error for error in met if isinstance(error, CollectiveMismatchError)]
                assert found
                assert {type(error) for error in met} <= {CollectiveMismatchError, PeerLostError, type(None)}
                lines = (ours, one.__code__.co_firstlineno), (theirs, other.__code__.co_firstlineno)
                sites = {
                    f"{name_of(name, start)}{'(root=0)' if name in ROOTED else '()'} at {__file__}:{line}"
                    for name, line in lines
                }
                assert any(set(error.calls) == sites for error in found)

    @pytest.mark.parametrize("size", [2, 3])
    @pytest.mark.parametrize("name", sorted(ROOTED))
    def test_ranks_that_name_different_roots_are_told(self, name, size):
        gives = name in ("bcast", "scatter")  # each rank thinks that it is the one that sends

        def body(comm):
            return call(comm, name, [1] * size, comm.rank if gives else (comm.rank + 1) % size, timeout=LIMIT)

        with ranks(size, self.transport) as made:
            met = quarrel(made, *[body] * size)
        found = [error for error in met if isinstance(error, CollectiveMismatchError)]
        assert found
        assert all(
            f"{name}(root=" in text and f"{call.__code__.co_filename}:" in text
            for error in found
            for text in error.calls
        )
        assert all(error.calls[0] != error.calls[1] for error in found)
        assert all(type(error) in (CollectiveMismatchError, PeerLostError) for error in met if error is not None)

    def test_after_a_quarrel_that_all_have_noticed_calls_are_clean(self):
        with ranks(2, self.transport) as made:

            def body(comm):
                with pytest.raises(CollectiveMismatchError):
                    comm.allgather(1) if comm.rank else comm.allreduce(1)
                return comm.allreduce([comm.rank])

            for _ in range(3):
                assert made.run(body) == [[0, 1]] * 2


def finish(done):
    """Wait for what was started; return what was called."""
    return done.wait(LIMIT) if hasattr(done, "wait") else done
