"""launch.spec: what a rank is to be, taken from the driver as it is."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import sys

import programs
import pytest

import klyng_mp as mp
from klyng_mp.launch.spec import BLAS_VARIABLES, RankSpec


@pytest.fixture
def no_blas(monkeypatch):
    for name in BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_it_holds_what_the_driver_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_THE_TEST", "here")
    previous = os.umask(0o037)
    try:
        spec = RankSpec(3, "host")
        assert os.umask(0o037) == 0o037  # looking has not changed it
    finally:
        os.umask(previous)
    assert (spec.size, spec.host, spec.cwd, spec.umask) == (3, "host", str(tmp_path), 0o037)
    assert (spec.path, spec.argv, spec.environment) == (sys.path, sys.argv, dict(os.environ))
    assert spec.affinity == os.sched_getaffinity(0)
    assert (resource.RLIMIT_NOFILE, *resource.getrlimit(resource.RLIMIT_NOFILE)) in spec.limits
    spec.path.append("x")
    spec.environment["x"] = "y"
    assert "x" not in sys.path
    assert "x" not in os.environ


def test_it_travels():
    spec = RankSpec(2, "host")
    again = pickle.loads(pickle.dumps(spec))
    assert all(getattr(again, name) == getattr(spec, name) for name in RankSpec.__slots__)


def test_logging_is_as_in_the_driver():
    root = logging.getLogger()
    previous = root.level
    root.setLevel(logging.DEBUG)
    try:
        assert RankSpec(1, "host").log_level == logging.DEBUG
    finally:
        root.setLevel(previous)


@pytest.mark.parametrize(("cpus", "size", "threads"), [(8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 64, 1), (6, 1, 6)])
def test_cpus_are_shared_out_among_the_ranks(no_blas, cpus, size, threads):
    spec = RankSpec(size, "host")
    spec.share_cpus(cpus)
    assert spec.blas_threads == threads
    assert {spec.environment[name] for name in BLAS_VARIABLES} == {str(threads)}


@pytest.mark.parametrize("name", BLAS_VARIABLES)
def test_what_the_user_has_set_stays(no_blas, monkeypatch, name):
    monkeypatch.setenv(name, "7")
    spec = RankSpec(2, "host")
    spec.share_cpus(8)
    assert spec.blas_threads is None
    assert {other: spec.environment.get(other) for other in BLAS_VARIABLES if other != name} == dict.fromkeys(
        set(BLAS_VARIABLES) - {name}
    )
    assert spec.environment[name] == "7"


# -- in ranks --------------------------------------------------------------------------------------------

BLAS = """
    import json, os, sys
    import klyng_mp as mp

    def look():
        import numpy as np
        from threadpoolctl import threadpool_info
        np.ones((4, 4)) @ np.ones((4, 4))
        return [pool["num_threads"] for pool in threadpool_info()], os.environ.get("OMP_NUM_THREADS")

    if __name__ == "__main__":
        if "numpy" in sys.argv:
            import numpy
        options = {"preload": ["numpy"]} if "preload" in sys.argv else {}
        if "asked" in sys.argv:
            options["env"] = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
        with mp.World(2, method=sys.argv[1], **options) as w:
            print(json.dumps([w.run(look), mp.usable_cpus()]))
"""
UNSET = dict.fromkeys(BLAS_VARIABLES)


@pytest.mark.parametrize(
    "words", [["zygote"], ["zygote", "preload"], ["fork"], ["fork", "numpy"], ["spawn"]], ids=" ".join
)
def test_blas_threads_are_limited_in_each_rank(tmp_path, words):
    found, cpus = json.loads(programs.run_script(tmp_path, BLAS, *words, env=UNSET))
    limit = max(1, cpus // 2)
    for pools, variable in found:
        assert pools
        assert set(pools) == {limit}
        assert variable == str(limit)


@pytest.mark.parametrize(("words", "env"), [(["zygote"], {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}),
                                            (["zygote", "asked"], {})], ids=str)  # fmt: skip
def test_unless_the_user_says_how_many(tmp_path, words, env):
    found, _ = json.loads(programs.run_script(tmp_path, BLAS, *words, env=UNSET | env))
    for _pools, variable in found:
        assert variable == "3"


def test_the_drivers_own_threads_are_left_alone(no_blas):
    with mp.World(2) as world:
        assert world.run(os.getenv, "OMP_NUM_THREADS") == [str(max(1, mp.usable_cpus() // 2))] * 2
    assert not set(BLAS_VARIABLES) & set(os.environ)
