"""What docs/green.md shows runs as it stands."""

from __future__ import annotations

import re

from programs import ROOT

PAGE = (ROOT / "docs" / "green.md").read_text(encoding="utf-8")


def test_its_programs_run(run_python, tmp_path):
    programs = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    path = tmp_path / "page.py"
    path.write_text("\n".join(programs))
    done = run_python(path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
