"""Hosts that do not have what a program needs: each is a sentence, in time, and nothing is left on any of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import farwork
import pytest
from beacons import Beacon
from programs import FACTOR

import klyng_mp as mp
from klyng_mp.errors import BundleError, RankFailedError
from klyng_mp.version import __version__

pytestmark = pytest.mark.slow

SENTENCE_SECONDS = 5.0
OLDER = "import klyng_mp.version\nklyng_mp.version.__version__ = '0.0.1'\n"
USER = """
import json, sys
sys.path.append(sys.argv[2])
import klyng_mp as mp
import onlyhere
import farwork

if __name__ == "__main__":
    try:
        with mp.World(hosts=json.loads(sys.argv[1])) as world:
            print(world.run(farwork.total))
    except mp.BundleError as error:
        print(error.host, "|", error)
"""


def package(folder, version):
    """Install a package into a folder of its own, as pip does; return the folder."""
    folder.mkdir(parents=True)
    (folder / "onlyhere.py").write_text(f"version = {version!r}\n")
    info = folder / f"onlyhere-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: onlyhere\nVersion: {version}\n")
    (info / "RECORD").write_text(f"onlyhere.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    return folder


def path_of(*folders):
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_a_beacon_of_another_version(tmp_path, client_home):
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "sitecustomize.py").write_text(OLDER)
    with Beacon(tmp_path, env=path_of(tmp_path / "older", Path(mp.__file__).parents[1])) as beacon:
        began = time.monotonic()
        with pytest.raises(BundleError) as caught:
            mp.World(hosts=[beacon.entry()])
        assert time.monotonic() - began < SENTENCE_SECONDS * FACTOR
        assert caught.value.host == beacon.key
        assert f"klyng_mp is {__version__} here and 0.0.1 there. Install the same" in str(caught.value)
        beacon.check_tidy()


@pytest.mark.parametrize("there", [None, "1.0", "1.2"])
def test_a_package_that_a_host_lacks_or_has_otherwise(run_python, tmp_path, client_home, there):
    here = package(tmp_path / "here" / "site-packages", "1.2")
    script = tmp_path / "user.py"
    script.write_text(USER)
    env = path_of(Path(mp.__file__).parents[1])
    if there is not None:
        env = path_of(package(tmp_path / "there" / "site-packages", there), Path(mp.__file__).parents[1])
    with Beacon(tmp_path, env=env) as beacon:
        done = run_python(script, json.dumps([beacon.entry()]), Path(farwork.__file__).parent, env=path_of(here))
        said = f"{beacon.key} | {beacon.key} does not have what the program runs with here: onlyhere is 1.2 here and "
        if there == "1.2":
            assert done.stdout == "[1, 1]\n", done.stderr
        else:
            assert done.stdout.startswith(said + ("not installed there" if there is None else "1.0 there")), done.stderr
            assert "pip install" in done.stdout
        beacon.check_tidy()


def test_a_module_that_nobody_has(tmp_path, client_home):
    with Beacon(tmp_path) as beacon:
        with mp.World(hosts=["local", beacon.entry(1)], n=2) as world:
            with pytest.raises(RankFailedError) as caught:
                world.run(farwork.imports, "nobody_has_this")
            assert type(caught.value.__cause__) is ModuleNotFoundError
            assert "nobody_has_this" in str(caught.value)
            assert world.run(farwork.total) == [1, 1]
        beacon.check_tidy()


@pytest.mark.parametrize("small_disk", [4 << 20], indirect=True)
def test_a_full_disk(small_disk, client_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.bin").write_bytes(os.urandom(8 << 20))
    with Beacon(small_disk) as beacon:
        began = time.monotonic()
        with pytest.raises(BundleError) as caught:
            mp.World(hosts=[beacon.entry()], files=["large.bin"])
        assert time.monotonic() - began < SENTENCE_SECONDS * FACTOR
        said = f"{beacon.key} refuses the job: no room for the bundle in {beacon.home}"
        assert str(caught.value).startswith(said)
        assert "make room there, or use another disk" in str(caught.value)
        beacon.check_tidy()
        with mp.World(hosts=[beacon.entry()]) as world:
            assert world.run(mp.rank) == [0, 1]
        beacon.check_tidy()
