"""Ranks in this process that share memory."""

from __future__ import annotations

import pytest
from contracts.transport import Side
from sharing import Shared


@pytest.fixture
def shared():
    made = Shared(3)
    yield made
    made.close()


@pytest.fixture
def sides(shared):
    trio = [Side(number) for number in range(3)]
    for side in trio:
        shared.join(side)
    yield trio
    for side in trio:
        side.close()
