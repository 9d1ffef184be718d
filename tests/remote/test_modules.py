"""remote.modules: where modules are, whose they are, and who brought them; nothing is imported for that."""

from __future__ import annotations

import importlib.metadata
import sys
import types
import zipfile

import pytest

from klyng_mp.remote.modules import INSTALLED, NAMESPACE, OWN, STANDARD, ModuleFinder, distribution_of, owner_of_script


@pytest.fixture
def folder(tmp_path):
    """Write files whose import would fail; give their folder."""

    def write(*names, text="raise AssertionError('it was imported')\n"):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("name", "file", "is_package"),
    [
        ("mod", "mod.py", False),
        ("pack", "pack/__init__.py", True),
        ("pack.sub.mod", "pack/sub/mod.py", False),
        ("space.mod", "space/mod.py", False),
        ("queue", "queue.py", False),
        ("native", "native.cpython-311-x86_64-linux-gnu.so", False),
    ],
)
def test_own_modules_are_found_and_not_imported(folder, name, file, is_package):
    root = folder("mod.py", "pack/__init__.py", "pack/sub/__init__.py", "pack/sub/mod.py", "space/mod.py", "queue.py",
                  f"native.{sys.implementation.cache_tag}-x86_64-linux-gnu.so")  # fmt: skip
    found = ModuleFinder([root, *sys.path]).find(name)
    file = file.replace("cpython-311", sys.implementation.cache_tag)
    assert (found.owner, found.path, found.root, found.is_package) == (OWN, f"{root}/{file}", root, is_package)
    assert found.shown == file
    assert name == "queue" or name not in sys.modules


def test_a_folder_without_init_is_a_namespace(folder):
    found = ModuleFinder([folder("space/mod.py")]).find("space")
    assert (found.owner, found.path, found.is_package, found.read()) == (NAMESPACE, "", True, None)


@pytest.mark.parametrize("name", ["sys", "os", "json.decoder", "_ctypes", "zipimport"])
def test_the_standard_library_is_standard(name):
    assert ModuleFinder(sys.path).find(name).owner == STANDARD


@pytest.mark.parametrize("name", ["pytest", "numpy.linalg", "dill", "_pytest"])
def test_what_is_installed_is_not_own(name):
    assert ModuleFinder(sys.path).find(name).owner == INSTALLED


def test_what_was_installed_into_some_folder_is_not_own(folder):
    root = folder("mod.py", "mod-1.0.dist-info/METADATA")
    assert ModuleFinder([root]).find("mod").owner == INSTALLED


def test_a_package_in_a_folder_of_another_name_does_not_travel(folder):
    root = folder("lib/__init__.py")
    module = types.ModuleType("renamed")
    module.__spec__ = importlib.util.spec_from_file_location("renamed", f"{root}/lib/__init__.py")
    assert ModuleFinder([], {"renamed": module}).find("renamed").owner == INSTALLED


def test_what_is_loaded_is_taken_from_where_it_is(folder):
    root = folder("a/mod.py", "b/mod.py")
    module = types.ModuleType("mod")
    module.__spec__ = importlib.util.spec_from_file_location("mod", f"{root}/b/mod.py")
    assert ModuleFinder([f"{root}/a"]).find("mod").root == f"{root}/a"
    assert ModuleFinder([f"{root}/a"], {"mod": module}).find("mod").root == f"{root}/b"


def test_what_is_lazy_is_not_loaded_by_being_looked_at(folder):
    root = folder("mod.py")
    spec = importlib.util.spec_from_file_location("mod", f"{root}/mod.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert ModuleFinder([], {"mod": module}).find("mod").path == f"{root}/mod.py"
    with pytest.raises(AssertionError, match="it was imported"):
        module.anything


@pytest.mark.parametrize("module", [None, 5, types.ModuleType("mod"), types.SimpleNamespace(__spec__="odd")])
def test_anything_may_stand_for_a_module(module):
    assert ModuleFinder([], {"mod": module}).find("mod") is None


@pytest.mark.parametrize("name", ["nowhere", "nowhere.mod", "mod.inside", "pack.nothing"])
def test_what_is_not_there_is_not_found(folder, name):
    assert ModuleFinder([folder("mod.py", "pack/__init__.py")]).find(name) is None


def test_modules_in_zip_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        archive.writestr("pack/__init__.py", "")
        archive.writestr("pack/mod.py", "import other\n")
    found = ModuleFinder([str(tmp_path / "lib.zip")]).find("pack.mod")
    assert (found.owner, found.path, found.root) == (OWN, f"{tmp_path}/lib.zip", f"{tmp_path}/lib.zip")
    assert (found.is_archived, found.shown, found.read()) == (True, "pack.mod", "import other\n")


def test_scripts_have_owners(tmp_path):
    assert owner_of_script(str(tmp_path / "app.py")) == OWN
    assert owner_of_script(pytest.__file__) == INSTALLED


@pytest.mark.parametrize(
    ("name", "distribution"), [("pytest", "pytest"), ("_pytest", "pytest"), ("attr", "attrs"), ("numpy", "numpy")]
)
def test_who_brought_a_module(name, distribution):
    found = ModuleFinder(sys.path).find(name)
    assert distribution_of(name, found.path) == (distribution, importlib.metadata.version(distribution))


def test_what_nobody_brought():
    assert distribution_of("nowhere", "/nowhere.py") == ("", "")


def test_what_only_says_that_it_is_a_module_is_none():
    class Library:
        __slots__ = ()
        __class__ = types.ModuleType

    assert isinstance(Library(), types.ModuleType)
    assert ModuleFinder([], {"library": Library()}).spec_of("library") is None
