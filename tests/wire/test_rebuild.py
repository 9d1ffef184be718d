"""What pickles call to make and fill things."""

from __future__ import annotations

import abc
import enum
import functools
import types

import pytest

from klyng_mp.wire import rebuild
from klyng_mp.wire.references import study


def template(x, y=1):
    return x, y


PACKED = study(template.__code__).packed


def test_functions_are_made_empty_and_filled():
    variables = rebuild.make_globals("nowhere")
    function = rebuild.make_function(PACKED, variables)
    assert (function.__name__, function.__module__, function.__defaults__) == ("template", "nowhere", None)
    rebuild.fill_function(function, {"__defaults__": (2,), "__dict__": {"a": 1}, "globals": {"g": 3}, "__doc__": "doc"})
    assert (function(1), function.a, variables["g"], function.__doc__) == ((1, 2), 1, 3, "doc")
    rebuild.fill_function(function, {})
    assert (function.__defaults__, function.__dict__) == (None, {})


def test_a_function_of_a_module_uses_its_globals():
    assert rebuild.make_function(PACKED, "functools").__globals__ is vars(functools)


def test_cells():
    def outer():
        value = 1
        return lambda: value

    closure = outer()
    function = rebuild.make_function(study(closure.__code__).packed, "functools", 1)
    rebuild.fill_function(function, {"cells": ((5,),)})
    assert function() == 5
    assert rebuild.cell_of(function, 0) is function.__closure__[0]
    rebuild.fill_function(function, {"cells": ((),)})
    with pytest.raises(NameError):
        function()
    rebuild.fill_cell(rebuild.make_cell(), ())


def test_a_class_loses_what_its_owner_has_taken_away():
    cls = rebuild.make_class(type, "Thing", (), {"__module__": "nowhere", "__qualname__": "Thing"})
    early = rebuild.set_attributes(cls, {"method": template})
    rebuild.fill_class(cls, (early, {"value": 1}, ()))
    assert (cls.value, cls.method) == (1, template)
    rebuild.fill_class(cls, (frozenset(), {"other": 2}, ()))
    assert cls.other == 2
    assert not hasattr(cls, "value")
    assert not hasattr(cls, "method")
    assert cls().__dict__ == {}


def test_abstract_classes_know_their_virtual_subclasses():
    cls = rebuild.make_class(abc.ABCMeta, "Thing", (), {"__module__": "nowhere", "__qualname__": "Thing"})
    rebuild.fill_class(cls, (frozenset(), {"__abstractmethods__": frozenset({"a"})}, (int,)))
    assert isinstance(3, cls)
    with pytest.raises(TypeError, match="abstract"):
        cls()


def test_members_stay_the_same_when_an_enum_changes():
    class Color(enum.Enum):
        RED = 1

    assert rebuild.make_member(Color, "RED", object, ()) is Color.RED
    assert type(rebuild.make_member(Color, "BLUE", object, ())) is Color
    assert list(Color) == [Color.RED]


def test_a_metaclass_from_elsewhere_is_called():
    made = []

    class Meta(type):
        def __init__(cls, *args):
            made.append(cls)

    cls = rebuild.make_class(Meta, "Thing", (), {})
    assert made == [cls]


def test_objects():
    class Slotted:
        __slots__ = ("__dict__", "a")

    thing = Slotted()
    rebuild.fill_object(thing, ({"b": 2}, {"a": 1}))
    rebuild.fill_object(thing, {"c": 3})
    rebuild.fill_object(thing, None)
    assert (thing.a, thing.b, thing.c) == (1, 2, 3)


def test_small_things():
    assert rebuild.make_property(property, (template, None, None), "doc").__doc__ == "doc"
    assert rebuild.make_cached_property(template, "name").attrname == "name"
    assert rebuild.make_lru_cache(template, 3, True).cache_parameters() == {"maxsize": 3, "typed": True}
    assert isinstance(rebuild.make_code(PACKED), types.CodeType)
    assert rebuild.get_constant("functools", "wraps") is functools.wraps
    assert rebuild.import_module("xml", ["xml.dom"]).dom
    with pytest.raises(ModuleNotFoundError):
        rebuild.import_module("not_there")
