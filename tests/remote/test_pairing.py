"""pairing: one code, for a while, for one client, with few guesses."""

from __future__ import annotations

import pytest
from remote.test_home import at_once

import klyng_mp as mp
from klyng_mp.remote.home import Home
from klyng_mp.remote.login import BeaconLogin, ClientLogin, Guard
from klyng_mp.remote.pairing import PAIRING_GUESSES, PAIRING_SECONDS, Pairing
from klyng_mp.remote.security import ClientKey, Verifier, new_code, plain_code
from klyng_mp.remote.trust import AuthorizedClients


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def pairing(tmp_path, now):
    return Pairing(Home(tmp_path / "home"), lambda: now[0])


def test_a_code_is_used_once(pairing):
    assert pairing.guess(b"verifier") is False
    pairing.offer(b"verifier")
    assert pairing.guess(b"verifier") is True
    assert pairing.redeem(b"verifier") is True
    assert pairing.redeem(b"verifier") is False
    assert pairing.guess(b"verifier") is False
    assert pairing.current() is None


def test_it_expires(pairing, now):
    assert pairing.offer(b"verifier").expires == 1000.0 + PAIRING_SECONDS
    now[0] += PAIRING_SECONDS - 0.1
    assert pairing.guess(b"verifier") is True
    now[0] += 0.1
    assert pairing.guess(b"verifier") is False
    assert pairing.redeem(b"verifier") is False


def test_it_is_void_where_the_clock_was_set_back(pairing, now):
    pairing.offer(b"verifier")
    now[0] -= 1
    assert pairing.guess(b"verifier") is False


def test_it_bears_few_guesses_and_the_last_one_may_be_right(pairing):
    pairing.offer(b"verifier")
    assert pairing.current().guesses == PAIRING_GUESSES
    assert pairing.guess(b"another") is False
    assert pairing.current().guesses == PAIRING_GUESSES  # that was none at this one
    assert [pairing.guess(b"verifier") for _ in range(PAIRING_GUESSES)] == [True] * PAIRING_GUESSES
    assert pairing.guess(b"verifier") is False
    assert pairing.current() is None
    assert pairing.redeem(b"verifier") is True


def test_a_new_code_makes_the_old_one_void(pairing):
    pairing.offer(b"old")
    pairing.offer(b"new", seconds=5, guesses=1)
    assert pairing.redeem(b"old") is False
    assert pairing.redeem(b"new") is True


def test_it_can_be_cancelled(pairing):
    assert pairing.cancel() is False
    pairing.offer(b"verifier")
    assert pairing.cancel() is True
    assert pairing.guess(b"verifier") is False


def test_of_several_processes_one_redeems_it(tmp_path):
    pairing = Pairing(Home(tmp_path / "home"))
    pairing.offer(b"verifier")
    assert sum(at_once(8, lambda _: pairing.redeem(b"verifier"))) == 1


def test_several_processes_have_no_more_guesses_than_one(tmp_path):
    pairing = Pairing(Home(tmp_path / "home"))
    pairing.offer(b"verifier", guesses=5)
    assert sum(at_once(8, lambda _: pairing.guess(b"verifier"))) == 5


def test_a_login_by_code_leaves_a_key_that_the_next_login_is_by(tmp_path):
    home = Home(tmp_path / "home")
    pairing, clients = Pairing(home), AuthorizedClients(home)
    code, key = new_code(), ClientKey.create()
    stored = Verifier.of(plain_code(code))
    pairing.offer(stored.salt + stored.secret)
    offered = []

    def verifier():
        offered.append(pairing.current().verifier)
        return Verifier(offered[0][:16], offered[0][16:])

    guard = Guard(
        password=lambda: None,
        code=verifier,
        guess=lambda: pairing.guess(offered[0]),
        redeem=lambda: pairing.redeem(offered[0]),
        authorized=clients.name_of,
        nobody=Verifier.of_nobody(),
    )

    def log_in(**proof):
        client, beacon = ClientLogin("SHA256:x", **proof), BeaconLogin("SHA256:x", guard)
        data = client.start()
        while data:
            data = client.feed(beacon.feed(data))
        return beacon.client

    assert log_in(code=code).method == "code"
    assert pairing.current() is None
    clients.add(key.public, "laptop")
    assert log_in(key=key, pinned="SHA256:x").name == "laptop"
    clients.revoke("laptop")
    with pytest.raises(mp.AuthenticationError, match="does not know this key"):
        log_in(key=key, pinned="SHA256:x")


@pytest.mark.parametrize("text", ["x", "00 1 2", "zz 1.0 2.0 3", "00 one 2.0 3", "00 1.0 2.0 3.5", "00 1.0 2.0 3 4"])
def test_a_damaged_file_lets_nobody_in(pairing, text):
    home = pairing._home
    home.write(home.pairing, text)
    for call in (pairing.current, pairing.cancel, lambda: pairing.guess(b"\0"), lambda: pairing.redeem(b"\0")):
        with pytest.raises(mp.BeaconError, match="pairing is damaged: remove it, and make a new code"):
            call()
    pairing.offer(b"verifier")
    assert pairing.guess(b"verifier") is True
