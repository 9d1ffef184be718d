"""The interpreter's own tests of multiprocessing, as a copy whose text says another name.

Nothing of CPython is in this repository: the copy is made from the interpreter that runs, when it is wanted.

The mapping. In `_test_multiprocessing.py`, `test_multiprocessing_main_handling.py` and the programs that they start
(`mp_*.py`), each whole word `multiprocessing` becomes `klyng_mp`: in imports, in attributes, in the text of programs
for subprocesses, in the names of modules in strings. A word ends where no letter, digit or underscore follows, so
these stay as they are: `_multiprocessing` (the C module), and `test_multiprocessing_fork`, `_test_multiprocessing`
(modules of tests). What is a sentence for people, and no name, stays too; `SENTENCES` has all of these.

The copy is a package `test` that finds what it does not have (`test.support`, ...) in the interpreter's own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STANDARD, OURS = "multiprocessing", "klyng_mp"
METHODS = ("fork", "spawn", "forkserver")
HOW_TO_GET_IT = "this interpreter has no test package (Debian: apt install libpython3-testsuite)"

CASES = "_test_multiprocessing"  # installed once per start method, as test_multiprocessing_<method>
MAIN_HANDLING = "test_multiprocessing_main_handling"  # a class for each start method
MAIN_CLASSES = {"fork": "ForkCmdLineTest", "spawn": "SpawnCmdLineTest", "forkserver": "ForkServerCmdLineTest"}
PROGRAMS = "mp_*.py"

WORD = re.compile(r"\bmultiprocessing\b")
SENTENCES = ("unclosed running multiprocessing pool",)

INIT = """\
__path__.append({home!r})
import construction_audit
construction_audit.install()
"""
BY_METHOD = """\
from test._test_multiprocessing import install_tests_in_module_dict
install_tests_in_module_dict(globals(), {method!r})
"""


def find_suite() -> Path | None:
    """Return the folder of the interpreter's test package, if it has the tests of multiprocessing."""
    spec = importlib.util.find_spec("test")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        if all((Path(folder) / f"{name}.py").is_file() for name in (CASES, MAIN_HANDLING)):
            return Path(folder)
    return None


def rename(text: str, package: str, standard: list[str] | None = None) -> str:
    """Return the text with the whole word `multiprocessing` replaced, but in the sentences that stay.

    So do the modules in `standard`, for who develops the others.
    """
    patterns = [re.escape(sentence) for sentence in SENTENCES]
    if standard:
        names = "|".join(standard)
        patterns += [rf"multiprocessing\.(?:{names})\b", rf"from multiprocessing import (?:{names})\b"]
    stay = re.compile("|".join(patterns))
    pieces, end = [], 0
    for sentence in stay.finditer(text):
        pieces += [WORD.sub(package, text[end : sentence.start()]), sentence.group()]
        end = sentence.end()
    return "".join([*pieces, WORD.sub(package, text[end:])])


def make_copy(folder: Path, package: str, standard: list[str] | None = None) -> Path:
    """Make the copy for a package in a new folder, and return that; `package` may be the standard one."""
    home = find_suite()
    if home is None:
        raise FileNotFoundError(HOW_TO_GET_IT)
    tests = folder / "test"
    tests.mkdir(parents=True)
    for source in [home / f"{CASES}.py", home / f"{MAIN_HANDLING}.py", *sorted(home.glob(PROGRAMS))]:
        (tests / source.name).write_text(rename(source.read_text("utf-8"), package, standard), "utf-8")
    (tests / "__init__.py").write_text(INIT.format(home=str(home)))
    for method in METHODS:
        (tests / f"test_multiprocessing_{method}.py").write_text(BY_METHOD.format(method=method))
    shutil.copy(Path(__file__).with_name("construction_audit.py"), folder)
    os.symlink(REPOSITORY / OURS, folder / OURS)  # for interpreters that are started without site-packages
    return folder


def make_place(copy: Path, name: str) -> Path:
    """Make a current directory that has what programs import that ignore PYTHONPATH, and return it."""
    place = copy / name
    place.mkdir()
    for entry in ("test", "construction_audit.py", OURS):
        os.symlink(copy / entry, place / entry)
    return place
