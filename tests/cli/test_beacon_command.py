"""cli.beacon: beacons that are started, looked at, paired with and ended by the command."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from programs import environment

from klyng_mp.cli.beacon_parser import build_beacon_parser

pytestmark = pytest.mark.slow


@pytest.fixture
def there(tmp_path):
    """Give the command on a machine with a folder of its own, and end its beacon."""
    home = tmp_path / "there"
    yield lambda *words, stdin="": klyng_mp(home, *words, stdin=stdin)
    klyng_mp(home, "down")


def klyng_mp(home, *words, stdin=""):
    done = subprocess.run(
        [sys.executable, "-m", "klyng_mp", "beacon", *words],
        env=environment({"KLYNG_MP_HOME": str(home)}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def runs(pid):
    """Tell whether a process runs; who is to bury it may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def up(there, *words):
    code, out, err = there("up", "--allow-root", "--port=0", *words)
    assert (code, err) == (0, "")
    where, _, process = out.splitlines()[0].removeprefix("beacon at ").partition(", process ")
    return where, int(process), out


def test_from_up_to_down(there, tmp_path):
    where, pid, out = up(there)
    assert where.startswith("127.0.0.1:")  # until it is told otherwise
    assert out.splitlines()[1].startswith("fingerprint SHA256:")
    assert out.splitlines()[2].startswith(f"password in {tmp_path}/there/password (made now), log in ")
    code, out, _ = there("status")
    assert code == 0
    assert out.splitlines()[0] == f"beacon at {where}, process {pid}"
    assert "0 of 256 ranks, load " in out
    said = json.loads(there("status", "--json")[1])
    assert (said["pid"], said["jobs"], said["ranks"]) == (pid, [], 0)
    code, _, err = there("up", "--allow-root", "--port=0")
    assert code == 1
    assert f"a beacon runs already: process {pid}" in err
    assert there("down") == (0, f"the beacon, process {pid}, has ended, and its jobs with it\n", "")
    assert not runs(pid)
    code, _, err = there("status")
    assert code == 1
    assert "no beacon runs here: start one (klyng-mp beacon up)" in err


def test_nothing_of_a_fresh_home_is_empty_or_for_others_to_read(there, tmp_path):
    up(there)
    home = tmp_path / "there"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"password", "identity.pem"}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert path.name == "lock" or path.stat().st_size, path


def test_a_code_is_good_once_and_leaves_a_key(there, tmp_path):
    where, _, _ = up(there)
    code, out, _ = there("pair")
    assert code == 0
    word = out.splitlines()[0].removeprefix("code: ")
    client = tmp_path / "client"
    code, out, err = klyng_mp(client, "pair", where, stdin=f"{word}\n")
    assert (code, out, err) == (0, f"{where} lets this user in by key from now on\n", "")
    code, _, err = klyng_mp(tmp_path / "other", "pair", where, stdin=f"{word}\n")
    assert code == 1
    assert "refuses the code" in err
    name, fingerprint = there("revoke")[1].split()
    assert there("revoke", name)[1] == f"{name} ({fingerprint}) is let in no more; its jobs go on until they end\n"
    assert there("revoke")[1] == ""


def test_a_key_is_authorized_by_hand(there, tmp_path):
    line = klyng_mp(tmp_path / "client", "authorize")[1].strip()
    code, out, _ = there("authorize", line)
    assert code == 0
    assert "is let in from now on" in out
    code, _, err = there("authorize", "nonsense")
    assert code == 1
    assert "give a line like klyng-ed25519 KEY NAME" in err


def test_a_new_password_is_in_force_at_once(there, tmp_path):
    up(there)
    old = (tmp_path / "there/password").read_text()
    code, out, _ = there("passwd")
    assert code == 0
    assert "is new, and the beacon has been told" in out
    assert (tmp_path / "there/password").read_text() != old
    assert there("status")[0] == 0
    (tmp_path / "mine").write_text("correct horse battery staple\n")
    assert there("passwd", "--password-file", str(tmp_path / "mine"))[0] == 0
    assert (tmp_path / "there/password").read_text() == "correct horse battery staple\n"
    assert there("status")[0] == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["up", "--port=0"], "a beacon of root would let its clients do everything"),
        (["up", "--user=nobody-of-that-name"], "there is no user 'nobody-of-that-name'"),
        (["up", "--allow-root", "--port=70000"], "--port 70000 is none"),
        (["up", "--allow-root", "--port=0", "--host=192.0.2.1"], "cannot be listened at"),
        (["up", "--allow-root", "--port=0", "--host=no.such.host.invalid"], "there is no address"),
        (["up", "--allow-root", "--password-file=/nowhere"], "--password-file /nowhere cannot be read"),
        (["up", "--allow-root", "--password-file=/dev/null"], "is empty: a beacon has a password"),
        (["pair"], "no beacon runs here"),
        (["pair", "a:b:c"], "a:b:c"),
        (["down"], "no beacon runs here"),
        (["revoke", "nobody"], "there is no client 'nobody'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(there, words, sentence):
    if os.geteuid() and "--allow-root" not in words and words[0] == "up":
        pytest.skip("this is not root")
    code, out, err = there(*words)
    assert (code, out) == (1, "")
    assert err.startswith("klyng-mp: error: ")
    assert sentence in err


def test_a_broken_option_is_named(there, tmp_path):
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "there/beacon.toml").write_text("max_rank = 3\n")
    code, _, err = there("up", "--allow-root", "--port=0")
    assert code == 1
    assert "beacon.toml, line 1: 'max_rank' means nothing here: write max_ranks" in err


def test_an_unknown_command_is_a_wrong_command_line(capsys):
    with pytest.raises(SystemExit) as exit_info:
        build_beacon_parser().parse_args(["fly"])
    assert exit_info.value.code == 2
    assert "invalid choice: 'fly'" in capsys.readouterr().err
