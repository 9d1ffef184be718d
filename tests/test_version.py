"""version: the facade and the project say the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import klyng_mp
from klyng_mp.version import __version__


def test_there_is_one_version():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__ == klyng_mp.__version__
