"""Builds the manual pages from the parsers of the command line, and the C core; all else is in pyproject.toml.

KLYNG_MP_NATIVE=0 leaves the core out, =1 fails where it cannot be built. KLYNG_MP_SANITIZE=address,undefined builds
it for the sanitizers.
"""

import os
import sys
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build

HERE = Path(__file__).resolve().parent
NATIVE, SANITIZE = os.environ.get("KLYNG_MP_NATIVE"), os.environ.get("KLYNG_MP_SANITIZE")
WARNINGS = ["-Wall", "-Wextra", "-Wno-cast-function-type", "-Wno-missing-field-initializers"]
SANITIZERS = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-O1", "-g"] if SANITIZE else []


class BuildManual(Command):
    """Write one page for each parser, and have them installed where ``man`` looks."""

    description = "build the manual pages"
    user_options: ClassVar[list] = []
    editable_mode = False  # set by setuptools

    def initialize_options(self):  # noqa: D102
        self.folder = None

    def finalize_options(self):  # noqa: D102
        self.folder = Path(self.get_finalized_command("build").build_base) / "man"

    get_source_files = get_outputs = lambda _self: []

    def run(self):  # noqa: D102
        sys.path.insert(0, str(HERE))  # an isolated build does not have the project itself on its path
        os.environ["KLYNG_MP_NATIVE"] = "0"  # the core is not where it will be
        from klyng_mp.cli.manual import write_pages  # noqa: PLC0415 (only now can it be found)

        pages = write_pages(self.folder, self.distribution.get_version())
        self.distribution.data_files = [*(self.distribution.data_files or []), ("share/man/man1", pages)]


class Build(build):
    """The usual steps, and the manual."""

    sub_commands: ClassVar[list] = [*build.sub_commands, ("build_manual", None)]


core = Extension(
    "klyng_mp._core",
    sources=sorted(str(path.relative_to(HERE)) for path in HERE.glob("klyng_mp/_core/*.c")),
    depends=sorted(str(path.relative_to(HERE)) for path in HERE.glob("klyng_mp/_core/*.h")),
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden", *WARNINGS, *SANITIZERS],
    extra_link_args=SANITIZERS,
    optional=NATIVE != "1",  # it is done without where there is no compiler
)
setup(cmdclass={"build": Build, "build_manual": BuildManual}, ext_modules=[] if NATIVE == "0" else [core])
