"""connection: pipes, listeners and clients of ours, which plain multiprocessing understands."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading

import pytest

import klyng_mp as mp
from klyng_mp import connection


@pytest.mark.parametrize("duplex", [True, False])
def test_the_ends_of_a_pipe(duplex):
    here, there = mp.Pipe(duplex)
    assert (type(here), type(there)) == (connection.Connection, connection.Connection)
    assert (here.readable, here.writable, there.readable, there.writable) == (True, duplex, duplex, True)
    there.send([1, lambda: 2])
    number, function = here.recv()
    assert (number, function()) == (1, 2)
    assert connection.wait([here], 0) == []
    there.close()
    with pytest.raises(EOFError):
        here.recv()
    here.close()


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_a_listener_and_its_client(family):
    with connection.Listener(family=family, authkey=b"secret") as listener:
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(listener.accept()))
        thread.start()
        client = connection.Client(listener.address, authkey=b"secret")
        thread.join()
        with client, accepted[0] as server:
            assert (type(client), type(server)) == (connection.Connection, connection.Connection)
            server.send(lambda: "hello")
            assert client.recv()() == "hello"


def test_a_wrong_key_is_refused():
    with connection.Listener(authkey=b"secret") as listener:
        refused = []

        def accept():
            with pytest.raises(mp.AuthenticationError):
                listener.accept()
            refused.append(True)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises((mp.AuthenticationError, EOFError, ConnectionError)):
            connection.Client(listener.address, authkey=b"guess")
        thread.join()
        assert refused == [True]


def test_a_plain_multiprocessing_peer():
    here, there = mp.Pipe()
    plain = multiprocessing.connection.Connection(os.dup(there.fileno()))
    here.send({"a": [1, 2]})
    assert plain.recv() == {"a": [1, 2]}
    here.send(lambda x: x + 1)
    assert plain.recv()(1) == 2
    plain.send((3, 4))
    assert here.recv() == (3, 4)
    for end in (here, there, plain):
        end.close()


def test_what_cannot_travel_is_refused_and_nothing_is_sent():
    here, there = mp.Pipe()
    with pytest.raises(mp.CodecError, match=r"\['lock'\] cannot travel"):
        here.send({"lock": threading.Lock()})
    here.send("next")
    assert there.recv() == "next"
    here.close()
    there.close()
    with pytest.raises(OSError, match="handle is closed"):
        here.send(1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_connections_travel_in_connections(method):
    context = mp.get_context(method)
    here, there = context.Pipe()
    inner, outer = context.Pipe()

    def child(end):
        passed, function = end.recv()
        passed.send(function())

    process = context.Process(target=child, args=(there,))
    process.start()
    here.send((outer, lambda: "through"))
    assert inner.recv() == "through"
    process.join()
    for end in (here, there, inner, outer):
        end.close()
    multiprocessing.resource_sharer.stop()
