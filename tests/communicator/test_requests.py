"""Requests, beyond what the communicator's contract says of them."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.requests import Request, waitall, waitany, waitsome
from klyng_mp.errors import CodecError, DeadlineError, PeerLostError


class Unbuildable:
    """Travels, and cannot be rebuilt."""

    def __reduce__(self):
        return int, ("no number",)


@pytest.fixture
def pair():
    with ranks(2) as made:
        yield made.comms


def test_threads_that_wait_for_one_request_get_one_object(pair):
    sender, receiver = pair
    request = receiver.irecv(0)
    waiting = when_waiting(receiver.endpoint, 3)
    calls = [Background(request.wait) for _ in range(3)]
    assert waiting.wait(LIMIT)
    sender.send(["x"], 1)
    first, *others = [call.result() for call in calls]
    assert all(one is first for one in others)


def test_what_cannot_be_rebuilt_fails_every_wait_the_same(pair):
    sender, receiver = pair
    request = receiver.irecv(0)
    sender.send(Unbuildable(), 1)
    for _ in range(2):
        with pytest.raises(CodecError):
            request.wait(LIMIT)
    assert request.done


def test_a_failed_receive_counts_as_handed_out_by_waitany_and_waitsome(pair):
    sender, receiver = pair
    sender.send("there", 1, "there")
    requests = [receiver.irecv(0, "never"), receiver.irecv(0, "there")]
    sender.endpoint.close()
    with pytest.raises(PeerLostError):
        receiver.recv(0, "x", timeout=LIMIT)
    with pytest.raises(PeerLostError):
        waitany(requests, LIMIT)
    assert waitany(requests, LIMIT) == (1, "there")
    with pytest.raises(ValueError, match="out of 2"):
        waitany(requests)
    more = [receiver.irecv(0, "never")]
    with pytest.raises(PeerLostError):
        waitsome(more, LIMIT)


def test_waitall_fails_as_soon_as_one_has_failed():
    with ranks(3) as made:
        receiver = made.comms[0]
        requests = [receiver.irecv(1), receiver.irecv(2)]
        waiting = when_waiting(receiver.endpoint)
        call = Background(lambda: waitall(requests))
        assert waiting.wait(LIMIT)
        made.endpoints[2].close()
        with pytest.raises(PeerLostError, match="rank 2"):
            call.result()
        made.comms[1].send("still", 0)
        assert requests[0].wait(LIMIT) == "still"


def test_waitall_gives_up_and_keeps_what_is_done(pair):
    sender, receiver = pair
    requests = [receiver.irecv(0, tag) for tag in range(3)]
    sender.send("one", 1, 1)
    with pytest.raises(DeadlineError, match=r"waitall of 3 requests did not finish within 0\.01 s"):
        waitall(requests, 0.01)
    assert requests[1].wait(0) == "one"
    sender.send("zero", 1, 0)
    sender.send("two", 1, 2)
    assert waitall(requests, LIMIT) == ["zero", "one", "two"]


def test_an_isend_to_the_lost_fails(pair):
    sender, receiver = pair
    request = sender.isend(bytes(5_000_000), 1, "t")
    assert repr(request) == "<Request isend(dest=1, tag='t'): under way>"
    receiver.endpoint.close()
    with pytest.raises(PeerLostError, match=r"isend\(dest=1, tag='t'\)"):
        request.wait(LIMIT)
    with pytest.raises(PeerLostError):
        request.test()
    assert not request.cancel()


def test_the_base_is_abstract(pair):
    request = Request(pair[0].endpoint, "x")
    for action in (lambda: request.done, lambda: request.settled, request.cancel, request.wait):
        with pytest.raises(NotImplementedError):
            action()
