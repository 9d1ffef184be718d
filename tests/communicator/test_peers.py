"""What an endpoint knows of its peers."""

from __future__ import annotations

import pytest

from klyng_mp.communicator.peers import Peers
from klyng_mp.errors import PeerLostError
from klyng_mp.wire.mailbox import ANY_SOURCE


@pytest.fixture
def peers():
    made = Peers(0)
    for number in (1, 2, 3):
        made.welcome(number, 0)
    return made


def test_nobody_is_lost_at_first(peers):
    assert not peers.is_hopeless(ANY_SOURCE, None)
    assert not peers.is_hopeless(1, None)
    assert peers.is_present(1, 0)
    assert not peers.is_present(1, 1)


def test_any_source_is_hopeless_when_all_others_are_lost(peers):
    for number in (1, 2):
        peers.bury(number, "died", orderly=False)
        assert peers.is_hopeless(number, None)
        assert not peers.is_hopeless(ANY_SOURCE, None)
    assert peers.is_hopeless(ANY_SOURCE, [0, 1, 2])
    assert not peers.is_hopeless(ANY_SOURCE, [0])
    peers.bury(3, "has returned", orderly=True)
    assert peers.is_hopeless(ANY_SOURCE, None)
    assert not peers.is_hopeless(0, None)
    assert str(peers.loss(ANY_SOURCE, "x")) == (
        "every other rank is gone; the last one, rank 3, has returned; this rank was in x"
    )


def test_a_new_occupant_ends_the_loss(peers):
    peers.bury(1, "died", orderly=True)
    assert not peers.is_present(1, 0)
    assert peers.departed == {1}
    peers.welcome(1, 1)
    assert peers.is_present(1, 1)
    assert peers.is_former(1, 0)
    assert not peers.is_former(1, 1)
    assert not peers.is_former(1, None)
    assert not peers.is_former(9, 5)
    assert peers.departed == set()
    assert not peers.is_hopeless(1, None)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (lambda peers: peers.bury(1, "was killed", orderly=False), "was killed"),
        (lambda peers: peers.welcome(1, 1), "was replaced"),
        (lambda peers: peers.welcome(1, 0), "lost its connection"),
    ],
)
def test_sends_to_the_undecided_wait_for_the_reason(peers, verdict, reason):
    peers.suspect(1)
    peers.suspect(1)
    assert not peers.is_present(1, 0)
    tickets = [peers.hold(1), peers.hold(1)]
    assert all(not ticket.done and ticket.error is None for ticket in tickets)
    assert tickets[0].withdraw()
    verdict(peers)
    for ticket in tickets:
        assert isinstance(ticket.error, PeerLostError)
        assert ticket.error.reason == reason
        assert not ticket.withdraw()
    assert peers.undecided == {}
