"""What every test of the room has: a world of one of its own."""

from __future__ import annotations

import pytest

from klyng_mp.communicator import current


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(current, "_current", None)
    yield
    if current._current is not None:
        current._current.endpoint.close()
