from __future__ import annotations

import socket
import threading

import pytest

from klyng_mp.deadline import Deadline
from klyng_mp.remote import channels as module
from klyng_mp.remote.channels import MOST_KEPT, Channels, is_channel
from klyng_mp.wire.frames import DRIVER, FIRST_CHANNEL

NOW = Deadline(0)


@pytest.fixture
def channels():
    made = Channels()
    yield made
    made.close()


@pytest.fixture
def make_socket():
    others = []

    def make():
        ours, theirs = socket.socketpair()
        others.append(theirs)
        return ours

    yield make
    for other in others:
        other.close()


def test_their_numbers_are_those_of_no_rank():
    assert [is_channel(number) for number in (0, FIRST_CHANNEL - 1, FIRST_CHANNEL, DRIVER - 1, DRIVER)] == [
        False, False, True, True, False,
    ]  # fmt: skip


def test_one_is_claimed_once(channels, make_socket):
    sock = make_socket()
    channels.offer(FIRST_CHANNEL, sock)
    assert channels.claim(FIRST_CHANNEL + 1, NOW) is None
    assert channels.claim(FIRST_CHANNEL, NOW) is sock
    assert channels.claim(FIRST_CHANNEL, NOW) is None
    sock.close()


def test_who_claims_waits(channels, make_socket):
    sock = make_socket()
    offering = threading.Thread(target=channels.offer, args=(7, sock))
    offering.start()
    assert channels.claim(7, Deadline(30)) is sock
    offering.join()
    sock.close()


def test_a_second_one_of_the_same_number_is_closed(channels, make_socket):
    first, second = make_socket(), make_socket()
    channels.offer(7, first)
    channels.offer(7, second)
    assert second.fileno() < 0
    assert channels.claim(7, NOW) is first
    first.close()


def test_only_so_many_are_kept(channels, make_socket):
    socks = [make_socket() for _ in range(MOST_KEPT + 1)]
    for number, sock in enumerate(socks):
        channels.offer(number, sock)
    assert [sock.fileno() >= 0 for sock in socks] == [True] * MOST_KEPT + [False]


def test_what_nobody_wants_is_closed(channels, make_socket, monkeypatch):
    old, new = make_socket(), make_socket()
    channels.offer(1, old)
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.0)
    channels.offer(2, new)
    assert old.fileno() < 0
    assert channels.claim(2, NOW) is new
    new.close()


def test_nothing_is_kept_after_the_end(channels, make_socket):
    kept, late = make_socket(), make_socket()
    channels.offer(1, kept)
    channels.close()
    channels.offer(2, late)
    assert (kept.fileno(), late.fileno()) == (-1, -1)
    assert channels.claim(1, Deadline(30)) is None
