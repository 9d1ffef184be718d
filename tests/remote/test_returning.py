"""returning: lost hosts are tried until they answer, not for ever with a password that is wrong, and not too long."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from programs import wait_until

from klyng_mp.deadline import Deadline
from klyng_mp.errors import BeaconError, RemoteProtocolError
from klyng_mp.remote import returning
from klyng_mp.remote.hosts import read_hosts
from klyng_mp.remote.returning import LostHosts


class Tried:
    """Lost hosts whose time has come, and what became of them."""

    def __init__(self):
        self.lock = threading.RLock()
        self.welcome = []
        self.hosts = LostHosts(self.lock, object, self.welcome.append)

    def add(self, entry):
        (host,) = read_hosts([entry])
        with self.lock:
            self.hosts.add(SimpleNamespace(host=host, share=range(2), name=host.key, far=not host.is_local))
            (lost,) = self.hosts._lost or [None]
        return lost

    def look(self):
        with self.lock:
            self.hosts.look()


@pytest.fixture
def tried(client_home, monkeypatch):
    monkeypatch.setattr(returning, "_FIRST_PAUSE_SECONDS", 0.0)
    made = Tried()
    yield made
    with made.lock:
        made.hosts.close()


def test_this_machine_does_not_come_back(tried):
    assert tried.add("local") is None


def test_one_that_does_not_answer_is_put_off_longer_each_time(tried, monkeypatch):
    monkeypatch.setattr(returning, "_LAST_PAUSE_SECONDS", 0.3)
    lost = tried.add({"host": "127.0.0.1:1", "passwd": "x", "max_procs": 2})
    lost.pause = 0.1
    for pause in (0.2, 0.3, 0.3):
        lost.due = 0.0
        tried.look()
        wait_until(lambda: not lost.tried)
        assert lost.pause == pytest.approx(pause)
    assert lost in tried.hosts._lost


def test_one_that_has_another_password_is_given_up(tried, beacons):
    lost = tried.add({**beacons[0].entry(), "passwd": "another"})
    tried.look()
    wait_until(lambda: lost not in tried.hosts._lost)
    tried.look()
    assert tried.welcome == []
    beacons[0].check_tidy()


def test_an_attempt_that_nobody_wants_any_more_ends_at_once(tried, beacons, monkeypatch):
    monkeypatch.setattr(returning.RemoteSite, "prepare", never_ready)
    lost = tried.add(beacons[0].entry())
    before = beacons[0].leftovers()
    tried.look()
    wait_until(lambda: lost.link is not None)
    (thread,) = (one for one in threading.enumerate() if one.name.startswith("klyng_mp return"))
    with tried.lock:
        tried.hosts.close()
    thread.join(30)
    assert not thread.is_alive()
    assert tried.welcome == []
    beacons[0].check_tidy(before)


def never_ready(site, _plan):
    """Wait for an answer to what was never asked."""
    with pytest.raises((EOFError, OSError, RemoteProtocolError)) as caught:
        site._link.receive_now(Deadline(120.0), "record")
    raise BeaconError(f"it broke off: {caught.value}", site.name)
