"""How ranks learn that they do not make the same collective calls, and when they must not think so."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.deadline import Deadline
from klyng_mp.errors import CollectiveMismatchError
from klyng_mp.wire.frames import Message


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
