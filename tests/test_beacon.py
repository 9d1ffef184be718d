"""python -m klyng_mp.beacon: a beacon in the foreground."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from beacons import Beacon
from programs import ROOT, Program

from klyng_mp.remote.home import Home


def test_it_says_where_it_is_and_ends_when_it_is_told_to(tmp_path):
    for signum in (signal.SIGTERM, signal.SIGINT):
        with Beacon(tmp_path) as beacon:
            assert beacon.address == "127.0.0.1"
            assert beacon.fingerprint.startswith("SHA256:")
            assert len(beacon.password) >= 16
            beacon.process.send_signal(signum)
            assert beacon.process.wait(30) == 0
            assert beacon.log.rstrip().endswith("ended")
            assert len(
                re.findall(r" INFO (each job has a control group|jobs have no control groups here: .*)\n", beacon.log)
            )


def test_its_words_are_the_commands(run_python):
    done = run_python("-m", "klyng_mp.beacon", "--port=no")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("klyng-mp: error: argument --port: invalid int value: 'no'")


# Run before anything else of a beacon: it is told to end just before it does something for the first time.
EARLY = """
import os, signal, sys
todo = [{when!r}]
def look(event, arguments):
    if todo and event == todo[0][0] and todo[0][1] in str(arguments):
        todo.clear()
        os.kill(os.getpid(), signal.{signum})
sys.addaudithook(look)
"""


@pytest.mark.parametrize("signum", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    "when",
    [("os.rename", ".json"), ("open", "/proc/thread-self/comm")],
    ids=["as it announces itself", "before it serves"],
)
def test_a_signal_before_it_serves_is_an_end_like_another(tmp_path, when, signum):
    hook, home = tmp_path / "hook", tmp_path / "home"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(EARLY.format(when=when, signum=signum))
    env = {"KLYNG_MP_HOME": str(home), "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}"}
    with Program("-m", "klyng_mp.beacon", "--port=0", "--allow-root", cwd=tmp_path, env=env) as beacon:
        assert (beacon.finish(), beacon.err) == (0, "")
        assert beacon.out.startswith("beacon at 127.0.0.1:")
    names = {path.name for path in home.iterdir()}
    assert names == {"identity.pem", "lock", "password", Path(Home(home).log).name}
    assert Path(Home(home).log).read_text().endswith("INFO ended\n")
