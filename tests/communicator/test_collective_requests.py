"""Collectives that go on by themselves: whatever their rank does meanwhile, and however it ends."""

from __future__ import annotations

import operator
import random
import threading

import pytest
from contracts.definitions import DEFINITIONS, plain
from contracts.play import expected_of, play
from contracts.ranks import LIMIT, Background, ranks, when_in, when_waiting
from contracts.worlds import Worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp import native
from klyng_mp.communicator.collective_requests import CollectiveRequest, NonBlockingCollectives
from klyng_mp.communicator.reductions import SUM
from klyng_mp.communicator.requests import testall, waitall, waitany, waitsome
from klyng_mp.errors import ClosedError, CollectiveMismatchError, DeadlineError, PeerLostError

NAMES = list(DEFINITIONS)
TRANSPORTS = ["memory", "stream", pytest.param("shm", marks=pytest.mark.skipif(native.core is None, reason="no core"))]


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return request.param


@pytest.fixture
def pair(transport):
    with ranks(2, transport) as made:
        yield made


def test_each_collective_has_its_twin():
    assert {name for name in vars(NonBlockingCollectives) if name.startswith("i")} == {f"i{name}" for name in NAMES}


# -- it goes on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocked", ["recv", "probe", "wait", "waitany", "barrier", "sendrecv", "bcast of another"])
def test_it_goes_on_while_its_rank_waits_for_something_else(transport, blocked):
    """The partner sends what is waited for only when the collective is over for it, which needs this rank's steps."""
    with ranks(4, transport) as made:

        def body(comm):
            other = comm.dup()
            request = comm.ibarrier()
            if comm.rank == 3:
                request.wait(LIMIT)
                if blocked == "barrier":
                    return comm.barrier(timeout=LIMIT)
                if blocked == "bcast of another":
                    return other.bcast("go", 3, timeout=LIMIT)
                for dest in range(3):
                    comm.send("go", dest)
                return None
            if blocked == "recv":
                assert comm.recv(3, timeout=LIMIT) == "go"
            elif blocked == "probe":
                comm.probe(3, timeout=LIMIT)
                assert comm.recv(3, timeout=0) == "go"
            elif blocked == "wait":
                assert comm.irecv(3).wait(LIMIT) == "go"
            elif blocked == "waitany":
                assert waitany([comm.irecv(3, "never"), comm.irecv(3)], LIMIT) == (1, "go")
            elif blocked == "sendrecv":
                assert comm.sendrecv("x", comm.rank, "own", 3, 0, timeout=LIMIT) == "go"
            elif blocked == "barrier":
                comm.barrier(timeout=LIMIT)
            else:
                assert other.bcast(None, 3, timeout=LIMIT) == "go"
            return request.wait(LIMIT)

        assert made.run(body) == [None] * 3 + (["go"] if blocked == "bcast of another" else [None])


def test_it_goes_on_while_its_rank_is_blocked_in_a_send(pair):
    """The receiver takes the message when its collective is over, which needs the sender's steps."""
    large = bytes(5_000_000)

    def body(comm):
        if comm.rank == 0:
            request = comm.iallreduce([0])
            comm.send(large, 1, timeout=LIMIT)
            return request.wait(LIMIT)
        result = comm.iallreduce([1]).wait(LIMIT)
        assert comm.recv(0, timeout=LIMIT) == large
        return result

    assert pair.run(body) == [[0, 1]] * 2


def test_it_goes_on_when_it_is_tested(pair):
    one, other = pair.comms
    mine, theirs = one.iallreduce(1), other.iallreduce(2)
    while not (mine.test() and theirs.test()):
        pass
    assert (mine.wait(0), theirs.wait(0)) == (3, 3)
    assert repr(mine) == "<Request allreduce(): done>"


def test_who_waits_in_another_thread_is_woken(pair):
    """One thread polls, and takes the last step of what another one sleeps for."""
    one, other = pair.comms
    polls = when_in(one.endpoint._room)
    receiving = Background(lambda: one.recv(1, "later", timeout=LIMIT))
    assert polls.wait(LIMIT)
    request = one.iallreduce([0])
    both = when_in(one.endpoint._room, 2)
    waiting = Background(lambda: request.wait(LIMIT))
    assert both.wait(LIMIT)
    assert other.allreduce([1], timeout=LIMIT) == [0, 1]
    assert waiting.result() == [0, 1]
    other.send("now", 0, "later")
    assert receiving.result() == "now"


def test_several_threads_may_wait_for_one(pair):
    one, other = pair.comms
    request = one.iallgather("a")
    waiting = when_waiting(one.endpoint, 3)
    calls = [Background(lambda: request.wait(LIMIT)) for _ in range(3)]
    assert waiting.wait(LIMIT)
    other.allgather("b", timeout=LIMIT)
    first, *others = [one.result() for one in calls]
    assert first == ["a", "b"]
    assert all(one is first for one in others)


def test_with_the_functions_for_several_requests(pair):
    def body(comm):
        started = [comm.ibcast("x"), comm.irecv(comm.rank), comm.iallreduce(1), comm.isend("me", comm.rank)]
        assert waitall(started, LIMIT) == ["x", "me", 2, None]
        assert testall(started)
        more, found = [comm.iscan(1), comm.igather(comm.rank), comm.ibarrier()], []
        while len(found) < 3:
            found += waitsome(more, LIMIT)
        return [result for _, result in sorted(found, key=operator.itemgetter(0))]

    assert pair.run(body) == [[1, [0, 1], None], [2, None, None]]


def test_many_at_once_end_out_of_order():
    with ranks(4, "memory") as made:

        def body(comm):
            started = [comm.iallreduce([number]) for number in range(150)]
            order = list(range(150))
            random.Random(comm.rank).shuffle(order)
            assert all(started[number].wait(LIMIT) == [number] * 4 for number in order)

        made.run(body)


# -- what is drawn at random -----------------------------------------------------------------------

steps = st.lists(
    st.tuples(st.sampled_from([*NAMES, "message", "message"]), st.integers(0, 2), st.integers(0, 6), st.booleans(),
              st.sampled_from([1, 1, 2500])),
    min_size=1, max_size=12,
)  # fmt: skip


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_any_mixture_of_calls_on_several_communicators(transport):
    with Worlds(transport) as worlds:

        @settings(max_examples=12, deadline=None, database=None)
        @given(st.integers(1, 7), steps, st.integers(0, 99))
        def try_out(size, program, seed):
            for rank, got in enumerate(worlds[size].run(lambda comm: play(comm, program, seed))):
                assert plain(got) == plain(expected_of(program, size, rank))

        try_out()


# -- how it ends -----------------------------------------------------------------------------------


def test_it_cannot_be_cancelled_and_a_deadline_changes_nothing(pair):
    one, other = pair.comms
    request = one.ibarrier()
    assert isinstance(request, CollectiveRequest)
    assert repr(request) == "<Request ibarrier(): under way>"
    assert not request.cancel()
    for timeout in (0, 0.01):
        with pytest.raises(DeadlineError, match=r"^ibarrier\(\) did not finish within"):
            request.wait(timeout)
    late = other.ibarrier()
    assert request.wait(LIMIT) is None
    assert late.wait(LIMIT) is None
    assert not request.cancelled


def test_the_operators_error_is_raised_by_every_wait_and_the_next_call_is_clean(pair):
    def refuse(a, b):
        raise ZeroDivisionError

    def body(comm):
        request = comm.iallreduce(comm.rank, refuse)
        later = comm.iallreduce(comm.rank)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                request.wait(LIMIT)
        with pytest.raises(ZeroDivisionError):
            request.test()
        assert not request.done
        assert request.settled
        return later.wait(LIMIT), comm.allreduce(10)

    assert pair.run(body) == [(1, 20)] * 2


def test_an_interruption_strikes_the_thread_that_waits_and_not_the_request_only(pair):
    one, other = pair.comms

    def interrupt(a, b):
        raise KeyboardInterrupt

    request = one.iallreduce(1, interrupt)
    late = other.iallreduce(1)
    with pytest.raises(KeyboardInterrupt):
        one.recv(1, "never", timeout=LIMIT)
    with pytest.raises(KeyboardInterrupt):
        request.wait(LIMIT)
    assert late.wait(LIMIT) == 2
    other.send("x", 0)
    assert one.recv(1, timeout=LIMIT) == "x"  # nothing was spoilt


def test_a_lost_rank_ends_it(pair):
    one, other = pair.comms
    request = one.iallreduce(1)
    waiting = when_waiting(one.endpoint)
    call_ = Background(lambda: request.wait(LIMIT))
    assert waiting.wait(LIMIT)
    other.endpoint.close()
    with pytest.raises(PeerLostError, match=r"rank 1 .*; this rank was in allreduce\(\)"):
        call_.result()
    with pytest.raises(PeerLostError):
        request.test()
    with pytest.raises(PeerLostError):
        waitany([request] if not request.collected else [one.ibarrier()], LIMIT)


def test_a_run_that_is_ended_ends_it(pair):
    one, _ = pair.comms
    request = one.ibcast(root=1)
    waiting = when_waiting(one.endpoint)
    call_ = Background(lambda: request.wait(LIMIT))
    assert waiting.wait(LIMIT)
    one.endpoint.abort("raised ValueError", 1)
    with pytest.raises(PeerLostError, match=r"rank 1 raised ValueError; this rank was in bcast\(root=1\)"):
        call_.result()
    with pytest.raises(PeerLostError):
        one.ibarrier().wait(LIMIT)


@pytest.mark.parametrize("aborted", [False, True])
def test_one_that_nobody_waited_for_does_not_disturb_the_next_run(pair, aborted):
    def forget(comm):
        comm.ibarrier() if comm.rank else comm.iallreduce([1, 2])  # in vain, too: they are of different calls
        comm.iscan(1)
        comm.send("x", comm.rank, "last")
        comm.recv(comm.rank, "last")

    pair.run(forget)
    for comm in pair.comms:
        if aborted:
            comm.endpoint.abort("raised", 1)
        comm.endpoint.begin_run(comm.context + (1 << 32))
        comm.endpoint.progress()
    again = [
        type(comm)(comm.endpoint, comm.codec, context=comm.context + (1 << 32), rank=comm.rank, members=range(2))
        for comm in pair.comms
    ]
    got = [None, None]

    def next_run(comm):
        got[comm.rank] = again[comm.rank].allreduce([comm.rank]), again[comm.rank].iscan(1).wait(LIMIT)

    pair.run(next_run)
    assert got == [([0, 1], 1), ([0, 1], 2)]
    assert all(comm.endpoint._room.chores == [] for comm in pair.comms)
    assert all(comm.endpoint.statistics().waiting == 0 for comm in pair.comms)


def test_one_of_a_run_that_is_over_says_so(pair):
    one, _ = pair.comms
    request = one.ibarrier()
    one.endpoint.begin_run(one.context + (1 << 32))
    with pytest.raises(ClosedError, match="run"):
        request.wait(LIMIT)


def test_ranks_that_disagree_are_told_by_wait_with_both_places(pair):
    def body(comm):
        request = comm.iallgather(1) if comm.rank else comm.iallreduce(1)
        with pytest.raises(
            CollectiveMismatchError, match=rf"allreduce\(\) at {__file__}:\d+.*allgather\(\) at|all ranks"
        ):
            request.wait(LIMIT)
        with pytest.raises(CollectiveMismatchError) as met:
            request.wait(LIMIT)
        return met.value.rank, [text.partition(" at ")[0] for text in met.value.calls], met.value.calls

    (first, ours, sites), (second, theirs, _) = pair.run(body)
    assert (first, ours) == (1, ["allreduce()", "allgather()"])
    assert (second, theirs) == (0, ["allgather()", "allreduce()"])
    assert all(f"{__file__}:" in site for site in sites)


def test_a_step_that_is_refused_at_once_is_told_by_wait(pair):
    one, _ = pair.comms
    request = one.iallgather(threading.Lock())
    with pytest.raises(Exception, match="lock"):
        request.wait(LIMIT)
    assert not one.call_log.pending
    assert SUM(1, 2) == 3
