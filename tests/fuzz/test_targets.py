"""Every parser takes what it is for, refuses the rest as it says it does, and does nothing else with either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import core_targets
import object_targets  # noqa: F401 - it adds its own
import pytest
import run
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import FACTOR, environment

from klyng_mp.native import core

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES = 20
SLOW = {"beacon_login": 8, "client_login": 8}  # ten milliseconds each
ANYTHING = {"heads", "messages"}  # of which nothing is what something can be
OF_THE_CORE = sorted(name for name, function in targets.TARGETS.items() if function.__module__ == core_targets.__name__)
OTHERS = sorted(targets.TARGETS.keys() - set(OF_THE_CORE))


def corpus(name):
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def replay(name, *words):
    """Run a target in a process of its own, which it may end; return what came of it."""
    return subprocess.run(
        [sys.executable, run.__file__, name, "--replay", *map(str, words)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60 * FACTOR,
        check=False,
    )


def test_every_target_has_a_corpus_and_every_corpus_its_target():
    assert {path.name for path in CORPUS.iterdir()} == targets.TARGETS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_right_is_taken_and_what_was_found_once_is_refused(name):
    taken = [targets.TARGETS[name](data) for data in corpus(name)]
    assert any(taken)
    assert name in ANYTHING or not targets.TARGETS[name](b"")


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_refused(name):
    known = corpus(name)
    examples = SLOW.get(name, EXAMPLES)
    changed = st.builds(run.mutant, st.sampled_from(known), st.just(known), st.randoms(use_true_random=False))

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(changed, st.binary(max_size=300)))
    def check(data):
        targets.TARGETS[name](data)

    check()


@pytest.mark.skipif(core is None, reason="the native core is not in use")
@pytest.mark.parametrize("name", OF_THE_CORE)
def test_the_core_reads_what_anybody_wrote(name):
    done = replay(name, "--mutants", 100)
    assert done.returncode == 0, done.stderr
    taken, count = (int(word) for word in done.stdout.split() if word.isdecimal())
    assert taken > 0
    assert count > 100


# -- who finds something, finds it -------------------------------------------------------------------


def test_a_fault_is_found(monkeypatch):
    def careless(*_arguments):
        raise IndexError("a fault")

    monkeypatch.setattr(targets.FrameReader, "_parse", careless)
    with pytest.raises(IndexError):
        for data in corpus("frames"):
            targets.frames(data)


def test_a_reader_that_goes_on_after_an_error_is_found(monkeypatch):
    monkeypatch.setattr(targets.FrameReader, "_die", lambda self, error: None)
    with pytest.raises(AssertionError, match="went on"):
        targets.frames(b"\0" + bytes(80))


def test_a_promise_that_is_broken_is_found(monkeypatch):
    real = targets.bundle.unpack

    def outside(source, folder, limits):
        Path(folder).with_name("outside").touch()
        return real(source, folder, limits)

    monkeypatch.setattr(targets.bundle, "unpack", outside)
    with pytest.raises(AssertionError):
        for data in corpus("bundles"):
            targets.bundles(data)


def test_a_stranger_who_is_let_in_is_found(monkeypatch):
    def lax(self, data):
        self.done = True
        return b""

    monkeypatch.setattr(targets.BeaconLogin, "feed", lax)
    with pytest.raises(AssertionError):
        targets.beacon_login(b"\0hello")


def test_who_ends_its_process_is_found(tmp_path):
    (tmp_path / "crash").write_bytes(bytes(2000))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, mmap\nmmap.mmap = lambda *_: os.abort()\n"  # as a fault in C would
    )
    done = subprocess.run(
        [sys.executable, run.__file__, "ring" if core else "frames", "--replay", tmp_path / "crash"],
        env=environment({"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        timeout=60 * FACTOR,
        check=False,
    )
    assert (done.returncode < 0) == (core is not None)


# -- the command -----------------------------------------------------------------------------------


def test_without_atheris_a_sentence_says_what_to_do(tmp_path):
    (tmp_path / "atheris.py").write_text("raise ImportError('no atheris')\n")
    done = subprocess.run(
        [sys.executable, run.__file__, "frames", "--seconds", "1"],
        env=environment({"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        timeout=60 * FACTOR,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("atheris is not installed here: pip install atheris")


@pytest.mark.slow
def test_an_hour_of_fuzzing_begins(tmp_path):
    pytest.importorskip("atheris")
    script = f"import sys, run, pathlib; run.KEPT = pathlib.Path({str(tmp_path)!r}); run.fuzz('preface', 2)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment({"PYTHONPATH": f"{Path(run.__file__).parent}"}),
        capture_output=True,
        text=True,
        timeout=60 * FACTOR,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "DONE" in done.stderr
    assert list((tmp_path / "preface" / "crashes").iterdir()) == []
