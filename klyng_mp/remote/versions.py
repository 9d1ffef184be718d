"""Whether a host has what a program needs, in the versions that it has here; asked before any code is sent.

Layer: remote; imports errors, modules, version.

Which differences matter, and why:

- Python's minor version: functions travel as bytecode, which is another one's in each.
- klyng_mp: both sides speak its protocol; dill: one unpacks what the other has packed.
- The machine and Python's ABI, only where extension modules travel: these are made for one of each.
- An installed package that the program imports has to be there, in the same version: its objects travel as pickles,
  whose layout is the version's, and a result must not depend on which host it was computed on. One that the program can
  do without may be missing, but not differ. What a package itself needs is its own business.
"""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib import metadata
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from klyng_mp.errors import BundleError
from klyng_mp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from klyng_mp.remote.sources import Sources

__all__ = ["compare", "describe_here", "requirements"]

Description = dict[str, Any]

_ALWAYS = {"python": "Python", "klyng_mp": "klyng_mp", "dill": "dill"}
_OF_EXTENSIONS = {"machine": "kind of machine", "abi": "ABI of Python"}
_PRESENT = "?"  # the version of what is there, though nothing says in which


def requirements(sources: Sources) -> Description:
    """Return what hosts have to have for a program: what `describe_here` says, and what else `compare` needs.

    ``asked`` is what each host has to be asked for.
    """
    asked = [(one.module, one.distribution) for one in sources.packages]
    needed = {_key(one.module, one.distribution) for one in sources.packages if not one.optional}
    optional = sorted({_key(*package) for package in asked} - needed)
    return {**describe_here(asked), "asked": asked, "optional": optional, "native": sources.is_native}


def describe_here(packages: Iterable[tuple[str, str]]) -> Description:
    """Return the versions of this machine as plain data, which JSON can carry.

    Args:
        packages: (module, name of its distribution or ``""``) of each that is asked for.

    Returns:
        ``python``, ``implementation``, ``machine``, ``abi``, ``klyng_mp``, ``dill``, and ``packages``: for each
        distribution (or module, where it has none) its version, or None where it is not installed.
    """
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
        "abi": sysconfig.get_config_var("SOABI") or "",
        "klyng_mp": __version__,
        "dill": _version("dill", "dill"),
        "packages": {_key(*package): _version(*package) for package in packages},
    }


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], host: str) -> BundleError | None:
    """Return what is wrong with a host, all of it in one error, or None.

    Args:
        ours: what `requirements` returned here.
        theirs: what `describe_here` returned there for ``ours["asked"]``.
        host: as the user wrote it.
    """
    here = {"Python": f"{ours['implementation']} {ours['python']}"}
    there = {"Python": f"{theirs.get('implementation')} {theirs.get('python')}"}
    kinds = {**_ALWAYS, **(_OF_EXTENSIONS if ours["native"] else {})}
    found = []
    for key, name in kinds.items():
        mine, other = here.get(name, ours[key]), there.get(name, theirs.get(key))
        if mine != other:
            found.append(_say(name, mine, other))
    for name, version in sorted(ours["packages"].items()):
        other = theirs["packages"].get(name)
        if other != version and not (other is None and name in ours["optional"]):
            found.append(_say(name, version, other))
    if not found:
        return None
    differences = "; ".join(found)
    return BundleError(
        f"{host} does not have what the program runs with here: {differences}. Install the same versions on both, "
        "for example with pip install NAME==__version__ in the environment of its beacon",
        host,
    )


def _say(name: str, ours: str | None, theirs: str | None) -> str:
    return f"{name} is {_say_version(ours)} here and {_say_version(theirs)} there"


def _say_version(version: str | None) -> str:
    return "not installed" if version is None else "of unknown version" if version == _PRESENT else version


def _key(module: str, distribution: str) -> str:
    return distribution or module


def _version(module: str, distribution: str) -> str | None:
    if distribution:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            return None
    return None if PathFinder.find_spec(module.partition(".")[0]) is None else _PRESENT
