"""hosts: what users write of them, and the sentence for each thing that they may have written wrong."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import klyng_mp as mp
from klyng_mp.remote.hosts import Host, Secret, read_hosts, split_address

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "machines.md").read_text(encoding="utf-8")
FINGERPRINT = "SHA256:" + "a" * 43

KLYNGS = {
    "local": {"max_procs": 2},
    "192.168.0.10": {},
    "192.168.0.2": {"port": 4578, "max_procs": 3},
    "192.168.0.103": {"max_procs": 5, "passwd": "h3llo"},
    "lab2:5986": {"passwd": "oll3h", "fingerprint": FINGERPRINT},
}
READ = [
    Host("local", "local", 0, 2),
    Host("192.168.0.10", "192.168.0.10"),
    Host("192.168.0.2", "192.168.0.2", 4578, 3),
    Host("192.168.0.103", "192.168.0.103", 2222, 5, Secret("h3llo")),
    Host("lab2:5986", "lab2", 5986, None, Secret("oll3h"), None, FINGERPRINT),
]


@pytest.fixture
def write(tmp_path):
    """Write a private file and return its path."""

    def put(text, name="machines.json"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(0o600)
        return path

    return put


# -- what can be written ---------------------------------------------------------------------------


def test_a_file_a_mapping_and_toml_say_the_same(write):
    toml = "".join(
        f"[{json.dumps(key)}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in entry.items())
        for key, entry in KLYNGS.items()
    )
    assert read_hosts(write(json.dumps(KLYNGS))) == READ
    assert read_hosts(str(write(b"\xef\xbb\xbf" + json.dumps(KLYNGS).encode()))) == READ
    assert read_hosts(write(toml, "machines.toml")) == READ
    assert read_hosts(KLYNGS) == READ


def test_a_list_has_hosts_of_all_kinds():
    found = read_hosts(["local", "Lab2", "lab2:2223", "[::1]:99", "fe80::1", {"host": "a", "max_procs": 3}, READ[3]])
    assert found == [
        Host("local", "local", 0),
        Host("Lab2", "lab2"),
        Host("lab2:2223", "lab2", 2223),
        Host("[::1]:99", "::1", 99),
        Host("fe80::1", "fe80::1"),
        Host("a", "a", 2222, 3),
        READ[3],
    ]
    assert [host.name for host in found[:5]] == ["local", "lab2:2222", "lab2:2223", "[::1]:99", "[fe80::1]:2222"]
    assert [host.is_local for host in found[:2]] == [True, False]
    assert read_hosts(host for host in ("a", "b")) == [Host("a", "a"), Host("b", "b")]
    assert read_hosts(found) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lab-2.example.org.", ("lab-2.example.org.", None)),
        ("10.0.0.5:80", ("10.0.0.5", 80)),
        ("[0:0::1]", ("::1", None)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
        ("[fe80::1%eth0]:7", ("fe80::1%eth0", 7)),
        ("rechner_ä", ("rechner_ä", None)),
    ],
)
def test_addresses(text, found):
    assert split_address(text) == found


@pytest.mark.parametrize(
    "text",
    ["", ":", ":80", "a:", "a:0", "a:65536", "a:x", "a:٣", "a:+1", "a b", "a/b", "u@a", "10.0.0.256", "10.0.5", "7",
     "a..b", "[::1", "[::1]80", "[]:80", "[10.0.0.1]:80", "::g", "1:2:3", "-" * 64, "x." * 200, "a\n", "a\0b"],
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"write|check"):
        split_address(text)
    with pytest.raises(mp.MachinesError, match=r"^hosts: .* (write|check) "):
        read_hosts([text])


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text):
    try:
        address, port = split_address(text)
    except ValueError:
        return
    assert address
    assert port is None or 1 <= port <= 65535
    assert split_address(Host("", address, port or 1).name) == (address, port or 1)


def test_both_ways_to_write_a_port_may_agree():
    assert read_hosts({"a:80": {"port": 80}}) == [Host("a:80", "a", 80)]


# -- what is refused -------------------------------------------------------------------------------

WRONG = {
    # klyng's five
    "an entry that is no object": ('{"a": "Hello"}', "'a': what is said of a host is text: write {}"),
    "a count that is no number": ('{"a": {"max_procs": true}}', "'a': max_procs is True, not a whole number: write"),
    "a count below one": ('{"a": {"max_procs": -8}}', "'a': max_procs is -8, and must be 1 or more: leave"),
    "a port that is no number": ('{"a": {"port": "2222"}}', "'a': port is '2222', not a number from 1 to 65535"),
    "a password that is no text": ('{"a": {"passwd": 12345}}', "'a': passwd is not text: write the password in"),
    # and more
    "no places": ('{"a": {"max_procs": 0}}', "max_procs is 0, and must be 1 or more"),
    "no path": ('{"a": {"passwd_file": "\\ud800"}}', "is no path: give that of a file"),
    "half a place": ('{"a": {"max_procs": 1.5}}', "max_procs is 1.5, not a whole number"),
    "null": ('{"a": {"max_procs": null}}', "max_procs is null, not a whole number"),
    "a port too large": ('{"a": {"port": 65536}}', "port is 65536, not a number from 1 to 65535"),
    "two ports": ('{"a:80": {"port": 81}}', "'a:80': its name ends with another port than port, 81: leave one"),
    "an empty password": ('{"a": {"passwd": ""}}', "passwd is empty, and no beacon has an empty password: write"),
    "a password of two lines": ('{"a": {"passwd": "x\\ny"}}', "passwd is no password: it is too long, or has control"),
    "two passwords": ('{"a": {"passwd": "x", "passwd_file": "y"}}', "it has passwd and passwd_file: leave one"),
    "a file that is not there": ('{"a": {"passwd_file": "gone"}}', "'a': passwd_file: there is no file .*gone: give"),
    "a file that is no path": ('{"a": {"passwd_file": 5}}', "passwd_file is 5, not a path: write it in quotes"),
    "a strange fingerprint": ('{"a": {"fingerprint": "aa:bb"}}', "fingerprint is 'aa:bb': write it as the beacon"),
    "an unknown key": ('{"a": {"max_proc": 2}}', "'a': 'max_proc' means nothing here: write max_procs"),
    "an alias": ('{"a": {"password": "x"}}', "'password' means nothing here: write passwd"),
    "a key like none": ('{"a": {"colour": 2}}', "'colour' means nothing here: there are max_procs, port, pass"),
    "a port of this machine": ('{"local": {"port": 2222}}', "'local': this machine has no beacon, and no port: leave"),
    "this machine with a port": ('{"local:80": {}}', "'local:80': this machine is called 'local', and has no port"),
    "this machine as a name": ('{"Local": {}}', "'Local': this machine is called 'local'"),
    "the same twice": ('{"a": {}, "A:2222": {}}', "'a' and 'A:2222' are the same host and port: leave one of both"),
    "the same key twice": ('{"a": {}, "a": {}}', "'a' is there twice in the same place: leave one of both"),
    "no host": ("{}", "there is no host: name at least one"),
    "nothing": (" \n", "is empty: name at least one host"),
    "a comma": ('{\n "a": {},\n}', r", line 3, column 1: this is not JSON \(.*\): look there and just before it"),
    "a list": ('["a"]', 'is no JSON object: write {"HOST": {"max_procs": 4}, …}'),
    "infinity": ('{"a": {"max_procs": Infinity}}', "Infinity is no number of JSON: leave the key out"),
    "brackets": ('{"a": ' + "[" * 100_000, "this is no machines file: its values are nested too deep"),
    "digits": ('{"a": {"port": ' + "9" * 5000 + "}}", "this is no machines file: its values are .*too long"),
    "bytes": (b'{"a": "\xff"}', "byte 7 is not UTF-8: save the file as UTF-8 text"),
    "too much": (" " * (2 << 20), "is no file of hosts: it is larger than 1 MiB, or not a file; give another"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_gets_a_sentence(kind, write):
    text, sentence = WRONG[kind]
    path = write(text)
    pattern = sentence if "\\" in sentence or ".*" in sentence else re.escape(sentence)
    with pytest.raises(mp.MachinesError, match=f"^{re.escape(str(path))}.*{pattern}"):
        read_hosts(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[a]\nmax_procs =\n", r"this is not TOML \(.*line 2, column 12\)\): write"),
        ("[10.0.0.5]\nmax_procs = 4\n", r"'0' is a table within a host; in TOML a name with dots needs quotes"),
        ("[a]\n[a]\n", r"this is not TOML \(.*line 2"),
        ("a = 4\n", "what is said of a host is int"),
        ("x = " + "[" * 100_000, "nested too deep"),
        ("[a]\nport = " + "9" * 5000, "nested too deep, or too long"),
        ("[a]\nport = 0x" + "f" * 5000, "port is a number without end, not a number from 1"),
        ("[a]\nmax_procs = 0x" + "f" * 5000, "max_procs is a number without end, and can be 1048576: write"),
    ],
)
def test_wrong_toml_gets_a_sentence(text, sentence, write):
    with pytest.raises(mp.MachinesError, match=sentence):
        read_hosts(write(text, "machines.toml"))


@pytest.mark.parametrize(
    ("given_hosts", "sentence"),
    [
        ([], "hosts: there is no host: name at least one"),
        ({}, "hosts: there is no host"),
        (None, "hosts is NoneType: give the path of a machines file"),
        (7, "hosts is int"),
        (b"machines.json", "hosts is bytes"),
        ([7], "hosts: a host is text, not int: write its name or address in quotes"),
        ([None], "hosts: a host is text, not null"),
        ([{"max_procs": 2}], "a mapping in the list names no host: write"),
        (["a", "a"], "'a' and 'a' are the same host"),
        (["local", "local"], "'local' and 'local' are the same host"),
        ({"a": {"passwd": None}}, "'a': passwd is not text"),
        ({7: {}}, "a host is text, not int"),
        ("lab2", r"there is no file lab2: .* write hosts=\[\"lab2\"\]"),
        ("/nowhere/machines.json", "there is no file /nowhere/machines.json: give the path of a machines file$"),
        ("/tmp", r"^/tmp cannot be read: Is a directory; give a file"),
    ],
)
def test_wrong_hosts_get_a_sentence(given_hosts, sentence):
    with pytest.raises(mp.MachinesError, match=sentence):
        read_hosts(given_hosts)


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(mp.MachinesError, match="or not a file"):
        read_hosts(tmp_path / "pipe")


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)


@given(
    st.recursive(LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3))
)
def test_whatever_is_given_is_hosts_or_a_sentence(anything):
    try:
        found = read_hosts(anything)
    except mp.MachinesError:
        return
    assert found
    assert all(isinstance(host, Host) for host in found)


# -- passwords -------------------------------------------------------------------------------------


def test_a_password_does_not_show_and_does_not_travel():
    secret = read_hosts(KLYNGS)[3].password
    assert secret.reveal() == "h3llo"
    assert secret == Secret("h3llo") != Secret("other")
    assert "h3llo" not in f"{secret} {secret!r} {READ}"
    for copier in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="a password does not travel"):
            copier(secret)


@pytest.mark.parametrize("entry", [{"passwd": 987654}, {"passwd": ["s3cret"]}, {"passwd": "s3cret\x07"}])
def test_no_sentence_shows_a_password(entry):
    with pytest.raises(mp.MachinesError) as caught:
        read_hosts({"a": entry})
    assert "987654" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_password_may_be_in_a_file_of_its_own(write, tmp_path, monkeypatch):
    write("p4ss word\nmore\n", "secret")
    path = write('{"a": {"passwd_file": "secret"}}')
    monkeypatch.chdir("/")
    assert read_hosts(path) == [Host("a", "a", 2222, None, Secret("p4ss word"), str(tmp_path / "secret"))]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_hosts({"a": {"passwd_file": "~/secret"}})[0].password == Secret("p4ss word")


@pytest.mark.parametrize("text", ["", "\nx"])
def test_a_password_file_without_a_password(text, write):
    write(text, "secret")
    with pytest.raises(mp.MachinesError, match=r"'a': the first line of .*secret is empty"):
        read_hosts(write('{"a": {"passwd_file": "secret"}}'))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_passwords_that_others_can_read_are_warned_of(mode, write):
    path = write('{"a": {"passwd": "x"}}')
    path.chmod(mode)
    with pytest.warns(mp.MachinesWarning, match=f"passwords in {re.escape(str(path))}: chmod 600 it") as caught:
        read_hosts(path)
    assert [warning.filename for warning in caught] == [__file__]


def test_each_file_with_passwords_is_looked_at(write):
    secret, path = write("x", "secret"), write('{"a": {"passwd_file": "secret"}}')
    path.chmod(0o644)
    read_hosts(path)  # which has no password in it
    secret.chmod(0o644)
    with pytest.warns(mp.MachinesWarning, match="passwords in .*secret"):
        read_hosts(path)


# -- the page --------------------------------------------------------------------------------------


def test_the_examples_of_the_page_are_machines_files(write):
    examples = re.findall(r"^```(json|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    write("correct-horse", "lab2.passwd")
    found = {kind: read_hosts(write(text, f"machines.{kind}")) for kind, text in examples}
    assert found["json"] == found["toml"]
    assert [host.key for host in found["json"]] == ["local", "10.0.0.5", "lab2.example.org:4000", "[fd00::7]:2222"]
    keys = {
        name
        for _, text in examples
        for name in ("max_procs", "port", "passwd", "passwd_file", "fingerprint")
        if name in text
    }
    assert all(f"| `{name}` |" in PAGE for name in keys)
    assert len(keys) == 5
