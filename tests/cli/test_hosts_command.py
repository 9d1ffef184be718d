"""cli.hosts: a look at the hosts of a machines file, against a beacon that runs."""

from __future__ import annotations

import json
import socket

import pytest

from klyng_mp.cli.hosts_look import render
from klyng_mp.cli.main import main


def test_the_table_says_what_can_be_used_and_what_cannot_and_why(beacons, client_home, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    beacon = beacons[0]
    machines = tmp_path / "machines.json"
    machines.write_text(
        json.dumps(
            {
                "local": {"max_procs": 3},
                beacon.key: {"passwd": beacon.password, "max_procs": 5},
                f"127.0.0.1:{closed}": {"passwd": "x"},
            }
        )
    )
    machines.chmod(0o600)
    assert main(["hosts", "-m", str(machines)]) == 1
    heading, local, there, nowhere, why = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["HOST", "STATE", "PYTHON", "KLYNG_MP"]
    assert local.split()[:2] == ["local", "ready"]
    assert local.split()[4:6] == ["3", "3"]
    assert there.split()[:2] == [beacon.key, "ready"]
    assert there.split()[5] == "5"
    assert "ms" in there
    assert "MB/s" in there
    assert nowhere.startswith(f"127.0.0.1:{closed}  ")
    assert "cannot be used" in nowhere
    assert why.startswith(f"127.0.0.1:{closed}: nobody listens at 127.0.0.1 port {closed}")
    beacon.check_tidy()


def test_as_json(beacons, client_home, capsys, monkeypatch, tmp_path):
    beacon = beacons[0]
    machines = tmp_path / "machines.toml"
    machines.write_text(f'["{beacon.key}"]\npasswd = "{beacon.password}"\n')
    machines.chmod(0o600)
    assert main(["hosts", "--machines", str(machines), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["host"], found["error"]) == (beacon.key, "")
    assert found["free"] <= 256
    assert found["places"] >= 1
    assert 0 < found["round_trip_seconds"] < 5
    assert found["bytes_per_second"] > 0
    assert main(["hosts", beacon.key, "--json"]) == 1  # now it is known, but there is no key
    assert "no password is given" in json.loads(capsys.readouterr().out)[0]["error"]


@pytest.mark.parametrize("words", [["hosts"], ["hosts", "-m", "machines.json", "lab"]])
def test_hosts_are_named_one_way(words, capsys, client_home):
    assert main(words) == 1
    assert "name the hosts: klyng-mp hosts -m machines.json, or klyng-mp hosts HOST" in capsys.readouterr().err


def test_the_columns_fit_what_is_in_them():
    rows = render([{"host": "a" * 40, "error": ""}, {"host": "b", "error": "it is off"}]).splitlines()
    assert rows[0].index("STATE") == rows[1].index("ready") == rows[2].index("cannot") == 42
    assert rows[3] == "b: it is off"
