"""launch.listener: who may ask a supervisor, and that nobody who asks can hold it up."""

from __future__ import annotations

import json
import os
import select
import socket

import pytest

from klyng_mp.launch import listener
from klyng_mp.launch.listener import ADDRESS, Listener, peer_of
from klyng_mp.launch.loop import Loop


class FakeWatch:
    def __init__(self, world):
        self.world = world
        self.asked = []

    def describe(self, then):
        self.asked.append(then)

    def answer(self):
        self.asked.pop(0)(self.world)


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def watches():
    return [FakeWatch({"size": 2, "run": 1, "ranks": []}), FakeWatch({"size": 3, "run": 4, "ranks": []})]


@pytest.fixture
def served(loop, watches):
    served = Listener(loop, 4711, lambda: watches)
    yield served
    served.close()


@pytest.fixture
def connect(served):
    clients = []

    def connect():
        client = socket.socket(socket.AF_UNIX)
        client.connect(ADDRESS.format(uid=os.geteuid(), pid=os.getpid()))
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def received(client):
    client.settimeout(10)
    return json.loads(b"".join(iter(lambda: client.recv(1000), b"")))


def test_who_asks_is_told_when_all_have_answered(loop, watches, connect):
    client = connect()
    loop.turn()
    watches[1].answer()
    assert not select.select([client], [], [], 0)[0]
    watches[0].answer()
    loop.turn()
    report = received(client)
    assert (report["supervisor"], report["driver"]) == (os.getpid(), 4711)
    assert [world["size"] for world in report["worlds"]] == [3, 2]


def test_a_supervisor_without_ranks_answers_too(loop, watches, connect):
    watches.clear()
    client = connect()
    loop.turn()
    loop.turn()
    assert received(client)["worlds"] == []


def test_another_user_is_not_answered(loop, watches, connect, monkeypatch):
    monkeypatch.setattr(listener, "peer_of", lambda _sock: (1, os.geteuid() + 1))
    client = connect()
    loop.turn()
    assert client.recv(1) == b""
    assert watches[0].asked == []


def test_who_does_not_read_holds_up_nobody_and_is_given_up(loop, watches, connect, monkeypatch):
    monkeypatch.setattr(listener, "_CLIENT_SECONDS", 0.0)
    watches[0].world["ranks"] = ["x" * 10_000_000]
    slow = connect()
    loop.turn()  # its time is over at once
    for watch in watches:
        watch.answer()
    assert slow.recv(1) == b""
    monkeypatch.undo()
    quick = connect()
    loop.turn()
    for watch in watches:
        watch.answer()
    data = b""
    while not data.endswith(b"}]}"):
        loop.turn()
        data += quick.recv(1 << 20)
    assert len(data) > 10_000_000


def test_who_leaves_before_the_answer_is_no_trouble(loop, watches, connect):
    connect().close()
    loop.turn()
    for watch in watches:
        watch.answer()
    loop.turn()


def test_there_is_a_limit_to_those_who_ask_at_once(loop, connect, monkeypatch):
    monkeypatch.setattr(listener, "_MOST_CLIENTS", 1)
    connect()
    loop.turn()
    second = connect()
    loop.turn()
    assert second.recv(1) == b""


def test_an_address_that_is_taken_is_gone_without(loop, served):
    other = Listener(loop, 1, list)
    other.close()


def test_the_kernel_tells_who_asks():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), os.geteuid())
