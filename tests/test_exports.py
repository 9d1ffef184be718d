"""The facade: what ``import klyng_mp`` offers is one list, the same for readers, tools and the interpreter."""

from __future__ import annotations

import ast
import functools
import importlib
import multiprocessing
import subprocess
import sys
import types
from collections import defaultdict
from pathlib import Path

import pytest

import klyng_mp
from klyng_mp import context

PACKAGE = Path(klyng_mp.__file__).parent
FACADE = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))


def listed(tree):
    """Return the literal ``__all__`` of a module, as a tool reads it."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return ast.literal_eval(node.value)
    return None


def bound(statements):
    """Yield the names that statements bind at the top of a module, as a tool sees them."""
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.If | ast.Try):
            yield from bound(node.body)


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] not in ("__init__", "__main__") and parts[1] != "MPI":  # whose names are mpi4py's
            yield ".".join(parts), path


@functools.cache
def homes():
    """Return the modules that list each name in their ``__all__``."""
    found = defaultdict(list)
    for name, path in modules():
        for public in listed(ast.parse(path.read_text(encoding="utf-8"))) or ():
            found[public].append(name)
    return found


def test_the_list_is_sorted_and_has_nothing_twice():
    def constants_first(name):
        return not name.isupper(), name

    assert list(klyng_mp.__all__) == sorted(set(klyng_mp.__all__), key=constants_first)


def test_tools_and_the_interpreter_see_the_same_list():
    assert listed(FACADE) == list(klyng_mp.__all__)
    names = [name for name in bound(FACADE.body) if name != "annotations" and not name.startswith("_")]
    assert sorted(names) == sorted(set(names)), "a name is bound twice"
    assert set(names) == set(klyng_mp.__all__)


def test_the_interpreter_offers_nothing_else():
    public = {
        name
        for name, value in vars(klyng_mp).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, types.ModuleType)
    }
    assert public == set(klyng_mp.__all__) - {"reducer"}  # multiprocessing's name for a module


def test_everything_of_multiprocessing_is_there():
    assert set(multiprocessing.__all__) <= set(klyng_mp.__all__)


@pytest.mark.parametrize("name", multiprocessing.__all__)
def test_each_name_of_multiprocessing_is_the_default_contexts(name):
    ours = getattr(klyng_mp, name)
    assert ours == getattr(context._default_context, name)
    assert type(ours) is type(getattr(multiprocessing, name))


@pytest.mark.parametrize("name", sorted(set(klyng_mp.__all__) - set(multiprocessing.__all__)))
def test_each_public_name_has_one_home(name):
    found = homes()[name]
    assert len(found) == 1, f"{name} is listed by {found or 'no module'}"
    assert getattr(importlib.import_module(found[0]), name) is getattr(klyng_mp, name)


@pytest.mark.parametrize("name", klyng_mp.__all__)
def test_each_public_thing_is_explained(name):
    value = getattr(klyng_mp, name)
    standard = getattr(multiprocessing, name, None)
    if callable(value) and (standard is None or standard.__doc__):
        assert (value.__doc__ or "").strip(), name


def test_every_listed_name_exists():
    for name, path in modules():
        module = importlib.import_module(name)
        for public in listed(ast.parse(path.read_text(encoding="utf-8"))) or ():
            assert hasattr(module, public), f"{name} lists {public} and has it not"


@pytest.mark.slow
def test_the_type_checker_sees_every_name(tmp_path):
    names = ", ".join(klyng_mp.__all__)
    (tmp_path / "user.py").write_text(f"from klyng_mp import {names}\n\nseen = [{names}]\n")
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    words = [sys.executable, "-m", "mypy", *options, str(tmp_path / "user.py")]
    done = subprocess.run(words, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
