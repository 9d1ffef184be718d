"""The way from a program to all modules that it imports, through those that are its own.

Layer: remote; imports imports, modules.

Each module is looked at once, at its surest: what is imported in any case is followed before what is imported under a
condition, and that before what a program can do without.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from klyng_mp.remote.imports import CERTAIN, GUARDED, POSSIBLE, find_imports
from klyng_mp.remote.modules import INSTALLED, NAMESPACE, OWN, Found, ModuleFinder, distribution_of, owner_of_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["Missing", "Package", "Walk", "files_below"]

# With these words a program may see to it that modules are found where nobody can see them before it runs.
_OTHER_WAYS = ("sys.path", "sys.modules", "meta_path", "addsitedir")


class Package(NamedTuple):
    """An installed package that the program imports, and that each host therefore has to have.

    Attributes:
        module: the name that is imported.
        distribution: the name under which it is installed; ``""`` where nothing says so.
        version: of the distribution, or ``""``.
        optional: the program can do without; but a host that has it has to have the same version.
        why: who imports it.
    """

    module: str
    distribution: str
    version: str
    optional: bool
    why: str


class Missing(NamedTuple):
    """A module that is imported and was not found; ``fatal`` where the program cannot even begin without it."""

    module: str
    fatal: bool
    why: str


class Walk:
    """Follows imports; `finish` does the work.

    Args:
        finder: finds modules.
        main: the module that is run as the program.

    Attributes:
        files: why each file travels, by its path.
        roots: entries of ``sys.path`` that lead to them.
        packages, missing: by the modules' names.
        stays: files within the program's packages that are no code.
    """

    def __init__(self, finder: ModuleFinder, main: str = "__main__") -> None:
        self.files: dict[str, str] = {}
        self.roots: list[str] = []
        self.packages: dict[str, Package] = {}
        self.missing: dict[str, Missing] = {}
        self.stays: set[str] = set()
        self._finder = finder
        self._mains = ("__main__", main, f"{main}.__main__")
        self._finds_itself = False
        self._whole: set[str] = set()
        self._whole_files: dict[str, str] = {}
        self._waiting: dict[int, list[tuple[str, str, bool]]] = {CERTAIN: [], POSSIBLE: [], GUARDED: []}
        self._seen: dict[str, bool] = {}

    def want(self, name: str, certainty: int, why: str, *, perhaps: bool = False) -> None:
        """Have a module looked for, and the packages that it is in; ``perhaps`` it is something in a module."""
        self._waiting[certainty].append((name, why, perhaps))

    def finish(self) -> None:
        """Look for all that is wanted, and for what that wants."""
        while any(self._waiting.values()):
            certainty = max(how for how, names in self._waiting.items() if names)
            name, why, perhaps = self._waiting[certainty].pop(0)
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                part = ".".join(parts[:count])
                if part not in self._seen:
                    self._seen[part] = self._visit(part, certainty, why, perhaps=perhaps and count == len(parts))
                if not self._seen[part]:
                    break
        if self._finds_itself:
            self.missing = {name: one._replace(fatal=False) for name, one in self.missing.items()}
        for path, why in self._whole_files.items():  # those that are imported themselves say by whom
            self.files.setdefault(path, why)

    def follow(self, source: bytes | str, shown: str, name: str, certainty: int, package: str = "") -> None:
        """Want what the text of a module imports; see `find_imports`."""
        try:
            imports = find_imports(source, package, is_main=name in self._mains)
        except (SyntaxError, ValueError):
            return  # an import of it fails here as there, and says why
        text = source if isinstance(source, str) else source.decode("latin-1")
        self._finds_itself |= any(words in text for words in _OTHER_WAYS)
        for one in imports:
            how, why = min(one.certainty, certainty), f"imported by {shown}, line {one.line}"
            self.want(one.name, how, why)
            for attribute in one.attributes:
                self.want(f"{one.name}.{attribute}", how, why, perhaps=True)

    def add_script(self, path: str) -> None:
        """Take a script, and want what it imports."""
        self.add(path, os.path.dirname(path), "the program")
        if path.endswith(".pyc"):
            self._miss_source(os.path.basename(path))
            return
        with open(path, "rb") as file:
            self.follow(file.read(), os.path.basename(path), "__main__", CERTAIN)

    def follow_running(self, main: ModuleType) -> None:
        """Want what the ``__main__`` of this process imports; of a session, the modules of what it has."""
        path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
        if path is None:
            for value in list(vars(main).values()):
                name = value.__name__ if isinstance(value, type(sys)) else getattr(value, "__module__", None)
                if isinstance(name, str) and name != "__main__" and name in sys.modules:
                    self.want(name, POSSIBLE, "used in __main__")
        elif path.endswith(".py") and os.path.isfile(path) and owner_of_script(path) == OWN:
            package = "" if spec is None else spec.parent or ""
            with open(path, "rb") as file:
                self.follow(file.read(), os.path.basename(path), "__main__", POSSIBLE, package)

    def add(self, path: str, root: str, why: str) -> None:
        """Take a file that is found from an entry of ``sys.path``."""
        self.files.setdefault(path, why)
        if root not in self.roots:
            self.roots.append(root)

    def _visit(self, name: str, certainty: int, why: str, *, perhaps: bool) -> bool:
        """Return whether modules in it are to be looked for."""
        if name == "klyng_mp":
            return False  # it is there before the bundle, and its version is compared
        found = self._finder.find(name)
        if found is None:
            above = self._finder.find(name.rpartition(".")[0]) if "." in name else None
            has_only_modules = above is None or above.owner == NAMESPACE
            if has_only_modules or not perhaps:
                self._miss(name, why, fatal=certainty == CERTAIN and has_only_modules)  # others may make it themselves
            return False
        if found.owner == INSTALLED:
            distribution, version = distribution_of(name, found.path)
            self.packages[name] = Package(name, distribution, version, certainty == GUARDED, why)
        elif found.owner == OWN:
            self._take(found, certainty, why)
        return found.is_package and found.owner in (OWN, NAMESPACE)

    def _miss(self, name: str, why: str, *, fatal: bool) -> None:
        if fatal or name.partition(".")[0] not in sys.stdlib_module_names:  # which Python has on other systems
            self.missing[name] = Missing(name, fatal, why)

    def _take(self, found: Found, certainty: int, why: str) -> None:
        self.add(found.path, found.root, why)
        if found.is_package and not found.is_archived:
            self._take_whole(os.path.dirname(found.path), f"of package {found.name}, {why}")
        source = found.read()
        if source is not None:
            package = found.name if found.is_package else found.name.rpartition(".")[0]
            self.follow(source, found.shown, found.name, certainty, package)
        elif found.path.endswith(".pyc"):
            self._miss_source(found.shown)

    def _take_whole(self, folder: str, why: str) -> None:
        if any(os.path.join(folder, "").startswith(whole) for whole in self._whole):
            return
        self._whole.add(os.path.join(folder, ""))
        for path in files_below(folder):
            if path.endswith((".py", ".so")) or ".so." in os.path.basename(path):
                self._whole_files.setdefault(path, why)
            elif not path.endswith(".pyc"):
                self.stays.add(path)

    def _miss_source(self, shown: str) -> None:
        self.missing[shown] = Missing(shown, False, "without its source, what it imports is not known: list that")


def files_below(folder: str) -> Iterator[str]:
    """Yield all files in a folder, and those below it, in order; not what is hidden, or of a virtual environment."""
    seen = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop(0)
        if os.path.realpath(here) in seen or os.path.exists(os.path.join(here, "pyvenv.cfg")):
            continue
        seen.add(os.path.realpath(here))  # links may lead in circles
        for name in sorted(os.listdir(here)):
            path = os.path.join(here, name)
            if name.startswith(".") or name == "__pycache__":
                continue
            if os.path.isdir(path):
                waiting.append(path)
            elif os.path.isfile(path):
                yield path
