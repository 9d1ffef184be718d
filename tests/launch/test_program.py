"""launch.program: a program sees what it would see under ``python``, and errors are said before any rank starts."""

from __future__ import annotations

import json
import py_compile
import sys
import zipfile

import pytest

from klyng_mp.errors import LaunchError
from klyng_mp.launch.program import Program, ProgramError, ProgramOptions, format_user_traceback, load

KINDS = {"-m": "module", "-c": "code"}

# What a program can see of how it was started; printed as JSON, so that two runs can be compared.
SHOW = """
import json, pickle, sys
import __main__

class Thing:
    pass

def function():
    pass

def show():
    spec = __spec__ and [getattr(__spec__, name) for name in ("name", "origin", "parent", "cached")]
    loader = __loader__ if isinstance(__loader__, type) else type(__loader__)
    print(json.dumps({
        "argv": sys.argv,
        "path": sys.path,
        "names": sorted(name for name in globals()),
        "texts": [globals().get(f"__{name}__", "absent") for name in ("name", "doc", "file", "package", "cached")],
        "annotations": globals().get("__annotations__"),
        "spec": spec,
        "loader": [loader.__module__, loader.__name__],
        "loads": getattr(__loader__, "name", None) and [__loader__.name, getattr(__loader__, "path", None)],
        "builtins": repr(__builtins__),
        "main": sys.modules["__main__"].__dict__ is globals() and __main__.Thing is Thing,
        "code": show.__code__.co_filename,
        "pickles": [repr(pickle.loads(pickle.dumps(thing)) is thing) for thing in (Thing, function)],
        "module": Thing.__module__,
    }))

show()
"""

RUNNER = """
import sys
from klyng_mp.launch.program import ProgramOptions, load
kind, target, *args = sys.argv[1:]
load(ProgramOptions(kind, target, args)).execute()
"""

FAILING = """\
def inner(number):
    return 1 / number

def outer():
    try:
        inner(0)
    except ZeroDivisionError as error:
        raise ValueError("outer failed") from error

outer()
"""

REPORTER = """
import sys
from klyng_mp.launch.program import ProgramOptions, format_user_traceback, load
kind, target = sys.argv[1:]
try:
    load(ProgramOptions(kind, target)).execute()
except Exception as error:
    print(format_user_traceback(error), end="")
"""


@pytest.fixture
def folder(tmp_path):
    """Make programs of every shape."""
    (tmp_path / "app.py").write_text(f'"""An app."""\n{SHOW}')
    (tmp_path / "latin.py").write_bytes(
        f"# coding: latin-1\nname = '\xe4'\nassert len(name) == 1\n{SHOW}".encode("latin-1")
    )
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbf" + SHOW.encode())
    (tmp_path / "failing.py").write_text(FAILING)
    for name in ("package", "package/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import sys\nargv_at_import = list(sys.argv)\n")
        (tmp_path / name / "__main__.py").write_text(f"import package\nprint(package.argv_at_import)\n{SHOW}")
        (tmp_path / name / "module.py").write_text(f"from . import argv_at_import\n{SHOW}")
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "module.py").write_text(SHOW)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "__main__.py").write_text(SHOW)
    (tmp_path / "moving").mkdir()
    (tmp_path / "moving" / "__init__.py").write_text("import os\n__path__.append(os.path.abspath('elsewhere'))\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "found.py").write_text(SHOW)
    (tmp_path / "eager").mkdir()
    (tmp_path / "eager" / "__init__.py").write_text("from . import module\n")
    (tmp_path / "eager" / "module.py").write_text(SHOW)
    (tmp_path / "link.py").symlink_to("plain/__main__.py")
    (tmp_path / "linked").symlink_to("package")
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    py_compile.compile(str(tmp_path / "app.py"), str(tmp_path / "compiled.pyc"))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["app.py"],
        ["app.py", "--flag", "-n", "4", "--", "-m", "x", ""],
        ["./app.py"],
        ["package/../app.py"],
        ["{folder}/app.py", "1"],
        ["latin.py"],
        ["marked.py"],
        ["link.py"],
        ["linked/../app.py"],
        ["compiled.pyc", "1"],
        ["plain"],
        ["./plain/", "x"],
        ["app.zip", "x"],
        ["-m", "app", "1", "--", "2"],
        ["-m", "package", "1"],
        ["-m", "package.module"],
        ["-m", "package.inner"],
        ["-m", "package.inner.module"],
        ["-m", "spaces.module"],
        ["-m", "moving.found"],
        ["-m", "eager.module"],
        ["-c", SHOW, "1", "-x"],
        ["-c", "import sys; print(sys.argv, __name__)"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
@pytest.mark.parametrize("safe_path", ["", "1"], ids=["", "safe path"])
def test_a_program_sees_what_python_shows_it(folder, run_python, words, safe_path):
    words = [word.format(folder=folder) if word.startswith("{folder}") else word for word in words]
    expected = run_python(*words, env={"PYTHONSAFEPATH": safe_path}, cwd=folder)
    kind = KINDS.get(words[0], "script")
    rest = words[1:] if kind != "script" else words
    found = run_python("-c", RUNNER, kind, *rest, env={"PYTHONSAFEPATH": safe_path}, cwd=folder)
    assert expected.stdout or safe_path
    if safe_path and kind == "module" and not expected.stdout:
        assert "there is no module named" in found.stderr  # the folder is not searched
        return
    assert found.stdout.splitlines()[:-1] == expected.stdout.splitlines()[:-1]
    assert _comparable(found.stdout) == _comparable(expected.stdout)
    assert ("RuntimeWarning" in found.stderr) == ("RuntimeWarning" in expected.stderr)


def _comparable(output):
    try:
        return json.loads(output.splitlines()[-1])
    except ValueError:
        return output


@pytest.mark.parametrize("words", [["failing.py"], ["./failing.py"], ["-m", "failing"], ["-c", FAILING]], ids=str)
def test_a_traceback_is_what_python_prints(folder, run_python, words):
    expected = run_python(*words, cwd=folder).stderr
    found = run_python("-c", REPORTER, KINDS.get(words[0], "script"), words[-1], cwd=folder).stdout
    if words[0] == "-m":
        expected = _without_frames_of_runpy(expected)
    if words[0] == "-c":
        for line in FAILING.splitlines()[:-1]:
            if line.strip() in ("inner(0)", "return 1 / number", 'raise ValueError("outer failed") from error'):
                assert line.strip() in found
        found = "".join(line for line in found.splitlines(True) if not line.startswith("    "))
        expected = "".join(line for line in expected.splitlines(True) if not line.startswith("    "))
    assert found == expected


def _without_frames_of_runpy(text):
    lines = text.splitlines(True)
    return "".join(line for line in lines if "<frozen runpy>" not in line)


def test_lines_of_code_are_shown_only_for_that_code(run_python):
    code = (
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n"
        "    def __post_init__(self):\n        raise ValueError('no point')\nPoint(1)\n"
    )
    lines = run_python("-c", REPORTER, "code", code).stdout.splitlines()
    assert "    raise ValueError('no point')" in lines
    assert "    Point(1)" in lines
    made_by_dataclass = next(index for index, line in enumerate(lines) if line.endswith("in __init__"))
    assert lines[made_by_dataclass + 1].startswith("  File")


def test_a_traceback_keeps_the_frames_below_the_users_code(run_python):
    code = "from klyng_mp.deadline import Deadline\nDeadline('soon')"
    text = run_python("-c", REPORTER, "code", code).stdout
    assert text.count("deadline.py") == 1
    assert "program.py" not in text


def test_the_frames_of_whoever_called_execute_are_left_out(folder, run_python):
    text = run_python("-c", REPORTER, "script", "failing.py", cwd=folder).stdout
    assert 'File "<string>"' not in text


def test_a_traceback_of_our_own_frames_only_is_kept_whole():
    with pytest.raises(ProgramError) as caught:
        load(ProgramOptions("script", "-"))
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # leave out this test
    assert "program.py" in format_user_traceback(caught.value)


def test_an_error_without_traceback_is_formatted():
    assert format_user_traceback(ValueError("plain")) == "ValueError: plain\n"


def test_exit_and_its_code_pass_through(folder, run_python):
    assert run_python("-c", RUNNER, "code", "raise SystemExit(7)").returncode == 7


def test_nothing_of_the_program_runs_before_execute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("package", "package.module", "package.inner.module", "moving.found"):
        assert isinstance(load(ProgramOptions("module", name)), Program)
    assert not {"package", "moving"} & set(sys.modules)


def test_load_leaves_the_path_alone(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = sys.path[:]
    load(ProgramOptions("module", "app"))
    with pytest.raises(ProgramError):
        load(ProgramOptions("module", "nowhere"))
    assert sys.path == before


@pytest.mark.parametrize(
    ("kind", "target", "sentence"),
    [
        ("script", "ap.py", "the script 'ap.py' does not exist: did you mean app.py"),
        ("script", "package/modul.py", "did you mean package/module.py"),
        ("script", "zzz", "no name in '{folder}' is like it"),
        ("script", "nowhere/app.py", "neither does the folder 'nowhere'"),
        ("script", "spaces", "'spaces' is a folder without a __main__.py"),
        ("script", "empty.zip", "'empty.zip' is a zip file without a __main__.py"),
        ("script", "old.pyc", "cannot run 'old.pyc': bad magic number"),
        ("script", "-", "cannot be read from standard input"),
        ("module", "nowhere", "there is no module named 'nowhere', neither installed nor in '{folder}'"),
        ("module", "package.nowhere", "there is no module named 'package.nowhere'"),
        ("module", "spaces", "'spaces' is a package without a __main__"),
        ("module", "json", "'json' is a package without a __main__"),
        ("module", "app.py", "'app.py' is a file's name: use -m app"),
        ("module", "app.other", "'app' is a module, not a package"),
        ("module", "sys", "the module 'sys' cannot be run: it is not written in Python"),
        ("module", "some-thing", "is no module's name"),
        ("module", ".app", "is no module's name"),
    ],
)
def test_what_cannot_be_run_is_said_with_what_to_do(folder, monkeypatch, kind, target, sentence):
    monkeypatch.chdir(folder)
    with zipfile.ZipFile(folder / "empty.zip", "w") as archive:
        archive.writestr("other.py", "")
    (folder / "old.pyc").write_bytes(b"\0" * 16)
    with pytest.raises(ProgramError) as caught:
        load(ProgramOptions(kind, target))
    assert sentence.format(folder=folder) in str(caught.value)
    assert isinstance(caught.value, LaunchError)


def test_a_script_that_may_not_be_read(folder, monkeypatch):
    monkeypatch.chdir(folder)

    def refuse(loader, path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("importlib.machinery.SourceFileLoader.get_data", refuse)
    with pytest.raises(ProgramError, match=r"cannot read 'app\.py': Permission denied"):
        load(ProgramOptions("script", "app.py"))


@pytest.mark.parametrize("kind", ["script", "module", "code"])
def test_a_syntax_error_says_where(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    source = "x = 1\ny = = 2\n"
    (tmp_path / "wrong.py").write_text(source)
    target = {"script": "wrong.py", "module": "wrong", "code": source}[kind]
    with pytest.raises(SyntaxError) as caught:
        load(ProgramOptions(kind, target))
    assert caught.value.lineno == 2
    assert caught.value.filename == ("<string>" if kind == "code" else str(tmp_path / "wrong.py"))


def test_null_bytes_are_a_syntax_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.py").write_bytes(b"x = 1\0")
    with pytest.raises(SyntaxError, match="null bytes"):
        load(ProgramOptions("script", "binary.py"))


def test_it_is_compiled_once(folder, monkeypatch, run_python):
    code = RUNNER.replace(
        "load(ProgramOptions(kind, target, args)).execute()",
        "program = load(ProgramOptions(kind, target, args))\nopen('app.py', 'w').write('= ='); program.execute()",
    )
    assert run_python("-c", code, "script", "app.py", cwd=folder).returncode == 0


def test_spawned_children_of_a_program_find_its_main(tmp_path, run_python):
    (tmp_path / "spawns.py").write_text(
        "import multiprocessing\n"
        "def work(queue):\n    queue.put('worked')\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    queue = context.SimpleQueue()\n"
        "    child = context.Process(target=work, args=(queue,))\n"
        "    child.start(); print(queue.get()); child.join()\n"
    )
    for kind, target in (("script", "spawns.py"), ("module", "spawns")):
        assert run_python("-c", RUNNER, kind, target).stdout == "worked\n"


def test_options_hold_what_they_are_given():
    options = ProgramOptions("code", "pass", ("a",), size=3, label=True, timeout=1.5, seed=7)
    assert (options.kind, options.target, options.args) == ("code", "pass", ["a"])
    assert (options.size, options.label, options.timeout, options.seed) == (3, True, 1.5, 7)
    assert not hasattr(options, "__dict__")


def test_loading_imports_nothing_heavy(folder, run_python):
    code = (
        "import sys, klyng_mp; before = set(sys.modules)\n"
        "from klyng_mp.launch.program import ProgramOptions, load\n"
        "load(ProgramOptions('script', 'app.py')); load(ProgramOptions('module', 'package.module'))\n"
        "heavy = {'dill', 'inspect', 'dataclasses', 'subprocess', 'runpy', 'traceback', 'difflib', 'argparse'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    assert run_python("-c", code, cwd=folder).stdout == "[]\n"
