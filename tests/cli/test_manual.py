"""cli.manual: the pages that are built."""

from __future__ import annotations

import pytest

pytest.importorskip("argparse_manpage", reason="argparse_manpage is needed only where klyng_mp is built")

from klyng_mp.cli.manual import write_pages
from klyng_mp.cli.pages import manual


def test_there_is_a_page_for_each_parser(tmp_path):
    pages = write_pages(tmp_path / "man", "1.2.3")
    assert sorted(pages) == sorted(str(tmp_path / "man" / f"{name}.1") for name in manual())
    for page in pages:
        text = (tmp_path / "man" / page).read_text(encoding="utf-8")
        assert text.startswith(".TH")
        assert "klyng_mp 1.2.3" in text
        assert ".SH OPTIONS" in text
