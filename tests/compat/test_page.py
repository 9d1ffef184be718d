"""The programs of docs/multiprocessing.md print what stands beside them."""

from __future__ import annotations

import re

import pytest
from compat import suite

PAGE = (suite.REPOSITORY / "docs" / "multiprocessing.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_page(number, tmp_path, run_python):
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[number])
    done = run_python(program)
    assert done.stdout.splitlines() == PRINTS.findall(PROGRAMS[number]), done.stderr
    assert done.stderr == ""
