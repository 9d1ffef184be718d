"""trust: beacons that a client knows, clients that a beacon lets in."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

import klyng_mp as mp
from klyng_mp.remote.home import Home
from klyng_mp.remote.trust import AuthorizedClients, KnownBeacons, key_fingerprint

ONE, OTHER = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43
KEY, SECOND = b"k" * 32, b"s" * 32
LINE = f"klyng-ed25519 {base64.b64encode(KEY).decode()}"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def beacons(home):
    return KnownBeacons(home)


@pytest.fixture
def clients(home):
    return AuthorizedClients(home)


def put(path, text):
    Path(path).write_text(text)
    os.chmod(path, 0o600)


# -- beacons ---------------------------------------------------------------------------------------


def test_a_beacon_is_known_once_it_was_added(beacons, home):
    assert beacons.lookup("lab2:2222") is None
    assert beacons.check("lab2:2222", ONE) is False
    beacons.add("lab2:2222", ONE)
    beacons.add("lab2:2222", ONE)
    beacons.add("[::1]:99", OTHER)
    assert beacons.check("lab2:2222", ONE) is True
    assert beacons.lookup("[::1]:99") == OTHER
    assert Path(home.known_beacons).read_text() == f"lab2:2222 {ONE}\n[::1]:99 {OTHER}\n"


def test_one_that_shows_another_fingerprint_is_refused(beacons):
    beacons.add("lab2:2222", ONE)
    for call in (beacons.check, beacons.add):
        with pytest.raises(mp.AuthenticationError, match="somebody may stand in between, or it was set up") as caught:
            call("lab2:2222", OTHER)
        assert caught.value.host == "lab2:2222"
        assert ONE in str(caught.value)
        assert OTHER in str(caught.value)
        assert "known_beacons" in str(caught.value)
    assert beacons.lookup("lab2:2222") == ONE


def test_the_user_may_want_it_replaced_or_forgotten(beacons, home):
    put(home.known_beacons, f"# mine\n\nlab2:2222 {ONE}\nlab3:2222 {ONE}\n")
    beacons.add("lab2:2222", OTHER, replace=True)
    assert beacons.lookup("lab2:2222") == OTHER
    assert beacons.forget("lab3:2222") is True
    assert beacons.forget("lab3:2222") is False
    assert Path(home.known_beacons).read_text() == f"# mine\n\nlab2:2222 {OTHER}\n"


@pytest.mark.parametrize("line", ["lab2:2222", f"lab2:2222 {ONE} more", "lab2:2222 SHA256:short", f"lab2:2222 {ONE}="])
def test_a_damaged_line_is_named_and_nothing_is_believed(beacons, home, line):
    put(home.known_beacons, f"# mine\n{line}\nlab3:2222 {ONE}\n")
    for call in (
        lambda: beacons.lookup("lab3:22"),
        lambda: beacons.add("lab4:1", ONE),
        lambda: beacons.forget("lab3:22"),
    ):
        with pytest.raises(mp.BeaconError, match="known_beacons, line 2 is not HOST:PORT SHA256:…: correct or remove"):
            call()


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [("", ONE), ("a b", ONE), ("a\nb", ONE), ("#a", ONE), ("a", ""), ("a", ONE + "\n"), ("a", f"{ONE}\nb {OTHER}")],
)
def test_what_is_no_beacon_is_not_added(beacons, home, name, fingerprint):
    with pytest.raises(mp.BeaconError, match="is no beacon: write HOST:PORT SHA256:…"):
        beacons.add(name, fingerprint)
    assert home.read(home.known_beacons) == ""


# -- clients ---------------------------------------------------------------------------------------


def test_a_client_is_let_in_until_it_is_revoked(clients, home):
    assert clients.name_of(KEY) is None
    added = clients.add(KEY, "laptop")
    clients.add(f"klyng-ed25519 {base64.b64encode(SECOND).decode()} the other one")
    assert [client.name for client in clients.clients()] == ["laptop", "the other one"]
    assert clients.name_of(KEY) == "laptop"
    assert added.fingerprint == key_fingerprint(KEY)
    assert Path(home.authorized_clients).read_text().splitlines()[0] == f"{LINE} laptop"
    assert clients.revoke(added.fingerprint) == [added]
    assert clients.name_of(KEY) is None
    assert [client.key for client in clients.revoke("the other one")] == [SECOND]
    assert clients.clients() == []


def test_a_name_that_is_taken_gets_a_number_and_a_key_that_is_there_a_new_name(clients):
    clients.add(KEY, "laptop")
    assert clients.add(SECOND, "laptop").name == "laptop-2"
    assert clients.add(b"3" * 32, "laptop").name == "laptop-3"
    assert clients.add(b"4" * 32, "x" * 64).name == "x" * 64
    assert clients.add(b"5" * 32, "x" * 64).name == "x" * 59 + "-2"
    assert clients.add(KEY, "desk").name == "desk"
    assert clients.add(SECOND).name == "client"
    assert len(clients.clients()) == 5


def test_comments_stay(clients, home):
    put(home.authorized_clients, f"# mine\n{LINE}\n")
    assert clients.name_of(KEY) == "client"
    clients.add(SECOND, "b")
    clients.revoke("client")
    assert Path(home.authorized_clients).read_text().startswith("# mine\nklyng-ed25519 c3Nz")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("ssh-ed25519 AAAA laptop", "is no client's key"),
        ("klyng-ed25519", "is no client's key"),
        ("klyng-ed25519 AAAA laptop", "has a damaged key"),
        (LINE[:-3] + "*==", "has a damaged key"),
        (LINE[:-3] + "Ä==", "has a damaged key"),
        (f"{LINE} {'x' * 65}", "has no name of 1 to 64 printable characters"),
        (f"{LINE} a\u202eb", "has no name of 1 to 64 printable characters"),
    ],
)
def test_a_damaged_line_lets_nobody_in(clients, home, line, what):
    with pytest.raises(mp.BeaconError, match=f"this {what}: give a line like klyng-ed25519 KEY NAME"):
        clients.add(line)
    clients.add(SECOND, "b")
    with open(home.authorized_clients, "a") as file:
        file.write(f"{line}\n")
    for call in (
        clients.clients,
        lambda: clients.name_of(SECOND),
        lambda: clients.revoke("b"),
        lambda: clients.add(KEY),
    ):
        with pytest.raises(mp.BeaconError, match=f"authorized_clients, line 2 {what}: correct or remove it"):
            call()


@pytest.mark.parametrize("name", ["\n", "a\nb", f"a\n{LINE} b", "a\x1b[31m", "x" * 65])
def test_a_client_cannot_choose_what_the_file_says(clients, home, name):
    with pytest.raises(mp.BeaconError, match="has no name of 1 to 64 printable characters"):
        clients.add(KEY, name)
    assert home.read(home.authorized_clients) == ""


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33])
def test_a_key_has_32_bytes(clients, key):
    with pytest.raises(mp.BeaconError, match=f"this key has {len(key)} bytes and not 32"):
        clients.add(key, "a")


def test_revoking_nobody_names_those_that_there_are(clients):
    with pytest.raises(mp.BeaconError, match="there is no client 'laptop': authorized are nobody"):
        clients.revoke("laptop")
    clients.add(KEY, "desk")
    with pytest.raises(mp.BeaconError, match="there is no client 'laptop': authorized are desk"):
        clients.revoke("laptop")


def test_clients_cannot_fill_the_disk(clients, monkeypatch):
    monkeypatch.setattr("klyng_mp.remote.trust._MAX_CLIENTS", 2)
    clients.add(KEY, "a")
    clients.add(SECOND, "b")
    with pytest.raises(mp.BeaconError, match=r"has 2 clients: revoke some \(klyng-mp beacon revoke\)"):
        clients.add(b"3" * 32, "c")
    assert clients.add(KEY, "again").name == "again"
