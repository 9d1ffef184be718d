"""Prints, as JSON, where klyng_mp.MPI differs from mpi4py's MPI in a name, a parameter, a default or a datatype.

A program of its own, since mpi4py's MPI begins with its import.
"""

from __future__ import annotations

import inspect
import json

import numpy as np
from mpi4py import MPI as theirs

from klyng_mp import MPI as ours

MISSING = "mpi4py has it not"


def symbol(module, parameter):
    """Return a default by its name, as the two have other values for some."""
    value = parameter.default
    if parameter.name == "source" and value == module.ANY_SOURCE:
        return "ANY_SOURCE"
    if parameter.name in ("tag", "recvtag") and value == module.ANY_TAG:
        return "ANY_TAG"
    for kind in (module.Op, module.Datatype, module.Info):
        if isinstance(value, kind):
            same = [name for name in dir(module) if isinstance(getattr(module, name), kind)]
            return min(name for name in same if getattr(module, name) == value)
    return "" if value is parameter.empty else repr(value)


def parameters(module, function):
    return [(one.name, str(one.kind), symbol(module, one)) for one in inspect.signature(function).parameters.values()]


def differences(name, mine, other):
    """Yield what differs in two things of one name."""
    if inspect.isclass(mine):
        for member in sorted(one for one in dir(mine) if not one.startswith("_")):
            if not hasattr(other, member):
                yield f"{name}.{member}", MISSING
            elif member not in dir(BaseException):
                yield from differences(f"{name}.{member}", getattr(mine, member), getattr(other, member))
    elif inspect.isroutine(mine):
        expected, found = parameters(theirs, other), parameters(ours, mine)
        if expected != found:
            yield name, f"mpi4py has {expected}, and this is {found}"
    elif isinstance(mine, ours.Datatype) and mine and other:
        described = [(one.Get_size(), one.Get_extent(), code_of(one)) for one in (mine, other)]
        if described[0] != described[1]:
            yield name, f"mpi4py has {described[1]}, and this is {described[0]}"
    elif callable(mine) != callable(other):
        yield name, "one of the two can be called"


def code_of(datatype):
    try:
        return np.dtype(datatype.tocode()).char
    except ValueError:
        return None


def main():
    found = {}
    for name in ours.__all__:
        if not hasattr(theirs, name):
            found[name] = MISSING
        else:
            found.update(differences(name, getattr(ours, name), getattr(theirs, name)))
    for code, datatype in ours._typedict.items():
        if code not in theirs._typedict or theirs._typedict[code].Get_size() != datatype.Get_size():
            found[f"_typedict[{code!r}]"] = repr(datatype)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
