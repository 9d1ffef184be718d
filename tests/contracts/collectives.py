"""What every collective promises, whatever moves its messages: subclass and name the transport."""

from __future__ import annotations

import threading

import pytest
from contracts.ranks import LIMIT, ranks

from klyng_mp.errors import CodecError, DeadlineError, PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG

SIZES = [1, 2, 3, 4, 7]


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

    @pytest.mark.parametrize(
        ("call", "doing"),
        [
            (lambda comm: comm.barrier(timeout=0.01), r"barrier\(\)"),
            (lambda comm: comm.bcast(timeout=0.01, root=1), r"bcast\(root=1\)"),
            (lambda comm: comm.gather(1, timeout=0.01), r"gather\(root=0\)"),
        ],
    )
    def test_who_is_left_alone_gives_up_and_the_next_call_is_clean(self, call, doing):
        with ranks(2, self.transport) as made:
            alone, other = made.comms
            with pytest.raises(DeadlineError, match=doing):
                call(alone)
            other.next_call()  # it skips the call that failed
            assert made.run(lambda comm: comm.bcast(comm.rank)) == [0, 0]

    @pytest.mark.parametrize("name", ["barrier", "bcast", "gather"])
    def test_a_lost_rank_ends_the_call(self, name):
        call = {
            "barrier": lambda comm: comm.barrier(),
            "bcast": lambda comm: comm.bcast(None, root=2),
            "gather": lambda comm: comm.gather(None, root=0),
        }[name]
        with ranks(3, self.transport) as made:
            made.endpoints[2].close()
            with pytest.raises(PeerLostError, match=rf"rank 2 .*; this rank was in {name}\("):
                made.run(call, call, lambda _: None)

    def test_what_cannot_travel_is_said_where_it_is_given(self):
        with ranks(2, self.transport) as made, pytest.raises(CodecError):
            made.comms[0].bcast(threading.Lock())
