"""The manual pages, made from the parsers; used when klyng_mp is built, never when it runs.

Layer: cli; needs argparse_manpage, which only a build has.
"""

from __future__ import annotations

from pathlib import Path

from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]

from klyng_mp.cli.pages import manual

__all__ = ["write_pages"]


def write_pages(folder: Path, version: str) -> list[str]:
    """Write one page for each parser into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for name, (summary, parser) in manual().items():
        epilog, parser.epilog = parser.epilog or "", None
        page = Manpage(parser)
        page.prog, page.description = name, summary
        page.source, page.manual = f"klyng_mp {version}", "klyng_mp"
        for block in epilog.split("\n\n"):
            heading, _, text = block.replace("\\", r"\e").replace("-", r"\-").partition(":\n")
            page.add_section(heading, "=", f".nf\n{text}\n.fi")
        pages.append(str(folder / f"{name}.1"))
        Path(pages[-1]).write_text(str(page), encoding="utf-8")
    return pages
