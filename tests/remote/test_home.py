"""home: the folder of a user's beacon and clients, which is nobody else's."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

import klyng_mp as mp
from klyng_mp.remote.home import Home, home_path
from klyng_mp.remote.options import read_options
from klyng_mp.remote.pairing import Pairing
from klyng_mp.remote.running import announce
from klyng_mp.remote.trust import AuthorizedClients, KnownBeacons

FINGERPRINT = "SHA256:" + "a" * 43


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


# -- the folder ------------------------------------------------------------------------------------


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KLYNG_MP_HOME", raising=False)
    assert home_path() == str(tmp_path / ".klyng_mp")
    monkeypatch.setenv("KLYNG_MP_HOME", "")
    assert Home().path == str(tmp_path / ".klyng_mp")
    monkeypatch.setenv("KLYNG_MP_HOME", "~/elsewhere")
    assert home_path() == str(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KLYNG_MP_HOME", "here")
    assert home_path() == str(tmp_path / "here")


def test_it_is_made_for_its_owner_alone_with_all_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "home"
    before = os.umask(0)
    try:
        Home(path)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o700
    assert list(path.iterdir()) == []
    Home(path)  # which is there now


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_one_that_others_can_write_to_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(mp.BeaconError, match=f"other users can write to {tmp_path}: `chmod 700"):
        Home(tmp_path)
    tmp_path.chmod(0o755)
    Home(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_one_of_another_user_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(mp.BeaconError, match="belongs to another user: set KLYNG_MP_HOME to a folder of your own"):
        Home(tmp_path)


def test_one_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(mp.BeaconError, match="file is no folder: set KLYNG_MP_HOME"):
        Home(tmp_path / "file")
    with pytest.raises(mp.BeaconError, match=r"cannot be used \((Not a directory|File exists)\): .* set KLYNG_MP_HOME"):
        Home(tmp_path / "file" / "home")


def test_machines_that_share_it_have_files_of_their_own(tmp_path, monkeypatch):
    names = set()
    for host in ("lab1", "lab2", "../../etc"):
        monkeypatch.setattr("klyng_mp.remote.home.hostname", lambda host=host: host)
        home = Home(tmp_path / "home")
        names |= {home.state, home.log}
        assert home.password == str(tmp_path / "home" / "password")
    assert len(names) == 6
    assert {os.path.dirname(name) for name in names} == {str(tmp_path / "home")}


def test_of_what_a_fresh_one_gets_nothing_is_empty_or_for_others(home):
    before = os.umask(0)  # as careless as can be
    try:
        home.ensure_password(lambda: "k7fq-9m2x")
        KnownBeacons(home).add("lab2:2222", FINGERPRINT)
        AuthorizedClients(home).add(b"k" * 32, "laptop")
        Pairing(home).offer(b"verifier")
        announce(home, "127.0.0.1", 2222, FINGERPRINT)
        read_options(home)
    finally:
        os.umask(before)
    found = {path.name: path for path in Path(home.path).iterdir()}
    state = os.path.basename(home.state)
    assert set(found) == {"authorized_clients", "known_beacons", "lock", "pairing", "password", state}
    assert {mode_of(path) for path in found.values()} == {0o600}
    assert [name for name, path in found.items() if path.stat().st_size == 0] == ["lock"]


# -- files -----------------------------------------------------------------------------------------


def test_what_is_not_there_is_empty(home):
    assert home.read(home.known_beacons) == ""
    assert home.read(home.pairing, secret=True) == ""


def test_a_file_is_replaced_and_a_link_is_not_followed(home, tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    os.symlink(other, home.known_beacons)
    home.write(home.known_beacons, "new\n")
    assert other.read_text() == "mine"
    assert home.read(home.known_beacons) == "new\n"
    assert not os.path.islink(home.known_beacons)


def test_a_lock_that_is_a_link_is_refused(home, tmp_path):
    os.symlink(tmp_path / "victim", os.path.join(home.path, "lock"))
    with pytest.raises(mp.BeaconError, match=r"lock cannot be used \(Too many levels"), home.lock():
        pytest.fail("locked")
    assert not (tmp_path / "victim").exists()


def test_what_others_may_have_written_is_refused(home):
    Path(home.options).write_text("port = 1\n")
    os.chmod(home.options, 0o644)
    assert home.read(home.options) == "port = 1\n"
    for mode in (0o664, 0o602):
        os.chmod(home.options, mode)
        with pytest.raises(mp.BeaconError, match=r"other users can write to .*beacon.toml: look at what it says"):
            home.read(home.options)


def test_what_is_no_text_is_refused(home, tmp_path):
    Path(home.options).write_bytes(b"ok\xff")
    os.chmod(home.options, 0o600)
    with pytest.raises(mp.BeaconError, match=r"beacon.toml is damaged \(byte 2 is not UTF-8\): correct or remove it"):
        home.read(home.options)
    os.unlink(home.options)
    os.mkfifo(home.options, 0o600)
    with pytest.raises(mp.BeaconError, match=r"beacon.toml is no file of 1 MiB at most"):
        home.read(home.options)
    os.unlink(home.options)
    os.mkdir(home.options)
    with pytest.raises(mp.BeaconError, match=r"beacon.toml cannot be used \(Is a directory\)"):
        home.read(home.options)
    os.rmdir(home.options)
    with open(home.options, "wb") as file:
        file.truncate(2 << 20)
    os.chmod(home.options, 0o600)
    with pytest.raises(mp.BeaconError, match="no file of 1 MiB at most: remove it"):
        home.read(home.options)


def test_a_full_disk_leaves_what_was_there(home, run_python):
    home.write(home.known_beacons, "old\n")
    done = run_python(
        "-c",
        "import resource, sys\n"
        "from klyng_mp.errors import BeaconError\n"
        "from klyng_mp.remote.home import Home\n"
        "home = Home(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    home.write(home.known_beacons, 'x' * 1000)\n"
        "except BeaconError as error:\n    print(error)",
        home.path,
    )
    assert "cannot be used (File too large): make room or give leave there, or set KLYNG_MP_HOME" in done.stdout
    assert os.listdir(home.path) == ["known_beacons"]
    assert home.read(home.known_beacons) == "old\n"


# -- several processes -----------------------------------------------------------------------------


def at_once(count, work):
    """Run ``work(number)`` in as many forked processes, which begin together; return what each gave back."""
    context = multiprocessing.get_context("fork")
    ready, begin, results = context.Semaphore(0), context.Event(), context.SimpleQueue()

    def body(number):
        ready.release()
        begin.wait()
        results.put((number, work(number)))

    processes = [context.Process(target=body, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=20)
    begin.set()
    try:
        found = dict(results.get() for _ in processes)
    finally:
        for process in processes:
            process.join(20)
            process.close()
        results.close()
    return [found[number] for number in range(count)]


def test_of_several_first_starts_one_makes_the_password(home):
    found = at_once(8, lambda number: home.ensure_password(lambda: f"password-{number}"))
    assert len({password for password, _ in found}) == 1
    assert sum(made for _, made in found) == 1
    assert Path(home.password).read_text() == f"{found[0][0]}\n"


def test_nothing_that_several_add_is_lost(home):
    at_once(8, lambda number: [KnownBeacons(home).add(f"lab{number}:{port}", FINGERPRINT) for port in range(10)])
    at_once(8, lambda number: [AuthorizedClients(home).add(bytes([number, index] * 16)) for index in range(5)] and None)
    assert all(
        KnownBeacons(home).check(f"lab{number}:{port}", FINGERPRINT) for number in range(8) for port in range(10)
    )
    clients = AuthorizedClients(home).clients()
    assert len({client.key for client in clients}) == len({client.name for client in clients}) == 40


def test_a_killed_holder_lets_go_of_the_lock(home, time_limit):
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        with home.lock():
            held.set()
            context.Event().wait()

    process = context.Process(target=hold)
    process.start()
    assert held.wait(time_limit(20))
    process.kill()
    process.join()
    process.close()
    home.set_password("after")
    assert home.ensure_password(lambda: "never") == ("after", False)


# -- the password ----------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["", "  ", "a\nb", "a\x00", "x" * 1025])
def test_what_is_no_password_is_refused_and_the_old_one_stays(home, password):
    home.set_password("old one")
    with pytest.raises(mp.BeaconError, match="the password is no password: one is a line of text that is not empty"):
        home.set_password(password)
    assert home.ensure_password(lambda: "never") == ("old one", False)
    with pytest.raises(mp.BeaconError, match="is no password"):
        Home(home.path + "2").ensure_password(lambda: password)
    assert not os.path.exists(home.path + "2/password")


def test_a_password_that_others_can_read_is_refused(home):
    home.set_password("old one")
    os.chmod(home.password, 0o640)
    with pytest.raises(mp.AuthenticationError, match="open to other users"):
        home.ensure_password(lambda: "never")


def test_a_password_file_of_blanks_is_refused(home):
    home.write(home.password, "\n\n")
    with pytest.raises(mp.BeaconError, match=r"password is no password: .* set it anew"):
        home.ensure_password(lambda: "never")
