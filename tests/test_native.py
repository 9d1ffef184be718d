"""native: whether the C core is in use, and what it says of itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from klyng_mp import native
from klyng_mp.wire import codec

SHOW = "from klyng_mp import native; from klyng_mp.wire.mailbox import Mailbox; print(Mailbox.__module__)"


def ask(wish, code=SHOW):
    env = {**os.environ, native.VARIABLE: wish}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_the_variable_decides():
    assert ask("0").stdout == "klyng_mp.wire.mailbox\n"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
@pytest.mark.parametrize("wish", ["", "1"])
def test_it_is_used_where_it_is_there(wish):
    assert ask(wish).stdout == "klyng_mp._core\n"


def test_a_wish_that_is_none_is_refused():
    answer = ask("yes")
    assert answer.returncode
    assert "KLYNG_MP_NATIVE is 1 (use the native core, or fail) or 0 (do without it), not 'yes'" in answer.stderr


FOLDER = types.ModuleType("klyng_mp._core")  # what import makes of the folder of its sources
FOLDER.__spec__ = ModuleSpec("klyng_mp._core", None)


@pytest.mark.parametrize("absent", [None, FOLDER], ids=["nothing", "sources"])
def test_where_it_must_be_there_its_absence_is_an_error(monkeypatch, absent):
    monkeypatch.setitem(sys.modules, "klyng_mp._core", absent)
    assert native.find_core("") is None
    with pytest.raises(ImportError, match="install klyng_mp where there is a C compiler"):
        native.find_core("1")


def test_a_core_that_cannot_be_loaded_is_an_error_that_says_what_to_do(monkeypatch):
    def broken(_name):
        raise ImportError("undefined symbol: PyOld")

    monkeypatch.setattr(native, "import_module", broken)
    with pytest.raises(ImportError, match=r"cannot be loaded \(undefined symbol: PyOld\).* KLYNG_MP_NATIVE=0"):
        native.find_core("")


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
def test_the_core_knows_the_codecs_codes():
    numbered = ["NONE", "BOOL", "INT", "FLOAT", "STR", "BYTES", "BYTES_APART", "BYTEARRAY", "BYTEARRAY_APART", "PICKLE"]
    numbered += ["PLAIN", "ARRAY"]
    assert [getattr(codec, f"_{name}") for name in numbered] == list(native.core.CODES)
    assert codec.APART_BYTES == native.core.APART_BYTES


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
def test_the_stub_declares_what_the_core_has():
    tree = ast.parse(Path(native.__file__).with_name("_core.pyi").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    twins = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    found = {name for name, value in vars(native.core).items() if isinstance(value, type)}
    assert found - {"Keeper"} == set(classes) | (twins - {None})
    for name, node in classes.items():
        declared = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        declared |= {child.target.id for child in node.body if isinstance(child, ast.AnnAssign)}
        public = {member for member in vars(getattr(native.core, name)) if not member.startswith("_")}
        assert {member for member in declared if not member.startswith("_")} == public
