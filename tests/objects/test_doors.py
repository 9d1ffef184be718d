"""doors: who is not on the driver's machine reaches a server there, and hears when it has ended."""

from __future__ import annotations

import pickle
import threading
from types import SimpleNamespace

import pytest

from klyng_mp.connection import Client, Listener
from klyng_mp.objects import doors, shared
from klyng_mp.objects.doors import DoorAddress, open_door

KEY = b"key"


class Server:
    """Sends everything back that a client sends, to so many clients."""

    def __init__(self, clients):
        self.listener = Listener(authkey=KEY)
        self.address = self.listener.address
        self.served = []
        self._thread = threading.Thread(target=self._serve, args=(clients,))
        self._thread.start()

    def _serve(self, clients):
        for _ in range(clients):
            with self.listener.accept() as connection:
                self.served.append(connection)
                try:
                    while (data := connection.recv_bytes()) != b"end":
                        connection.send_bytes(data)
                except EOFError:
                    pass

    def close(self):
        self._thread.join(60)
        self.listener.close()


@pytest.fixture
def dial(job):
    """Return a function that connects rank 1 to an address."""
    shared.set_desk(job.desks[1])
    yield lambda address: Client(pickle.loads(pickle.dumps(address)), authkey=b"not the server's")
    shared.set_desk(None)


def door_to(job, address):
    return open_door(job.numbers, address, lambda: Client(address, authkey=KEY))


def test_a_rank_talks_to_a_server_of_the_drivers_machine(job, dial):
    server = Server(2)
    address = door_to(job, server.address)
    for _ in range(2):
        with dial(address) as connection:
            connection.send(["some", "thing"])
            assert connection.recv() == ["some", "thing"]
            connection.send_bytes(bytes(3_000_000))
            assert len(connection.recv_bytes()) == 3_000_000
    server.close()


def test_the_end_of_either_is_the_others(job, dial):
    server = Server(2)
    address = door_to(job, server.address)
    with dial(address) as connection:
        connection.send_bytes(b"end")
        with pytest.raises(EOFError):
            connection.recv_bytes()
    dial(address).close()
    server.close()
    assert len(server.served) == 2


def test_who_has_ended_hangs_up(job, dial):
    server = Server(1)
    connection = dial(door_to(job, server.address))
    connection.send(1)
    assert connection.recv() == 1
    job.end(1)
    server.close()
    connection.close()


def test_a_server_that_has_ended_refuses(job, dial):
    server = Server(0)
    server.close()
    with pytest.raises(ConnectionRefusedError, match="refused"):
        dial(door_to(job, server.address))


def test_where_there_is_no_room_for_a_thread_it_is_refused_and_nothing_else_is_lost(job, dial, monkeypatch):
    server = Server(1)
    address = door_to(job, server.address)
    with monkeypatch.context() as patch:
        patch.setattr(doors, "threading", SimpleNamespace(Thread=no_thread))
        with pytest.raises(ConnectionRefusedError):
            dial(address)
    with dial(address) as connection:
        connection.send(1)
        assert connection.recv() == 1
    server.close()


def no_thread(**_options):
    raise RuntimeError("can't start new thread")


def test_a_closed_world_hangs_up(job, dial):
    server = Server(1)
    connection = dial(door_to(job, server.address))
    job.endpoints[0].close()
    server.close()
    connection.close()


def test_who_is_no_rank_takes_the_address_as_it_is(job):
    server = Server(1)
    address = door_to(job, server.address)
    assert address == server.address
    assert address.dial() is None
    with Client(address, authkey=KEY) as connection:
        connection.send(1)
        assert connection.recv() == 1
    server.close()
    again = pickle.loads(pickle.dumps(address))
    assert (type(again), again, again.number) == (DoorAddress, address, address.number)
