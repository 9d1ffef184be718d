"""The communicator that a process is in: a world of one until it is told otherwise."""

from __future__ import annotations

import pytest
from contracts.ranks import ranks

from klyng_mp.communicator import current
from klyng_mp.errors import ClosedError, DeadlineError


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setattr(current, "_current", None)
    yield
    if current._current is not None:
        current._current.endpoint.close()


def test_without_a_launcher_a_program_is_a_world_of_one():
    assert (current.rank(), current.size()) == (0, 1)
    current.send({"to": "myself"}, 0, "tag")
    assert current.recv(0, "tag", timeout=0) == {"to": "myself"}
    with pytest.raises(DeadlineError):
        current.recv(timeout=0)
    assert current.comm() is current.comm()


def test_who_brings_a_rank_to_life_says_which_communicator_it_has():
    with ranks(2) as made:
        current.set_current(made.comms[1])
        assert current.comm() is made.comms[1]
        assert (current.rank(), current.size()) == (1, 2)
        current.set_current(None)


def test_init_calls_the_program_and_end_ends_it():
    assert current.init(lambda *args, **kwargs: (args, kwargs), 1, two=2) == ((1,), {"two": 2})

    async def main(value):
        await current.comm().isend(value, 0)
        return await current.comm().irecv(0)

    assert current.init(main, 5) == 5
    current.end()
    with pytest.raises(ClosedError, match="this communicator is closed"):
        current.send("x", 0)
