"""launch.heatmap: a picture, where matplotlib is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from klyng_mp.launch import heatmap
from klyng_mp.launch.statistics import RankStatistics, unknown


def some(rank, size):
    counts = {peer: rank * 10 for peer in range(size) if peer != rank}
    return RankStatistics(rank, 1.0, 2.0, {-1: 1.0, 0: 1.0}, 2, counts, counts, 0)


@pytest.mark.may_leave("fds", why="matplotlib keeps the fonts open that it has read")
@pytest.mark.parametrize("size", [1, 2, 20])
def test_a_picture_is_written(tmp_path, size):
    pytest.importorskip("matplotlib")
    heatmap.save_heat_map([some(rank, size) for rank in range(size)], str(tmp_path / "map.png"))
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.may_leave("fds", why="matplotlib keeps the fonts open that it has read")
def test_a_picture_of_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    heatmap.save_heat_map([unknown(0), unknown(1)], str(tmp_path / "map.png"))
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert not heatmap.can_draw()
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'klyng_mp\[plot\]'"):
        heatmap.save_heat_map([unknown(0)], str(tmp_path / "map.png"))


def test_to_ask_imports_nothing():
    code = "import sys; from klyng_mp.launch.heatmap import can_draw; can_draw(); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
