"""remote.program: a program runs in a rank as its ``__main__``, and its end is told."""

from __future__ import annotations

import pickle

import pytest

from klyng_mp.remote.program import ProgramExit

CALL = """\
import sys
from klyng_mp.remote.program import execute_program
sys.argv[0] = {script!r}
execute_program({kind!r}, {target!r}, ["a", "-b"])
"""


@pytest.mark.parametrize(
    ("kind", "target", "shown"),
    [("script", "app.py", "app.py"), ("code", "import sys; print(__name__, sys.argv)", "-c"), ("module", "app", None)],
)
def test_it_is_main_and_has_its_words(run_python, tmp_path, kind, target, shown):
    script = tmp_path / "app.py"
    script.write_text("import sys; print(__name__, sys.argv)\n")
    done = run_python("-c", CALL.format(script=str(script), kind=kind, target=target))
    assert done.stderr == ""
    assert done.stdout == f"__main__ {[str(script) if shown is None else shown, 'a', '-b']}\n"


@pytest.mark.parametrize(("code", "told"), [("0", ""), ("None", ""), ("3", "3"), ("259", "3"), ("'gone wrong'", "1")])
def test_how_it_ends(run_python, code, told):
    program = CALL.format(script="", kind="code", target=f"import sys; sys.exit({code})")
    words = "try:\n" + "".join(f"    {line}\n" for line in program.splitlines())
    done = run_python("-c", words + "except BaseException as error:\n    print(type(error).__name__, error.code)\n")
    assert done.stdout == (f"ProgramExit {told}\n" if told else "")
    assert ("gone wrong" in done.stderr) == (told == "1")


def test_its_code_travels():
    again = pickle.loads(pickle.dumps(ProgramExit(7)))
    assert (type(again), again.code) == (ProgramExit, 7)
