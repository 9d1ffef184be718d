"""remote.sources: what of real small programs travels, and that they run where it is unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import types
import zipfile

import pytest

from klyng_mp.errors import BundleError
from klyng_mp.launch.program import ProgramOptions, load
from klyng_mp.remote.bundle import Bundle, unpack
from klyng_mp.remote.sources import find_loaded_sources, find_program_sources

PROGRAM = {
    "app.py": "import helpers.a, space.deep\nfrom helpers import b\nprint(helpers.a.NAME, b.late(), space.deep.NAME)\n"
              "print(open('settings.txt').read() + open(__file__[:-6] + 'helpers/data.txt').read())\n",
    "helpers/__init__.py": "",
    "helpers/a.py": "from . import b\nNAME = 'a'\n",
    "helpers/b.py": "def late():\n    from lazy import NAME\n    return NAME\n",
    "helpers/by_name.py": "",
    "helpers/data.txt": "data",
    "lazy.py": "NAME = 'lazy'\n",
    "space/deep.py": "NAME = 'deep'\n",
    "space/other.py": "",
    "settings.txt": "settings ",
    "unused.py": "",
}  # fmt: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a program into a folder and go there; give the folder."""

    def write(files=PROGRAM, cwd="."):
        folder = tmp_path / "here"
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / cwd).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder / cwd)
        return folder

    return write


def places(sources):
    return [entry.place for entry in sources.entries]


def run_unpacked(sources, tmp_path, *words):
    """Unpack a program elsewhere and run it there, with nothing of here on its path."""
    unpacked = unpack(Bundle.make(sources).data, str(tmp_path / "there"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(unpacked.path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, *(words or [unpacked.main])]
    done = subprocess.run(command, cwd=unpacked.cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_a_script_travels_with_what_it_imports_and_runs_there(program, tmp_path):
    program()
    sources = find_program_sources("script", "app.py", ["settings.txt", "helpers/*.txt"])
    assert places(sources) == [
        "0/app.py",
        "0/helpers/__init__.py",
        "0/helpers/a.py",
        "0/helpers/b.py",
        "0/helpers/by_name.py",
        "0/helpers/data.txt",
        "0/lazy.py",
        "0/settings.txt",
        "0/space/deep.py",
    ]
    assert (sources.path, sources.cwd, sources.main, sources.is_native) == (("0",), "0", "0/app.py", False)
    assert (sources.packages, sources.missing, sources.stays) == ((), (), ())
    assert run_unpacked(sources, tmp_path) == "a lazy deep\nsettings data\n"


def test_each_file_says_why(program):
    program()
    why = {entry.place: entry.why for entry in find_program_sources("script", "app.py", ["settings.txt"]).entries}
    assert why["0/app.py"] == "the program"
    assert why["0/lazy.py"] == "imported by helpers/b.py, line 2"
    assert why["0/helpers/b.py"] == "imported by app.py, line 2"
    assert why["0/helpers/by_name.py"] == "of package helpers, imported by app.py, line 1"
    assert why["0/settings.txt"] == "listed as 'settings.txt'"


def test_what_nobody_lists_stays(program):
    folder = program()
    assert find_program_sources("script", "app.py").stays == (f"{folder}/helpers/data.txt",)


def test_nothing_is_executed_or_imported(program):
    program({"app.py": "import one\n1/0", "one/__init__.py": "1/0", "one/two.py": "1/0"})
    before = set(sys.modules)
    assert len(find_program_sources("script", "app.py").entries) == 3
    assert {name for name in set(sys.modules) - before if name.startswith(("one", "app"))} == set()


def test_a_program_below_the_working_directory_stays_below_it(program, tmp_path):
    program({"project/app.py": "import near\nprint(open('project/data').read(), open('top').read())",
             "project/near.py": "", "project/data": "data", "top": "top"})  # fmt: skip
    sources = find_program_sources("script", "project/app.py", ["project/data", "top"])
    assert (sources.path, sources.cwd, sources.main) == (("0/project",), "0", "0/project/app.py")
    assert run_unpacked(sources, tmp_path) == "data top\n"


def test_a_program_above_the_working_directory_stays_above_it(program, tmp_path):
    program({"app.py": "import near\nprint(open('data').read())", "near.py": "", "work/data": "data"}, cwd="work")
    sources = find_program_sources("script", "../app.py", ["data"])
    assert (sources.path, sources.cwd, sources.main) == (("0",), "0/work", "0/app.py")
    assert run_unpacked(sources, tmp_path) == "data\n"


def test_where_a_program_is_does_not_matter(program, tmp_path, monkeypatch):
    folder = program()
    first = Bundle.make(find_program_sources("script", "app.py"))
    monkeypatch.chdir("/")
    assert Bundle.make(find_program_sources("script", str(folder / "app.py"))).digest != first.digest  # cwd is above
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert Bundle.make(find_program_sources("script", "app.py")).digest == first.digest


def test_folders_of_the_search_path_keep_their_order(program, tmp_path, monkeypatch):
    folder = program({"app.py": "import both, second\nprint(both.NAME, second.NAME)"})
    for name, files in {"x": ["both"], "y": ["both", "second"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / f"{file}.py").write_text(f"NAME = {name!r}")
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / name)])
    sources = find_program_sources("script", "app.py")
    assert (sources.path, places(sources)) == (("0", "1", "2"), ["0/app.py", "1/both.py", "2/second.py"])
    assert run_unpacked(sources, tmp_path) == "x y\n"
    assert folder.name == "here"


def test_a_module_is_run_from_the_working_directory(program, tmp_path):
    program({"tool/__init__.py": "", "tool/__main__.py": "from .part import NAME\nprint(NAME)",
             "tool/part.py": "if __name__ == '__main__':\n    import own\nNAME = 'part'", "own.py": ""})  # fmt: skip
    assert "0/own.py" not in places(find_program_sources("module", "tool"))
    assert "0/own.py" in places(find_program_sources("module", "tool.part"))
    sources = find_program_sources("module", "tool")
    assert (sources.path, sources.main) == (("0",), "")
    assert run_unpacked(sources, tmp_path, "-m", "tool") == "part\n"


def test_an_installed_module_is_to_be_installed_there(program):
    program({})
    sources = find_program_sources("module", "pytest")
    assert (sources.entries, [one.module for one in sources.packages]) == ((), ["pytest"])


def test_code_travels_by_itself_and_what_it_imports_with_it(program, tmp_path):
    program({"near.py": "NAME = 'near'"})
    sources = find_program_sources("code", "import near")
    assert [entry.why for entry in sources.entries] == ["imported by -c, line 1"]
    assert run_unpacked(sources, tmp_path, "-c", "import near; print(near.NAME)") == "near\n"


def test_a_folder_is_a_program(program, tmp_path):
    program({"tool/__main__.py": "import near\nprint(near.NAME)", "tool/near.py": "NAME = 'near'"})
    sources = find_program_sources("script", "tool")
    assert (sources.path, sources.main) == (("0/tool",), "0/tool")
    assert run_unpacked(sources, tmp_path) == "near\n"


def test_a_zip_file_is_a_program(program, tmp_path):
    program({})
    with zipfile.ZipFile("tool.zip", "w") as archive:
        archive.writestr("__main__.py", "import near, numpy\nprint(near.NAME)")
        archive.writestr("near.py", "NAME = 'near'")
    sources = find_program_sources("script", "tool.zip")
    assert (sources.path, sources.main, places(sources)) == (("0/tool.zip",), "0/tool.zip", ["0/tool.zip"])
    assert [one.module for one in sources.packages] == ["numpy"]
    assert run_unpacked(sources, tmp_path) == "near\n"


@pytest.mark.parametrize("kind", ["script", "module"])
def test_the_search_path_is_the_one_that_the_program_sees(program, kind):
    """Beside the script, not beside the command that looks for it."""
    program({"one/app.py": "import near", "one/near.py": "", "near.py": "", "app.py": "import near"})
    target = {"script": "one/app.py", "module": "app"}[kind]
    path0 = load(ProgramOptions(kind, target)).path0
    sources = find_program_sources(kind, target)
    assert f"{path0}/near.py" in [entry.path for entry in sources.entries]
    assert len(sources.entries) == 2


def test_extension_modules_are_said_to_be_there(program):
    program({"app.py": "import p", "p/__init__.py": "", "p/fast.so": ""})
    assert find_program_sources("script", "app.py").is_native


# -- files that are listed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.csv", ["data/a.csv"]),
        ("data/**/*.csv", ["data/a.csv", "data/deep/b.csv"]),
        ("data", ["data/a.csv", "data/deep/b.csv", "data/deep/c"]),
        ("./data/../data/a.csv", ["data/a.csv"]),
        ("data/.secret", ["data/.secret"]),
        ("data/[ab].csv", ["data/a.csv"]),
    ],
)
def test_patterns(program, pattern, expected):
    program({"app.py": "", "data/a.csv": "", "data/deep/b.csv": "", "data/deep/c": "", "data/.secret": ""})
    sources = find_program_sources("script", "app.py", [pattern])
    assert [place for place in places(sources) if place != "0/app.py"] == [f"0/{name}" for name in expected]


def test_a_pattern_may_be_absolute_and_double(program):
    folder = program({"app.py": "", "data": ""})
    assert places(find_program_sources("script", "app.py", [f"{folder}/data", "data"])) == ["0/app.py", "0/data"]


def test_a_pattern_for_nothing_is_a_mistake(program):
    folder = program({"app.py": ""})
    with pytest.raises(BundleError) as caught:
        find_program_sources("script", "app.py", ["*.csv"])
    assert str(caught.value) == f"no file is meant by '*.csv' in {folder}: correct it, or leave it out"


def test_a_file_elsewhere_has_no_place(program, tmp_path):
    program({"app.py": ""})
    (tmp_path / "elsewhere").write_text("")
    with pytest.raises(BundleError, match=r"elsewhere \(listed as '\.\./elsewhere'\) is neither below the working dir"):
        find_program_sources("script", "app.py", ["../elsewhere"])


# -- what is missing -------------------------------------------------------------------------------


def test_a_module_that_nobody_has_is_an_error_where_the_program_cannot_begin(program):
    program({"app.py": "import near", "near.py": "\nimport nowhere.x"})
    with pytest.raises(BundleError) as caught:
        find_program_sources("script", "app.py").check()
    assert str(caught.value) == (
        "the program needs what is neither installed here nor its own: 'nowhere' (imported by near.py, line 2); "
        "install it here and on each host, or put its folder on PYTHONPATH, so that it travels"
    )


def test_a_module_that_may_not_be_needed_is_no_error(program):
    program({"app.py": "try:\n    import nowhere\nexcept ImportError:\n    pass\ndef f():\n    import never"})
    sources = find_program_sources("script", "app.py")
    assert [one.module for one in sources.missing] == ["never", "nowhere"]
    sources.check()


# -- of the program that runs ----------------------------------------------------------------------


def test_a_running_program_sends_its_modules_and_not_its_main(program, tmp_path):
    folder = program({**PROGRAM, "driver.py": (
        "import sys, helpers.a, numpy\n"
        "def f():\n    import near\n"
        "from klyng_mp.remote.sources import find_loaded_sources\n"
        "sources = find_loaded_sources(['settings.txt'])\n"
        "print([entry.place for entry in sources.entries], sources.path, sources.main)\n"
        "print([one.module for one in sources.packages], sorted({entry.why for entry in sources.entries}))\n"
    ), "near.py": ""})  # fmt: skip
    done = subprocess.run([sys.executable, "driver.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == (
        "['0/helpers/__init__.py', '0/helpers/a.py', '0/helpers/b.py', '0/helpers/by_name.py', '0/lazy.py', "
        "'0/near.py', '0/settings.txt'] ('0',) "
    )
    assert second.startswith("['numpy'] ['imported by driver.py, line 1', 'imported by driver.py, line 3', ")


def test_a_session_sends_what_it_has_imported(tmp_path):
    (tmp_path / "near.py").write_text("NAME = 'near'\nimport attr")
    code = (
        "import near, klyng_mp\n"
        "from klyng_mp.remote.sources import find_loaded_sources\n"
        "sources = find_loaded_sources()\n"
        "print([(entry.place, entry.why) for entry in sources.entries], [one.distribution for one in sources.packages])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[('0/near.py', 'used in __main__')] ['attrs']\n", "")


def test_modules_without_a_file_stay():
    made = types.ModuleType("made_by_hand")
    assert find_loaded_sources(modules={"made_by_hand": made, "sys": sys}).entries == ()
