"""launch.appmodules: a change to a file of the program is seen, and nothing else is."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

import klyng_mp
from klyng_mp.launch.appmodules import AppModules


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a module of one's own; give its file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = iter(range(100))

    def make(text="x = 1\n"):
        path = tmp_path / f"own_module_{next(names)}.py"
        path.write_text(text)
        importlib.import_module(path.stem)
        imported.append(path.stem)
        return path

    imported = []
    yield make
    for name in imported:
        sys.modules.pop(name, None)


def test_nothing_has_changed_at_first(module):
    module()
    assert AppModules().changed() == []


def test_another_size_or_date_is_a_change(module):
    size, date = module(), module()
    modules = AppModules()
    size.write_text("x = 22\n")
    assert modules.changed() == [str(size)]
    status = date.stat()
    date.write_text("x = 2\n")
    os.utime(date, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert sorted(modules.changed()) == sorted([str(size), str(date)])
    assert AppModules().changed() == []


def test_a_file_that_is_gone_is_a_change(module):
    path = module()
    modules = AppModules()
    path.unlink()
    assert modules.changed() == [str(path)]
    assert AppModules().changed() == []


def test_modules_that_were_imported_later_are_watched_from_then_on(module):
    modules = AppModules()
    path = module()
    assert modules.changed() == []
    path.write_text("x = 1000\n")
    assert modules.changed() == [str(path)]


def test_only_the_programs_own_modules_are_watched(module, monkeypatch):
    path = module()
    watched = []
    modules = AppModules()
    monkeypatch.setattr("klyng_mp.launch.appmodules._signature", watched.append)
    modules.changed()
    assert str(path) in watched
    for other in (importlib, pytest, klyng_mp):
        assert not [name for name in watched if name.startswith(os.path.dirname(other.__file__) + os.sep)]


def test_modules_that_change_folders_are_found_where_they_are(module, tmp_path, monkeypatch):
    path = module()
    modules = AppModules()
    monkeypatch.chdir("/")
    assert modules.changed() == []
    path.write_text("x = 1000\n")
    assert modules.changed() == [str(path)]


def test_odd_modules_are_left_alone(monkeypatch):
    class Odd:
        __file__ = 3

    monkeypatch.setitem(sys.modules, "odd_module", Odd())
    monkeypatch.setitem(sys.modules, "no_module", None)
    assert AppModules().changed() == []
