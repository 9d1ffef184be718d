"""remote.walk: what is reached from a program, and how surely."""

from __future__ import annotations

import sys
import types

import pytest

from klyng_mp.remote.imports import CERTAIN, POSSIBLE
from klyng_mp.remote.modules import ModuleFinder
from klyng_mp.remote.walk import Walk, files_below


@pytest.fixture
def walk(tmp_path):
    """Write files and walk from a text; give the walk."""

    def go(text, files=(), certainty=CERTAIN, main="__main__"):
        for name, content in dict(files).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        made = Walk(ModuleFinder([str(tmp_path), *sys.path]), main)
        made.follow(text, "app.py", "__main__", certainty)
        made.finish()
        return made

    return go


def shown(walk, folder):
    return {path.removeprefix(f"{folder}/"): why for path, why in walk.files.items()}


def test_imports_are_followed_and_say_why(walk, tmp_path):
    files = {"a.py": "\nimport b", "b.py": "import a\ndef f(): from c import d", "c.py": "d = 1", "unused.py": ""}
    assert shown(walk("import a", files), tmp_path) == {
        "a.py": "imported by app.py, line 1",
        "b.py": "imported by a.py, line 2",
        "c.py": "imported by b.py, line 2",
    }


def test_a_package_travels_whole(walk, tmp_path):
    files = {"p/__init__.py": "", "p/a.py": "", "p/sub/b.py": "", "p/n.so": "", "p/libx.so.1": "", "p/data.txt": "",
             "p/.hidden/c.py": "", "p/__pycache__/a.pyc": "", "p/env/pyvenv.cfg": "", "p/env/d.py": ""}  # fmt: skip
    walked = walk("import p.a", files)
    assert shown(walked, tmp_path) == {
        "p/__init__.py": "imported by app.py, line 1",
        "p/a.py": "imported by app.py, line 1",
        "p/sub/b.py": "of package p, imported by app.py, line 1",
        "p/n.so": "of package p, imported by app.py, line 1",
        "p/libx.so.1": "of package p, imported by app.py, line 1",
    }
    assert walked.stays == {f"{tmp_path}/p/data.txt"}


def test_of_a_namespace_travels_what_is_imported(walk, tmp_path):
    files = {"n/a.py": "from . import b", "n/b.py": "", "n/c.py": "", "n/p/__init__.py": "", "n/p/d.py": ""}
    walked = walk("import n.a\nfrom n import p", files)
    assert sorted(shown(walked, tmp_path)) == ["n/a.py", "n/b.py", "n/p/__init__.py", "n/p/d.py"]


def test_what_is_not_imported_of_a_package_asks_for_nothing(walk):
    """Its tests, say: they travel, but hosts need not have what they import."""
    assert set(walk("import p", {"p/__init__.py": "", "p/tests.py": "import pytest"}).packages) == set()
    assert set(walk("import p.tests").packages) == {"pytest"}


def test_installed_packages_are_named_once_and_not_followed(walk):
    walked = walk("import numpy.linalg, dateutil.parser\nimport numpy as np\nimport klyng_mp, os")
    assert {name: one.distribution for name, one in walked.packages.items()} == {
        "numpy": "numpy",
        "dateutil": "python-dateutil",
    }
    assert walked.files == {}
    assert walked.missing == {}


@pytest.mark.parametrize(
    ("text", "optional"),
    [
        ("import numpy", False),
        ("def f():\n    import numpy", False),
        ("try:\n    import numpy\nexcept ImportError:\n    numpy = None", True),
        ("try:\n    import numpy\nexcept ImportError:\n    pass\nimport helper", False),
        ("try:\n    import helper\nexcept ImportError:\n    pass", True),
    ],
)
def test_what_the_program_can_do_without(walk, text, optional):
    assert walk(text, {"helper.py": "import numpy"}).packages["numpy"].optional is optional


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("import nowhere.x", {"nowhere": True}),
        ("import helper", {"nothing": True}),
        ("def f():\n    import helper", {"nothing": False}),
        ("if 1:\n    import nowhere", {"nowhere": False}),
        ("try:\n    import nowhere\nexcept ImportError:\n    pass", {"nowhere": False}),
        ("try:\n    import nowhere\nexcept ImportError:\n    pass\nimport nowhere", {"nowhere": True}),
        ("import n.x", {"n.x": True}),
        ("from n import x, y", {"n.x": True}),
        ("from helper2 import x", {}),
        ("from os import path, nonsense", {}),
        ("import helper2.made_by_itself", {}),
        ("import pack.made_by_itself", {"pack.made_by_itself": False}),
        ("import nowhere, sys\nsys.path.insert(0, 'lib')", {"nowhere": False}),
        ("if sys.platform == 'win32':\n    import winreg", {}),
        ("import winreg", {"winreg": True}),
    ],
)
def test_what_is_missing(walk, text, missing):
    walked = walk(text, {"helper.py": "import nothing", "helper2.py": "", "n/y.py": "", "pack/__init__.py": ""})
    assert {name: one.fatal for name, one in walked.missing.items()} == missing


def test_what_is_no_python_is_left_to_who_imports_it(walk, tmp_path):
    assert list(shown(walk("import bad, good", {"bad.py": "import", "good.py": ""}), tmp_path)) == ["bad.py", "good.py"]


def test_the_main_part_of_a_module_counts_where_it_is_the_program(walk, tmp_path):
    files = {"mod.py": "if __name__ == '__main__':\n    import a", "a.py": ""}
    assert list(shown(walk("import mod", files), tmp_path)) == ["mod.py"]
    assert list(shown(walk("import mod", files, main="mod"), tmp_path)) == ["mod.py", "a.py"]


def test_without_source_nobody_knows(walk, tmp_path):
    (tmp_path / "bare.pyc").write_bytes(b"")
    walked = walk("import bare")
    assert shown(walked, tmp_path) == {"bare.pyc": "imported by app.py, line 1"}
    assert [(one.module, one.fatal) for one in walked.missing.values()] == [("bare.pyc", False)]
    assert "what it imports is not known" in walked.missing["bare.pyc"].why


def test_a_session_has_what_its_names_are_bound_to(monkeypatch, tmp_path):
    main = types.ModuleType("__main__")
    main.pytest, main.fixture, main.number = pytest, pytest.fixture, 5
    walked = Walk(ModuleFinder(sys.path, dict(sys.modules)))
    walked.follow_running(main)
    walked.finish()
    assert {name: one.why for name, one in walked.packages.items()} == {
        "pytest": "used in __main__",
        "_pytest": "used in __main__",
    }


def test_a_running_script_is_read(tmp_path):
    (tmp_path / "app.py").write_text("from . import near\nif __name__ == '__main__':\n    import far")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/near.py").write_text("")
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "app.py")
    main.__spec__ = types.SimpleNamespace(parent="p")
    walked = Walk(ModuleFinder([str(tmp_path)]))
    walked.follow_running(main)
    walked.finish()
    assert shown(walked, tmp_path) == {"p/near.py": "imported by app.py, line 1"}
    assert walked.missing["far"].fatal is False


def test_links_in_circles_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/circle").symlink_to(tmp_path)
    (tmp_path / "a/file").write_text("")
    (tmp_path / "a/broken").symlink_to("nowhere")
    assert list(files_below(str(tmp_path))) == [f"{tmp_path}/a/file"]


def test_certainty_of_the_start_holds(walk):
    assert walk("import nowhere", certainty=POSSIBLE).missing["nowhere"].fatal is False
