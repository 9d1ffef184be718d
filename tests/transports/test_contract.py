"""Every transport in the table offers all that the contract names."""

from __future__ import annotations

import inspect

import pytest

from klyng_mp.transports import TRANSPORTS
from klyng_mp.transports.contract import SENT, Ticket, Transport

NAMES = [name for name in vars(Transport) if not name.startswith("_")]


@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_table_holds_transports(name):
    for method in NAMES:
        promised = inspect.signature(getattr(Transport, method))
        assert inspect.signature(getattr(TRANSPORTS[name], method)) == promised


def test_a_plain_ticket_is_of_a_message_that_is_under_way():
    assert SENT.done
    assert not SENT.withdraw()
    ticket = Ticket()
    ticket.keep()
    assert (ticket.done, ticket.started, ticket.error) == (False, False, None)
