"""Coverage sees what ranks execute, in a World and from the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import programs
import pytest

CONFIG = "[run]\nparallel = true\nsource = .\npatch = subprocess, fork\n[json]\noutput = coverage.json\n"
WORK = """
import klyng_mp as mp

def work():
    if mp.rank() == 1:
        here = "only rank 1"
    else:
        here = "all others"
    return here
"""


@pytest.mark.parametrize("way", ["World", "shell"])
def test_coverage_sees_all_ranks(tmp_path, way):
    (tmp_path / ".coveragerc").write_text(CONFIG)
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "driver.py").write_text("import klyng_mp as mp, work\nwith mp.World(2) as w:\n    w.run(work.work)\n")
    (tmp_path / "app.py").write_text("import work\nwork.work()\n")
    started = ["driver.py"] if way == "World" else ["-m", "klyng_mp", "run", "-n", "2", "app.py"]
    for words in (["run", *started], ["combine", "-q"], ["json", "-q"]):
        subprocess.run(
            [sys.executable, "-m", "coverage", *words],
            cwd=tmp_path,
            env={**os.environ, **programs.environment()},
            check=True,
            capture_output=True,
            timeout=60 * programs.FACTOR,
        )
    report = json.loads((tmp_path / "coverage.json").read_text())
    assert report["files"]["work.py"]["missing_lines"] == []
