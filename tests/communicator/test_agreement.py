"""communicator.agreement: ranks that make different calls are told which, where, and at once."""

from __future__ import annotations

import time

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

import klyng_mp as mp
from klyng_mp import native
from klyng_mp.communicator.agreement import find_stranger
from klyng_mp.communicator.calls import make_tag
from klyng_mp.deadline import Deadline
from klyng_mp.errors import CollectiveMismatchError
from klyng_mp.wire.frames import Message

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


@pytest.mark.slow
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


# -- between two threads, step by step ----------------------------------------------------------------------


@pytest.fixture
def pair():
    with ranks(2, "memory") as made:
        yield made


def test_a_message_of_another_call_is_told_of_while_this_one_waits(pair):
    one, other = pair.comms
    waiting = when_waiting(one.endpoint)
    call = Background(lambda: one.bcast(root=1))
    assert waiting.wait(LIMIT)
    other.gather("x", 0)
    text = r"called bcast\(root=1\) at .*, but rank 1 called gather\(root=0\) at "
    with pytest.raises(CollectiveMismatchError, match=text) as met:
        call.result()
    assert met.value.rank == 1
    assert all(f"{__file__}:" in text for text in met.value.calls)


def test_without_anybody_to_ask_the_other_call_is_named_by_its_message(pair):
    one, other = pair.comms
    one.endpoint.find_call = lambda *_: None
    other.gather("x", 0)
    with pytest.raises(CollectiveMismatchError) as met:
        one.bcast(root=1, timeout=LIMIT)
    assert met.value.calls[1] == "gather(root=0)"
    assert met.value.calls[0].startswith(f"bcast(root=1) at {__file__}:")


def test_a_quarrel_of_an_earlier_call_is_told_once_by_the_next(pair):
    one, other = pair.comms
    one.bcast("x")
    other.bcast("y", 1)
    one.endpoint.progress()
    with pytest.raises(CollectiveMismatchError, match=r"called bcast\(root=0\) at .* called bcast\(root=1\) at "):
        one.barrier(timeout=LIMIT)
    other.endpoint.progress()
    with pytest.raises(CollectiveMismatchError, match=r"called bcast\(root=1\) at .* called bcast\(root=0\) at "):
        other.barrier(timeout=LIMIT)
    for _ in range(3):
        assert pair.run(lambda comm: comm.allreduce(comm.rank)) == [1, 1]


def test_a_quarrel_that_comes_with_what_is_waited_for_is_told_by_that_call(pair):
    one, other = pair.comms

    def body(comm):
        comm.gather("x", 0) if comm.rank else comm.bcast("y", 0)  # need nobody, so they do not notice
        with pytest.raises(
            CollectiveMismatchError, match=r"(bcast|gather)\(root=0\) at .* (bcast|gather)\(root=0\) at "
        ):
            comm.barrier(timeout=LIMIT)

    pair.run(body)
    assert one.endpoint.statistics().waiting <= 2
    assert other.endpoint.statistics().waiting <= 2


def test_messages_of_others_are_no_quarrel(pair):
    """Those with a text for a tag belong to nobody's collectives, and those of later calls to who is ahead."""
    one, other = pair.comms
    message = Message(one.context | 1, 1, "text", 1, *one.codec.encode(1))
    other.endpoint.send(0, message, deadline=Deadline(LIMIT), doing="a test")
    other.call_log.made += 2  # two that needed no message
    other.gather("ahead", 0)
    for call in (lambda: one.bcast(1), lambda: one.bcast(1)):
        call()
    one.endpoint.progress()
    assert one.endpoint.statistics().waiting == 2
