"""Things of ``__main__`` over driver -> rank -> rank -> driver: each program beside this file, in real processes."""

from __future__ import annotations

from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "byvalue"


@pytest.mark.parametrize("name", sorted(path.stem for path in PROGRAMS.glob("*.py") if path.stem != "ring"))
def test_program(name, run_python):
    path = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{PROGRAMS}"}
    done = run_python("-W", "error", PROGRAMS / f"{name}.py", env=path)
    assert done.returncode == 0, done.stderr
