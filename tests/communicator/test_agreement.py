"""communicator.agreement: ranks that make different calls are told which, where, and at once."""

from __future__ import annotations

import time

import pytest

import klyng_mp as mp
from klyng_mp import native
from klyng_mp.communicator.agreement import find_stranger
from klyng_mp.communicator.calls import make_tag

BARRIER, GATHER, BCAST = "barrier()", "gather(root=0)", "bcast(root=0)"


@pytest.fixture(params=["core", "pure"])
def world(request):
    if request.param == "core" and native.core is None:
        pytest.skip("the native core is not in use")
    with mp.World(3, env={native.VARIABLE: "1" if request.param == "core" else "0"}) as made:
        yield made


def gather_and_barrier(late):
    """Make two calls of which the first ranks sleep in theirs before the late one comes."""
    comm = mp.comm()
    if comm.rank == late:
        comm.recv(1 - late, "go")
    elif comm.rank == 1 - late:
        comm.send(None, late, "go")
    return comm.gather(1) if comm.rank == 0 else comm.barrier()


def roots():
    comm = mp.comm()
    comm.bcast(comm.rank, root=comm.rank)
    comm.allreduce(1)


def kinds():
    comm = mp.comm()
    return comm.allgather(1) if comm.rank == 1 else comm.alltoall([1] * comm.size)


def one_call_less():
    comm = mp.comm()
    if comm.rank != 1:
        comm.allgather("first")
    return comm.allreduce(1)


def a_started_one():
    comm = mp.comm()
    return comm.iallreduce(1).wait() if comm.rank else comm.ibarrier().wait()


def the_last_call():
    """Make different calls, none of which waits, and end; the last to end has the others' messages."""
    comm = mp.comm()
    if comm.rank == 0:
        comm.bcast("x")
    else:
        comm.gather("y")
    for other in range(comm.size):
        comm.send(None, other, "over")
    for other in range(comm.size):
        comm.recv(other, "over")


def in_a_split():
    comm = mp.comm().split(0)
    return comm.barrier() if comm.rank == 2 else comm.allreduce(1)


@pytest.mark.parametrize(
    ("program", "args", "calls"),
    [
        (gather_and_barrier, (0,), [BARRIER, GATHER]),
        (gather_and_barrier, (1,), [BARRIER, GATHER]),
        (roots, (), ["bcast(root="]),
        (kinds, (), ["allgather()", "alltoall()"]),
        (one_call_less, (), ["allgather()", "allreduce()"]),
        (a_started_one, (), ["ibarrier()", "allreduce()"]),
        (the_last_call, (), [BCAST, GATHER]),
        (in_a_split, (), [BARRIER, "allreduce()"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_ranks_that_disagree_are_told_both_calls_and_places_at_once(world, program, args, calls, time_limit):
    began = time.monotonic()
    with pytest.raises(mp.RankFailedError) as caught:
        world.start(program, *args).result(timeout=time_limit(10))
    assert time.monotonic() - began < time_limit(1)
    error = caught.value.__cause__
    assert isinstance(error, mp.CollectiveMismatchError)
    assert all(any(call in words for words in error.calls) for call in calls)
    assert all(f" at {__file__}:" in words for words in error.calls)
    assert error.rank != caught.value.rank
    assert world.run(lambda: mp.comm().allreduce(1)) == [3] * 3


def test_a_program_whose_ranks_agree_is_left_alone(world):
    def agree():
        comm = mp.comm()
        comm.bcast("x")
        comm.gather("y")
        with pytest.raises(mp.DeadlineError):
            comm.barrier(timeout=0) if comm.rank else comm.recv(0, "never", timeout=0)
        if comm.rank == 0:
            comm.call_log.note(make_tag(comm.call_log.made, "barrier"))  # a call that was given up, too
            comm.call_log.abandoned.add(comm.call_log.made - 1)
        return find_stranger(comm, comm.call_log.last)

    assert world.run(agree) == [None] * 3


def test_who_computes_for_long_does_not_answer_and_the_call_is_named_without_its_place(world, time_limit):
    def compute(seconds):
        comm = mp.comm()
        if comm.rank == 0:
            comm.bcast("x")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass
        else:
            comm.barrier()

    with pytest.raises(mp.RankFailedError) as caught:
        world.start(compute, time_limit(3)).result(timeout=time_limit(10))
    assert isinstance(caught.value.__cause__, mp.CollectiveMismatchError)
    assert caught.value.__cause__.calls[1] == BCAST
