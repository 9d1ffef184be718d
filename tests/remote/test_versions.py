"""remote.versions: what a host must have, and the one sentence that it gets if it has not."""

from __future__ import annotations

import importlib.metadata
import json
import sys

import pytest

from klyng_mp.errors import BundleError
from klyng_mp.remote.sources import Entry, Sources
from klyng_mp.remote.versions import compare, describe_here, requirements
from klyng_mp.remote.walk import Package
from klyng_mp.version import __version__

NUMPY = importlib.metadata.version("numpy")


def ours(*packages, native=False):
    entries = (Entry("/x/fast.so", "0/fast.so", ""),) if native else ()
    return requirements(Sources(entries, (), "0", "", packages, (), ()))


def numpy(optional=False):
    return Package("numpy", "numpy", NUMPY, optional, "imported by app.py, line 1")


def theirs(mine, **changes):
    """Return what an equal host says, with changes."""
    said = describe_here(mine["asked"])
    said["packages"].update(changes.pop("packages", {}))
    return json.loads(json.dumps({**said, **changes}))


def test_what_this_machine_has():
    here = describe_here([("numpy", "numpy"), ("nowhere", "no-where"), ("nowhere", ""), ("json", "")])
    assert here["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert (here["implementation"], here["klyng_mp"]) == (sys.implementation.name, __version__)
    assert here["dill"] == importlib.metadata.version("dill")
    assert here["packages"] == {"numpy": NUMPY, "no-where": None, "nowhere": None, "json": "?"}
    assert json.loads(json.dumps(here)) == here


def test_equal_hosts_are_fine():
    mine = ours(numpy(), Package("json", "", "", False, ""), native=True)
    assert compare(mine, theirs(mine), "lab1") is None
    assert compare(json.loads(json.dumps(mine)), theirs(mine), "lab1") is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"python": "3.9"}, f"Python is {sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]} here and "
                            f"{sys.implementation.name} 3.9 there"),
        ({"implementation": "pypy"}, f"and pypy {sys.version_info[0]}.{sys.version_info[1]} there"),
        ({"klyng_mp": "0.0.9"}, f"klyng_mp is {__version__} here and 0.0.9 there"),
        ({"dill": "0.3"}, f"dill is {importlib.metadata.version('dill')} here and 0.3 there"),
        ({"dill": None}, "here and not installed there"),
        ({"packages": {"numpy": "1.0"}}, f"numpy is {NUMPY} here and 1.0 there"),
        ({"packages": {"numpy": None}}, f"numpy is {NUMPY} here and not installed there"),
        ({"packages": {"numpy": "?"}}, f"numpy is {NUMPY} here and of unknown version there"),
    ],
)  # fmt: skip
def test_a_difference_is_named_with_both_sides(changes, difference):
    mine = ours(numpy())
    error = compare(mine, theirs(mine, **changes), "lab1:2222")
    assert isinstance(error, BundleError)
    assert error.host == "lab1:2222"
    assert str(error).startswith("lab1:2222 does not have what the program runs with here: ")
    assert difference in str(error)
    assert str(error).endswith("in the environment of its beacon")


def test_a_host_that_says_less_lacks_it():
    mine = ours(numpy())
    text = str(compare(mine, {"packages": {}}, "lab1"))
    assert text.count(" there") == 4
    assert f"dill is {importlib.metadata.version('dill')} here and not installed there" in text


def test_one_error_names_them_all():
    mine = ours(numpy(), Package("attr", "attrs", "26", False, ""))
    text = str(compare(mine, theirs(mine, dill="0.3", packages={"numpy": None, "attrs": "1"}), "lab1"))
    assert (text.count(" here and "), text.count(";")) == (3, 2)


def test_other_packages_do_not_matter():
    mine = ours()
    assert compare(mine, theirs(mine, packages={"numpy": "1.0"}), "lab1") is None


def test_what_the_program_can_do_without_may_be_missing_but_not_differ():
    mine = ours(numpy(optional=True))
    assert compare(mine, theirs(mine, packages={"numpy": None}), "lab1") is None
    assert "numpy" in str(compare(mine, theirs(mine, packages={"numpy": "1.0"}), "lab1"))


def test_of_two_imports_the_one_that_needs_it_counts():
    mine = ours(Package("yaml", "PyYAML", "6", True, ""), Package("_yaml", "PyYAML", "6", False, ""))
    assert mine["optional"] == []


@pytest.mark.parametrize("changes", [{"machine": "riscv64"}, {"abi": "cpython-311d"}])
def test_the_kind_of_machine_matters_to_extension_modules_only(changes):
    assert compare(ours(), theirs(ours(), **changes), "lab1") is None
    assert f"and {next(iter(changes.values()))} there" in str(
        compare(ours(native=True), theirs(ours(), **changes), "lab1")
    )
