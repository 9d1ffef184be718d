"""Builds the manual pages from the parsers of the command line; all else is in pyproject.toml."""

import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build

HERE = Path(__file__).resolve().parent


class BuildManual(Command):
    """Write one page for each parser, and have them installed where ``man`` looks."""

    description = "build the manual pages"
    user_options: ClassVar[list] = []
    editable_mode = False  # set by setuptools

    def initialize_options(self):  # noqa: D102
        self.folder = None

    def finalize_options(self):  # noqa: D102
        self.folder = Path(self.get_finalized_command("build").build_base) / "man"

    def get_source_files(self):  # noqa: D102
        return []

    def get_outputs(self):  # noqa: D102
        return []

    def run(self):
        """Write the pages."""
        sys.path.insert(0, str(HERE))  # an isolated build does not have the project itself on its path
        from argparse_manpage.manpage import Manpage  # noqa: PLC0415 (there when building, not when making an sdist)

        from klyng_mp.cli.parser import manual  # noqa: PLC0415 (only now can it be found)

        self.folder.mkdir(parents=True, exist_ok=True)
        pages = []
        for name, (summary, parser) in manual().items():
            epilog, parser.epilog = parser.epilog, None
            page = Manpage(parser)
            page.prog, page.description = name, summary
            page.source, page.manual = f"klyng_mp {self.distribution.get_version()}", "klyng_mp"
            for block in epilog.split("\n\n"):
                heading, _, text = block.replace("\\", r"\e").replace("-", r"\-").partition(":\n")
                page.add_section(heading, "=", f".nf\n{text}\n.fi")
            pages.append(str(self.folder / f"{name}.1"))
            Path(pages[-1]).write_text(str(page), encoding="utf-8")
        self.distribution.data_files = [*(self.distribution.data_files or []), ("share/man/man1", pages)]


class Build(build):
    """The usual steps, and the manual."""

    sub_commands: ClassVar[list] = [*build.sub_commands, ("build_manual", None)]


setup(cmdclass={"build": Build, "build_manual": BuildManual})
