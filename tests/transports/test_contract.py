"""Every transport in the table offers all that the contract names."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest

from klyng_mp.errors import ClosedError
from klyng_mp.transports import TRANSPORTS
from klyng_mp.transports.contract import SENT, Nowhere, Ticket, Transport
from klyng_mp.wire.frames import Message

NAMES = [name for name in vars(Transport) if not name.startswith("_")]


@pytest.mark.parametrize("cls", [*map(resolve_name, TRANSPORTS.values()), Nowhere])
def test_they_are_transports(cls):
    for method in NAMES:
        assert inspect.signature(getattr(cls, method)) == inspect.signature(getattr(Transport, method))


def test_nowhere_is_quiet_but_for_sending():
    nowhere = Nowhere()
    for action in (nowhere.drain, nowhere.disconnect):
        action(1)
    nowhere.close()
    nowhere.abandon()
    assert nowhere.traffic() == {}
    assert nowhere.pending() == nowhere.pending(1) == sum(nowhere.statistics()) == 0
    with pytest.raises(ClosedError, match="no way to 1"):
        nowhere.send(1, Message(1, 0, 0, 0, 0, b"", ()), copy=False)


def test_a_plain_ticket_is_of_a_message_that_is_under_way():
    assert SENT.done
    assert not SENT.withdraw()
    ticket = Ticket()
    ticket.keep()
    assert (ticket.done, ticket.started, ticket.error) == (False, False, None)
