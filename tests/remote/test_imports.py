"""remote.imports: each way to import, how sure it is, and what is no import."""

from __future__ import annotations

import pytest

from klyng_mp.remote.imports import CERTAIN, GUARDED, POSSIBLE, find_imports


def certainties(source, package="", **keywords):
    return {one.name: one.certainty for one in find_imports(source, package, **keywords)}


@pytest.mark.parametrize(
    ("source", "certainty"),
    [
        ("import m", CERTAIN),
        ("import other as o, m as n", CERTAIN),
        ("from m import name", CERTAIN),
        ("from m import *", CERTAIN),
        ("class C:\n    import m", CERTAIN),
        ("with open('f'):\n    import m", CERTAIN),
        ("try:\n    import m\nfinally:\n    pass", CERTAIN),
        ("try:\n    pass\nfinally:\n    import m", CERTAIN),
        ("def f():\n    import m", POSSIBLE),
        ("async def f():\n    await g(lambda: __import__('m'))", POSSIBLE),
        ("if x:\n    import m", POSSIBLE),
        ("if x:\n    pass\nelse:\n    import m", POSSIBLE),
        ("for x in y:\n    import m", POSSIBLE),
        ("while x:\n    import m", POSSIBLE),
        ("match x:\n    case 1:\n        import m", POSSIBLE),
        ("import importlib\nx = importlib.import_module('m')", POSSIBLE),
        ("try:\n    import m\nexcept ValueError:\n    pass", POSSIBLE),
        ("try:\n    import m\nexcept ImportError:\n    pass", GUARDED),
        ("try:\n    import m\nexcept (ValueError, builtins.ModuleNotFoundError):\n    pass", GUARDED),
        ("try:\n    import m\nexcept:\n    pass", GUARDED),
        ("try:\n    import other\nexcept ImportError:\n    import m", GUARDED),
        ("def f():\n    try:\n        import m\n    except Exception:\n        pass", GUARDED),
        ("with contextlib.suppress(ImportError):\n    import m", GUARDED),
    ],
)
def test_how_sure_an_import_is(source, certainty):
    assert certainties(source)["m"] == certainty


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    import m",
        "if typing.TYPE_CHECKING:\n    import m",
        "if __name__ == '__main__':\n    import m",
        "text = 'import m'  # import m",
        "importlib.import_module(m)",
        "importlib.import_module('.m', 'package')",
        "from .m import x",
        "from .. import m",
    ],
)
def test_what_is_no_import(source):
    assert certainties(source) == {}


def test_what_other_branches_import_counts():
    assert certainties("if TYPE_CHECKING:\n    import m\nelse:\n    import n") == {"n": POSSIBLE}


def test_the_program_itself_has_a_main_part():
    assert certainties("if __name__ == '__main__':\n    import m", is_main=True) == {"m": POSSIBLE}


@pytest.mark.parametrize(
    ("source", "name", "attributes"),
    [
        ("from . import x, y", "a.b", ("x", "y")),
        ("from .c import x", "a.b.c", ("x",)),
        ("from .. import x", "a", ("x",)),
        ("from ..c.d import x", "a.c.d", ("x",)),
    ],
)
def test_relative_imports(source, name, attributes):
    assert [(one.name, one.attributes) for one in find_imports(source, "a.b")] == [(name, attributes)]


def test_an_import_may_be_on_another_line_than_its_statement():
    assert certainties(
        "from a \\\n    import b\nx = [\n  1, __import__(\n'c')]\n\x0c\nif (\n1):\n  y = 1; import d"
    ) == {
        "a": CERTAIN,
        "c": POSSIBLE,
        "d": POSSIBLE,
    }


def test_each_import_has_its_line():
    assert [one.line for one in find_imports("import a\n\nimport b, c\n", "")] == [1, 3, 3]


def test_the_encoding_of_a_file_is_its_own():
    assert certainties("# coding: latin-1\nx = '\xe9'\nimport m".encode("latin-1")) == {"m": CERTAIN}


@pytest.mark.parametrize("source", ["import", "x = \0"])
def test_what_is_no_python_is_refused(source):
    with pytest.raises((SyntaxError, ValueError)):
        find_imports(source, "")
