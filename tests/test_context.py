"""context: one interface for each start method, and the default that can be chosen once."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.context
import subprocess
import sys

import pytest

import klyng_mp as mp
from klyng_mp import context, reduction

SHARED = ["util", "spawn", "forkserver", "resource_tracker", "resource_sharer"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_context_for_each_start_method(method):
    made = mp.get_context(method)
    assert made is mp.get_context(method)
    assert made.get_start_method() == method
    assert isinstance(made, multiprocessing.context.BaseContext)
    assert issubclass(made.Process, multiprocessing.get_context(method).Process)
    with pytest.raises(ValueError, match="cannot set start method of concrete context"):
        made.set_start_method("fork")


def test_the_default_is_the_running_pythons():
    code = "import klyng_mp as mp, multiprocessing as m; print(mp.get_start_method(True), mp.get_start_method())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", multiprocessing.get_context().get_start_method()]
    assert mp.get_all_start_methods() == multiprocessing.get_all_start_methods()


def test_an_unknown_method_is_refused_as_in_the_standard_library():
    for module in (mp, multiprocessing):
        with pytest.raises(ValueError, match="cannot find context for 'spork'"):
            module.get_context("spork")


def test_the_default_is_chosen_once(run_python):
    code = """
import multiprocessing, klyng_mp as mp
mp.set_start_method("spawn")
for method in ("fork", "spawn"):
    try:
        mp.set_start_method(method)
    except RuntimeError as error:
        print(error)
mp.set_start_method("forkserver", force=True)
print(mp.get_start_method(), mp.get_context() is mp.get_context("forkserver"))
mp.set_start_method(None, force=True)
print(mp.get_start_method(allow_none=True), multiprocessing.get_start_method(allow_none=True))
"""
    done = run_python("-c", code)
    assert done.stdout.splitlines() == ["context has already been set"] * 2 + ["forkserver True", "None None"], done


def test_what_was_chosen_for_the_standard_module_is_followed(run_python):
    code = "import multiprocessing as m, klyng_mp as mp; m.set_start_method('spawn'); print(mp.get_start_method())"
    assert run_python("-c", code).stdout == "spawn\n"


def test_the_reducer_is_ours_and_can_be_replaced():
    assert mp.reducer is reduction
    default = context._default_context
    try:
        default.reducer = multiprocessing.reduction
        assert mp.get_context("spawn").reducer is multiprocessing.reduction
    finally:
        default.reducer = reduction
    assert multiprocessing.context._default_context.reducer is multiprocessing.reduction


@pytest.mark.parametrize("name", SHARED)
def test_shared_modules_are_the_standard_ones(name):
    ours, standard = (importlib.import_module(f"{package}.{name}") for package in ("klyng_mp", "multiprocessing"))
    for public in ours.__all__:
        assert getattr(ours, public) is getattr(standard, public)
    assert set(standard.__all__) <= set(vars(ours))


def test_importing_makes_nothing():
    code = """
import sys, klyng_mp
late = ("managers", "pool", "queues", "connection", "synchronize")
print([name for name in late if f"klyng_mp.{name}" in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
