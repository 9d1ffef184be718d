"""Which files a program consists of: its own modules, found without running any of it, and files that the user lists.

Layer: remote; imports errors, imports, modules, walk.

The program's own modules are those that it imports and that are not installed. A package of its own travels whole, with
all its Python files and extension modules, since a program may import by names that it computes; of a namespace package
travels what is imported, since any folder can be one. Data files travel only if they are listed. What is imported is
followed through the program's own modules only: what an installed package imports is a matter of its version.

Folders that lie within one another, the working directory among them, do so in the bundle as well: what a program opens
beside itself or below its working directory is found there. Folders that do not are told apart by numbers.
"""

from __future__ import annotations

import glob
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.errors import BundleError
from klyng_mp.remote.imports import CERTAIN, POSSIBLE
from klyng_mp.remote.modules import OWN, ModuleFinder
from klyng_mp.remote.walk import Missing, Package, Walk, files_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

__all__ = ["Entry", "Sources", "find_loaded_sources", "find_program_sources"]


class Entry(NamedTuple):
    """A file that travels: where it is here, its place in the bundle, and why it travels."""

    path: str
    place: str
    why: str


class Sources(NamedTuple):
    """What a program consists of. Places are relative, with ``/``.

    Attributes:
        entries: files that travel, in the order of their places.
        path: folders and zip files that belong to the beginning of ``sys.path``, in this order.
        cwd: the working directory's place.
        main: the place of the script, of the folder or zip file that is run as one, or ``""``.
        packages: what hosts have to have, by name.
        missing: modules that were not found, by name.
        stays: paths of the data files within packages that travel, which nobody has listed.
    """

    entries: tuple[Entry, ...]
    path: tuple[str, ...]
    cwd: str
    main: str
    packages: tuple[Package, ...]
    missing: tuple[Missing, ...]
    stays: tuple[str, ...]

    @property
    def is_native(self) -> bool:
        """Whether there are extension modules, which only machines of the same kind can use."""
        return any(".so" in os.path.basename(entry.path) for entry in self.entries)

    def check(self) -> None:
        """Refuse a program that cannot begin on any machine.

        A module that was not found is an error only where a program that has not run yet imports it in any case:
        nothing catches an ImportError there, no condition or function is around it, and the program does not change
        ``sys.path`` or the like. Any other import may never be made, or succeed, and fails there as it would here.

        Raises:
            BundleError: names the modules, and who imports them.
        """
        fatal = ", ".join(f"{one.module!r} ({one.why})" for one in self.missing if one.fatal)
        if fatal:
            raise BundleError(
                f"the program needs what is neither installed here nor its own: {fatal}; install it here and on each "
                "host, or put its folder on PYTHONPATH, so that it travels"
            )


def find_program_sources(kind: str, target: str, files: Iterable[str] = ()) -> Sources:
    """Return what a program that has not run yet consists of; nothing of it is executed.

    Args:
        kind: ``"script"``, ``"module"`` or ``"code"``, as for `klyng_mp.launch.program.load`, which has found it.
        target: the script's path, the module's name, or the code.
        files: patterns of further files, as for a shell, from the working directory; ``**`` stands for any folders,
            and a folder for all files in it that are not hidden.

    Raises:
        BundleError: a pattern means no file, or one outside of the working directory and the program's folders.
    """
    script = os.path.realpath(target) if kind == "script" else ""
    contains = bool(script) and _contains_modules(script)
    path0 = script if contains else os.path.dirname(script) if script else os.getcwd()
    search = sys.path[0 if sys.flags.safe_path else 1 :]  # as the program will see it
    if contains or not sys.flags.safe_path:
        search.insert(0, path0)
    finder = ModuleFinder(search)
    walk = Walk(finder, target if kind == "module" else "__main__")
    if finder.path[:1] == [path0]:
        walk.roots.append(path0)
    if kind == "module":
        walk.want(target, CERTAIN, "the program")
        walk.want(f"{target}.__main__", CERTAIN, "the program", perhaps=True)
    elif kind == "code":
        walk.follow(target, "-c", "__main__", CERTAIN)
    elif contains:
        walk.want("__main__", CERTAIN, "the program")
    else:
        walk.add_script(script)
    walk.finish()
    return _arrange(walk, finder.path, script, files)


def find_loaded_sources(files: Iterable[str] = (), modules: Mapping[str, ModuleType] | None = None) -> Sources:
    """Return what the program of this process consists of: its own modules that are loaded, and what these import.

    Its ``__main__`` stays, since functions of it travel by value; but what it imports does not.

    Args:
        files: as for `find_program_sources`.
        modules: by name; ``sys.modules`` if None.

    Raises:
        BundleError: as by `find_program_sources`.
    """
    loaded = dict(sys.modules if modules is None else modules)
    main = loaded.pop("__main__", None)
    finder = ModuleFinder(sys.path, loaded)
    walk = Walk(finder)
    if main is not None:
        walk.follow_running(main)
    walk.finish()
    for name in sorted(loaded):
        found = finder.find(name) if finder.spec_of(name) is not None else None
        if found is not None and found.owner == OWN:
            walk.want(name, POSSIBLE, "imported by the running program")
    walk.finish()
    return _arrange(walk, finder.path, "", files)


def _contains_modules(script: str) -> bool:
    """Tell whether a script is a folder or zip file, with modules of its own in it."""
    if os.path.isdir(script):
        return True
    from zipimport import ZipImportError, zipimporter  # noqa: PLC0415 (loaded by Python itself; the name is not)

    try:
        zipimporter(script)
    except ZipImportError:
        return False
    return True


def _arrange(walk: Walk, search: list[str], script: str, files: Iterable[str]) -> Sources:
    cwd = os.getcwd()
    order = [entry for entry in search if entry in walk.roots]
    roots = [*dict.fromkeys(order), *(root for root in walk.roots if root not in order)]
    layout = _Layout(roots, cwd)
    why = dict(walk.files)
    for pattern in files:
        for path in _expand(pattern, cwd):
            if layout.place(path) is None:
                raise BundleError(
                    f"{path} (listed as {pattern!r}) is neither below the working directory {cwd} nor in the program's "
                    "own folders, so it has no place on another machine: copy it there, or start from above it"
                )
            why.setdefault(path, f"listed as {pattern!r}")
    return Sources(
        tuple(sorted((Entry(path, layout.place(path) or "", reason) for path, reason in why.items()), key=_by_place)),
        tuple(layout.place(root) or "" for root in roots),
        layout.place(cwd) or "",
        layout.place(script) or "" if script else "",
        tuple(package for _, package in sorted(walk.packages.items())),
        tuple(missing for _, missing in sorted(walk.missing.items())),
        tuple(sorted(walk.stays - set(why))),
    )


def _by_place(entry: Entry) -> str:
    return entry.place


def _expand(pattern: str, cwd: str) -> list[str]:
    found: list[str] = []
    for match in sorted(glob.glob(os.path.join(glob.escape(cwd), pattern), recursive=True)):
        path = os.path.abspath(match)
        found += files_below(path) if os.path.isdir(path) else [path] if os.path.isfile(path) else []
    if not found:
        raise BundleError(f"no file is meant by {pattern!r} in {cwd}: correct it, or leave it out")
    return found


class _Layout:
    """Which place each path has: the outermost folders get numbers, all else is within."""

    def __init__(self, roots: list[str], cwd: str) -> None:
        folders = [*map(_folder_of, roots), cwd]
        outermost = [one for one in folders if not any(_is_within(one, other) for other in folders if other != one)]
        self._tops = list(dict.fromkeys(outermost))

    def place(self, path: str) -> str | None:
        """Return the place of a path, or None if it is outside of all folders."""
        for number, top in enumerate(self._tops):
            if path == top:
                return str(number)
            if _is_within(path, top):
                return f"{number}/{os.path.relpath(path, top)}"
        return None


def _folder_of(root: str) -> str:
    while not os.path.isdir(root):  # a zip file, or a folder in one
        root = os.path.dirname(root)
    return root


def _is_within(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))
