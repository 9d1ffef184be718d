"""Where a module is, whose it is, and what is installed under which name; nothing of it is imported.

Layer: remote; imports launch (what counts as installed).

What an editable installation leads to counts as the program's own: such a folder is somebody's working copy, which
changes while its version does not, so that equal versions would prove nothing.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.launch.appmodules import installed_folders

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["INSTALLED", "NAMESPACE", "OWN", "STANDARD", "Found", "ModuleFinder", "distribution_of", "owner_of_script"]

# Whose a module is.
OWN = "own"
INSTALLED = "installed"
STANDARD = "standard"
NAMESPACE = "namespace"  # a package without a file: whatever is found in it

_SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Found(NamedTuple):
    """A module that was found.

    Attributes:
        name: as it is imported.
        owner: OWN, INSTALLED, STANDARD or NAMESPACE.
        path: its file, or the zip file that it is in; ``""`` where it has none.
        root: the entry of ``sys.path`` that leads to it, a folder or zip file.
        places: of a package: where its modules are looked for.
        loader: loads it.
    """

    name: str
    owner: str
    path: str
    root: str
    places: tuple[str, ...] | None = None
    loader: Any = None

    @property
    def is_package(self) -> bool:
        """Whether there may be modules in it."""
        return self.places is not None

    @property
    def is_archived(self) -> bool:
        """Whether it is in a zip file."""
        return bool(self.path) and not self.path.endswith((".py", ".pyc", ".so"))

    @property
    def shown(self) -> str:
        """Its file as a user knows it."""
        return self.name if self.is_archived else os.path.relpath(self.path, self.root)

    def read(self) -> bytes | str | None:
        """Return its text; None where it has none.

        Raises:
            OSError: it cannot be read.
        """
        if self.path.endswith(".py"):
            with open(self.path, "rb") as file:
                return file.read()
        get_source = getattr(self.loader, "get_source", None)
        return get_source(self.name) if get_source is not None and self.is_archived else None


class ModuleFinder:
    """Finds modules as an import does, among those that are loaded and on a search path.

    Args:
        path: takes the place of ``sys.path``.
        modules: that are loaded, by name.
    """

    def __init__(self, path: Sequence[str], modules: Mapping[str, ModuleType] | None = None) -> None:
        self.path = [os.path.abspath(entry) for entry in path]
        self._modules = modules or {}
        self._known: dict[str, Found | None] = {}

    def find(self, name: str) -> Found | None:
        """Return where a module is, or None."""
        if name not in self._known:
            self._known[name] = self._look_for(name)
        return self._known[name]

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return how a module was loaded; None if it was not, or was made by hand."""
        module = self._modules.get(name)
        if not issubclass(type(module), ModuleType):
            return None  # anything may stand in sys.modules, also what says that it is one, as cffi's libraries do
        # A lazy one is not loaded by being looked at like this.
        spec = object.__getattribute__(module, "__dict__").get("__spec__")
        return spec if isinstance(spec, ModuleSpec) else None

    def _look_for(self, name: str) -> Found | None:
        loaded = self.spec_of(name)
        if loaded is not None:
            return _describe(name, loaded)
        package = name.rpartition(".")[0]
        places: Sequence[str] | None = self.path
        if package:
            above = self.find(package)
            places = None if above is None else above.places
            if places is None:
                return None
        if name == "__main__":  # of a folder or zip file, and not the one that runs now
            spec = PathFinder.find_spec(name, places)
            return None if spec is None else _describe(name, spec)
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is not None:
                spec = find_spec(name, places if package or finder is PathFinder else None)
                if spec is not None:
                    return _describe(name, spec)
        return None


def _describe(name: str, spec: ModuleSpec) -> Found:
    locations = spec.submodule_search_locations
    places = None if locations is None else tuple(os.path.abspath(place) for place in locations)
    if spec.origin in ("built-in", "frozen"):
        return Found(name, STANDARD, "", "", places)
    if not spec.has_location or not spec.origin:
        return Found(name, NAMESPACE, "", "", places, spec.loader)
    path = os.path.abspath(spec.origin)
    root = _root_of(name, path, is_package=places is not None)
    archive = path
    while not os.path.exists(archive) and archive != os.sep:
        archive = os.path.dirname(archive)
    return Found(name, _owner_of(path, root), archive if os.path.isfile(archive) else path, root, places, spec.loader)


def _root_of(name: str, path: str, *, is_package: bool) -> str:
    """Return the folder from which a module's name leads to its file; ``""`` where its folders have other names."""
    folder, file = os.path.split(path)
    inside = [*name.split("."), "__init__"] if is_package else name.split(".")
    tail = os.sep + os.path.join(*inside)
    stem = os.path.join(folder, file.partition(".")[0])  # an extension module has several suffixes
    return stem.removesuffix(tail) or os.sep if stem.endswith(tail) else ""


def _owner_of(path: str, root: str) -> str:
    if any(site in path for site in _SITES):
        return INSTALLED
    if path.startswith(_standard_folders()):
        return STANDARD
    if not root or path.startswith(installed_folders()) or _holds_distributions(root):
        return INSTALLED
    return OWN


def owner_of_script(path: str) -> str:
    """Return whose a script is."""
    return _owner_of(os.path.abspath(path), os.path.dirname(os.path.abspath(path)))


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    return tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))


@functools.cache
def _holds_distributions(root: str) -> bool:
    """Tell whether something was installed into a folder, as by ``pip install --target``."""
    return os.path.isdir(root) and any(name.endswith(".dist-info") for name in os.listdir(root))


def distribution_of(name: str, path: str) -> tuple[str, str]:
    """Return (name, version) of the distribution that brought an installed module; two empty strings if none did."""
    top = name.partition(".")[0]
    try:
        candidates = [metadata.distribution(top)]  # most have the same name, and the others take a look at everything
    except metadata.PackageNotFoundError:
        candidates = []
    if not any(_brings(one, path) for one in candidates):
        candidates = [metadata.distribution(other) for other in sorted(set(_distributions().get(top, ())))]
        brought = [one for one in candidates if _brings(one, path)]
        candidates = brought or candidates
    return (candidates[0].metadata["Name"], candidates[0].version) if candidates else ("", "")


def _brings(distribution: metadata.Distribution, path: str) -> bool:
    record = distribution.read_text("RECORD")
    if record is None:
        return any(str(distribution.locate_file(file)) == path for file in distribution.files or ())
    name = os.path.relpath(path, str(distribution.locate_file("")))
    return f"\n{name}," in f"\n{record}"  # which as objects takes a hundred times longer


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
