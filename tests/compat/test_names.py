"""Each module of multiprocessing has one of ours under its name, with its names, their parameters and their methods."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import pkgutil
import types

import pytest

# Functions and classes that a module of ours does not have, each with its reason.
LEFT_OUT = {
    "resource_tracker": {"ReentrantCallError": "not every 3.11 has it"},
}
NOT_OURS = {"popen_spawn_win32": "nothing is claimed for Windows"}
PACKAGES = ("multiprocessing", "multiprocessing.dummy")
MODULES = sorted(
    f"{package}.{module.name}".removeprefix("multiprocessing.")
    for package in PACKAGES
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
    if module.name not in NOT_OURS
)


def pair(name):
    """Return the standard module, and ours."""
    return importlib.import_module(f"multiprocessing.{name}"), importlib.import_module(f"klyng_mp.{name}")


def names_of(module):
    """Return what a module offers: what it says it does, and what it defines without an underscore."""
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and getattr(value, "__module__", module.__name__) == module.__name__
    }
    return defined | set(getattr(module, "__all__", ()))


def parameters_of(function):
    """Return names, kinds and defaults of the public parameters, or None where Python does not know them."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [(one.name, one.kind, one.default) for one in found if not one.name.startswith("_")]


def fits(theirs, ours):
    """Tell whether what may be called as theirs may be called as ours: more keywords are no harm."""
    wanted, offered = parameters_of(theirs), parameters_of(ours)
    if wanted is None or offered is None or wanted == offered:
        return True
    open_ended = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    extra = [kind for name, kind, _ in offered if name not in {name for name, _, _ in wanted}]
    kept = [one for one in offered if one[0] in {name for name, _, _ in wanted}]
    return kept == wanted and all(kind in open_ended for kind in extra)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_all_names(name):
    standard, ours = pair(name)
    assert sorted(names_of(standard) - set(dir(ours)) - set(LEFT_OUT.get(name, ()))) == []


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_classes_are_called_alike(name):
    standard, ours = pair(name)
    differ = {}
    for one in sorted(names_of(standard) & set(dir(ours))):
        theirs, mine = getattr(standard, one), getattr(ours, one)
        if theirs is not mine and callable(theirs) and not fits(theirs, mine):
            differ[one] = f"{inspect.signature(mine)} is not {inspect.signature(theirs)}"
    assert differ == {}


@pytest.mark.parametrize("name", MODULES)
def test_classes_have_all_methods(name):
    standard, ours = pair(name)
    missing, differ = [], {}
    for one in sorted(names_of(standard) & set(dir(ours))):
        theirs, mine = getattr(standard, one), getattr(ours, one)
        if theirs is mine or not isinstance(theirs, type):
            continue
        for method in (word for word in dir(theirs) if not word.startswith("_")):
            if not hasattr(mine, method):
                missing.append(f"{one}.{method}")
            elif not fits(getattr(theirs, method), getattr(mine, method)):
                differ[f"{one}.{method}"] = str(inspect.signature(getattr(mine, method)))
    assert (missing, differ) == ([], {})


@pytest.mark.parametrize("name", MODULES)
def test_our_classes_and_errors_are_theirs(name):
    standard, ours = pair(name)
    strangers = [
        one
        for one in sorted(names_of(standard) & set(dir(ours)))
        if isinstance(getattr(standard, one), type) and not issubclass(getattr(ours, one), getattr(standard, one))
    ]
    assert strangers == []


def test_nothing_is_left_out_that_is_there():
    there = {name: sorted(set(names) & set(dir(pair(name)[1]))) for name, names in LEFT_OUT.items()}
    assert {name: names for name, names in there.items() if names} == {}


def test_the_facade_has_the_names_of_the_package():
    ours = importlib.import_module("klyng_mp")
    for name in multiprocessing.__all__:
        assert fits(getattr(multiprocessing, name), getattr(ours, name)), name
