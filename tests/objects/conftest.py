"""Processes with desks, all in this one: a driver and two ranks, joined by sockets."""

from __future__ import annotations

import pickle

import pytest
from contracts.ranks import Background, ranks

from klyng_mp.objects import shared
from klyng_mp.objects.desk import Desk
from klyng_mp.objects.shared import Numbers
from klyng_mp.wire.codec import Codec


class Job:
    """Endpoint 0 is the driver's.

    Attributes:
        numbers: of the objects that the driver makes.
        endpoints, desks: of the processes.
    """

    def __init__(self, made):
        self.endpoints = made.endpoints
        codec = Codec(main_by_reference=True)
        self.desks = [
            Desk(endpoint, codec, directory=(0, 1) if endpoint.number else None) for endpoint in made.endpoints
        ]
        self.numbers = Numbers(self.desks[0])
        del shared._worlds[self.numbers._world]  # all of the processes are this one, so it must not be the driver's
        for endpoint in self.endpoints:
            endpoint.attend()

    def at(self, number, made):
        """Return an object as it is in a process."""
        data = pickle.dumps(made)
        shared.set_desk(self.desks[number])
        try:
            return pickle.loads(data)
        finally:
            shared.set_desk(None)

    def everywhere(self, made):
        return [self.at(number, made) for number in range(len(self.desks))]

    def start(self, function, *args):
        """Let another thread call something; return when it waits for an answer, with what has its result."""
        before = sum(desk.waits for desk in self.desks)
        call = Background(lambda: function(*args))
        while sum(desk.waits for desk in self.desks) <= before:
            assert not call.over, call.result()
        return call

    def end(self, number, *, orderly=False):
        """Let the others hear that a process has ended."""
        for endpoint in self.endpoints:
            if endpoint.number != number:
                endpoint.mark_lost(number, "was killed by SIGKILL", orderly=orderly)


@pytest.fixture
def job():
    with ranks(3, "stream") as made:
        yield Job(made)
