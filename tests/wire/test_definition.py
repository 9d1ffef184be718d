"""What things consist of."""

from __future__ import annotations

import functools
import sys
import types
import typing

import pytest

from klyng_mp.wire.definition import (
    class_of_method,
    function_state,
    home_of,
    is_shared,
    lru_cache_arguments,
    member_parts,
    place_of_globals,
    skeleton_of,
    state_of,
)
from klyng_mp.wire.packing import Packing


@pytest.fixture
def packing():
    return Packing(main_by_reference=False)


@pytest.fixture
def main(monkeypatch):
    """Stand for ``__main__``: a program of a few lines."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(
        "x = 1\ndef f(a, b=2): return x\ndef g(): 'doc'\n"
        "class C:\n __slots__ = iter(['s'])\n v = 1\n def m(self): pass\n"
        "import functools\nwrapped = functools.lru_cache(7)(f)",
        vars(module),
    )
    return module


def test_a_plain_function_has_no_state(packing, main):
    assert function_state(packing, main.g, place_of_globals(packing, main.g)) == {}
    assert function_state(packing, main.f, place_of_globals(packing, main.f)) == {"__defaults__": (2,)}


def test_where_globals_are(packing, main):
    assert isinstance(place_of_globals(packing, main.f), int)
    assert place_of_globals(Packing(main_by_reference=True), main.f) == "__main__"
    assert place_of_globals(packing, functools.wraps) == "functools"
    nowhere = types.FunctionType(main.f.__code__, {"__name__": "nowhere"})
    assert place_of_globals(packing, nowhere) is place_of_globals(packing, nowhere)
    assert is_shared(functools.__dict__)
    assert not is_shared(vars(main))
    assert not is_shared({"__name__": []})
    odd = types.FunctionType(main.f.__code__, {"__name__": []})
    assert place_of_globals(packing, odd).variables is odd.__globals__


def test_homes(main):
    assert home_of(main.f) is vars(main)
    assert home_of(functools.wraps) is vars(main)
    assert class_of_method(main.C.m) is main.C
    assert class_of_method(main.f) is None
    del main.C.m
    assert class_of_method(lambda: None) is None


def test_skeletons(packing, main):
    make, (meta, name, bases, body) = skeleton_of(packing, main.C)
    assert (make.__name__, meta, name, bases) == ("make_class", type, "C", (object,))
    assert body == {"__module__": "__main__", "__qualname__": "C", "__slots__": ["s"]}
    assert skeleton_of(packing, main.f)[0].__name__ == "make_function"
    assert skeleton_of(packing, main.wrapped)[1] == lru_cache_arguments(main.wrapped) == (main.f, 7, False)


def test_states(packing, main):
    fill, (early, attributes, registered) = state_of(packing, main.C)
    assert fill.__name__ == "fill_class"
    assert set(early.arguments[1]) == {"v", "m", "__doc__"}
    assert (attributes, registered) == ({}, ())
    assert state_of(packing, main.wrapped) is None
    assert state_of(packing, typing.TypeVar("T")) is None


def test_type_variables(packing):
    bounded = typing.TypeVar("bounded", bound=int, covariant=True)
    make, arguments = skeleton_of(packing, bounded)
    again = make(*arguments)
    assert (again.__name__, again.__bound__, again.__covariant__) == ("bounded", int, True)
    assert again.__module__ == __name__


def test_members_are_taken_as_they_are(main):
    exec("import enum\nclass E(str, enum.Enum):\n A = 'value'\n", vars(main))
    (cls, name, data, arguments), state = member_parts(main.E, main.E.A)
    assert (cls, name, data, arguments) == (main.E, "A", str, ("value",))
    assert state["_value_"] == "value"
