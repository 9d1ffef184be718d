"""cli.beacon_unit: units that systemd accepts, and that say what they are to."""

from __future__ import annotations

import configparser
import getpass
import os
import shutil
import subprocess
import sys

import pytest

import klyng_mp as mp
from klyng_mp.cli.beacon_unit import make_unit
from klyng_mp.cli.main import main

COMMAND = [sys.executable, "-m", "klyng_mp.beacon", "--host=0.0.0.0"]
WHO = pytest.mark.parametrize("user", [None, "daemon"], ids=["of a user", "of the system"])


def parse(text):
    """Return what a unit says: its sections, without what stands twice."""
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str
    found.read_string(text)
    return found


@WHO
def test_what_a_unit_promises(user):
    unit = parse(make_unit(COMMAND, "/home/me/.klyng_mp", user))
    service = unit["Service"]
    assert service["ExecStart"] == " ".join(COMMAND)
    assert service["Environment"] == "KLYNG_MP_HOME=/home/me/.klyng_mp"
    assert service["ReadWritePaths"] == "/home/me/.klyng_mp"
    promised = {
        "Restart": "on-failure",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "Delegate": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
    }
    assert promised.items() <= dict(service).items()
    assert service.get("User") == user
    assert unit["Install"]["WantedBy"] == ("default.target" if user is None else "multi-user.target")
    # What would take from it its control groups, its view of its own processes, or from ranks what they may need.
    assert not {"ProtectControlGroups", "ProtectProc", "PrivateDevices", "MemoryDenyWriteExecute"} & set(service)
    if user is None:  # these need powers that a user's own systemd has not
        assert not {"CapabilityBoundingSet", "ProtectKernelModules", "ProtectKernelLogs", "ProtectClock"} & set(service)


def test_what_is_special_to_systemd_is_written_so_that_it_is_not():
    unit = parse(make_unit(["/opt/a b/python", "-m", "x", "--host=$HOST"], '/home/%i/my "$x"\\', None))
    assert unit["Service"]["ExecStart"] == '"/opt/a b/python" -m x --host=$$HOST'
    assert unit["Service"]["Environment"] == '"KLYNG_MP_HOME=/home/%%i/my \\"$x\\"\\\\"'
    assert unit["Service"]["ReadWritePaths"] == '"/home/%%i/my \\"$x\\"\\\\"'
    with pytest.raises(mp.BeaconError, match="use a path without control characters"):
        make_unit(COMMAND, "/home/me\nUser=root", None)


@WHO
def test_systemd_accepts_it(tmp_path, user):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here (apt-get install systemd)")
    file = tmp_path / "klyng-mp-beacon.service"
    verify = ["systemd-analyze", "--user" if user is None else "--system", "verify", file]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}

    def check(text):
        file.write_text(text)
        done = subprocess.run(verify, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    text = make_unit(COMMAND, str(tmp_path / 'a %i "$b"'), user)
    assert check(text) == (0, "")
    assert "'Delegation'" in check(text.replace("Delegate=yes", "Delegation=yes"))[1]
    code, said = check(text.replace(sys.executable, "/nowhere/python"))
    assert code != 0
    assert "Command /nowhere/python is not executable" in said


def test_the_command_prints_it(client_home, capsys):
    assert main(["beacon", "unit", "--host", "::", "--port", "2300"]) == 0
    text = capsys.readouterr().out
    assert text == make_unit([*COMMAND[:3], "--host=::", "--port=2300"], str(client_home))
    assert main(["beacon", "unit", "--user", getpass.getuser()]) == 0
    unit = parse(capsys.readouterr().out)
    assert unit["Service"]["User"] == getpass.getuser()
    assert unit["Service"]["ExecStart"] == f"{sys.executable} -m klyng_mp.beacon"
