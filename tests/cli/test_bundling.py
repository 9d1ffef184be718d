"""cli.bundling: the list of what travels, and the whole command."""

from __future__ import annotations

import importlib.metadata
import io
import tarfile

import pytest

from klyng_mp.cli.bundling import render
from klyng_mp.remote.bundle import Bundle, inspect
from klyng_mp.remote.sources import find_program_sources

NUMPY = importlib.metadata.version("numpy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(
        "import helpers, numpy\ntry:\n    import nowhere, attr\nexcept ImportError:\n    pass\n"
    )
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers/__init__.py").write_text("")
    for number in range(12):
        (tmp_path / f"helpers/{number:02}.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(run_python):
    return lambda *words, **keywords: run_python("-m", "klyng_mp", "bundle", *words, **keywords)


def test_everything_is_listed_with_its_reason(folder):
    sources = find_program_sources("script", "app.py")
    bundle = Bundle.make(sources)
    size = (folder / "app.py").stat().st_size
    assert render(sources, bundle).splitlines() == [
        f"2 files travel: {size} bytes, {len(bundle.data)} packed, digest {bundle.digest}",
        f"  {size}  {folder}/app.py               the program",
        f"   0  {folder}/helpers/__init__.py  imported by app.py, line 1",
        "",
        "has to be installed on each host, in the same version:",
        f"  attrs  {importlib.metadata.version('attrs')}  imported by app.py, line 3; the program can do without",
        f"  numpy  {NUMPY.ljust(len(importlib.metadata.version('attrs')))}  imported by app.py, line 1",
        "",
        "is imported, but neither installed here nor the program's own:",
        "  nowhere  imported by app.py, line 3",
        "",
        "stays here, as nobody lists it (--files):",
        *(f"  {folder}/helpers/{number:02}.txt" for number in range(10)),
        "  and 2 more",
    ]


def test_a_small_program_has_a_small_list(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text("")
    monkeypatch.chdir(tmp_path)
    sources = find_program_sources("script", "app.py")
    assert render(sources, Bundle.make(sources)).splitlines()[1:] == [f"  0  {tmp_path}/app.py  the program"]


def test_the_command_lists(command, folder):
    done = command("--files", "helpers/*.txt", "--files=app.py", "app.py", "--files", "its own")
    assert (done.returncode, done.stderr) == (0, "")
    assert "14 files travel" in done.stdout
    assert "stays here" not in done.stdout


def test_the_command_writes(command, folder):
    done = command("-o", "app.tar.gz", "app.py")
    assert (done.returncode, done.stderr) == (0, "")
    data = (folder / "app.tar.gz").read_bytes()
    assert inspect(data)[0] in done.stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["manifest.json", "0/app.py", "0/helpers/__init__.py"]


def test_a_module_and_code_are_programs_too(command, folder):
    (folder / "helpers/tool.py").write_text("")
    assert f"{folder}/helpers/tool.py      the program" in command("-m", "helpers.tool").stdout
    assert "imported by -c, line 1" in command("-c", "import helpers").stdout


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["ap.py"], 2, "the script 'ap.py' does not exist: did you mean app.py?"),
        (["-m", "nothing"], 2, "there is no module named 'nothing'"),
        ([], 2, "there is nothing to run: give a script, -m MODULE or -c CODE (see klyng-mp bundle --help)"),
        (["-m"], 2, "-m needs a value"),
        (["--files", "", "app.py"], 2, "--files needs a pattern: for example --files 'data/*.csv'"),
        (["-o", "/nowhere/x", "app.py"], 2, "-o /nowhere/x cannot be written: there is no folder /nowhere"),
        (["-n", "4", "app.py"], 2, "unrecognized arguments: -n"),
        (["--files", "*.csv", "app.py"], 1, "no file is meant by '*.csv'"),
        (
            ["-c", "import nowhere"],
            1,
            "needs what is neither installed here nor its own: 'nowhere' (imported by -c, line 1)",
        ),
    ],
)
def test_what_is_wrong_is_one_line(command, folder, words, code, sentence):
    done = command(*words)
    assert done.returncode == code
    assert done.stderr.startswith("klyng-mp: error: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_syntax_error_is_shown(command, folder):
    (folder / "bad.py").write_text("import\n")
    done = command("bad.py")
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr


def test_it_fails_before_it_writes(command, folder):
    assert command("-o", "x", "--files", "*.csv", "app.py").returncode == 1
    assert not (folder / "x").exists()
