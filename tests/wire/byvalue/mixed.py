"""Whatever else programs have at their top level."""

from __future__ import annotations

import abc
import asyncio
import collections
import contextlib
import dataclasses
import enum
import functools
import logging
import operator
import random
import re
import weakref
import xml.etree.ElementTree  # noqa: ICN001 - by its full name: a submodule is to be found
from string import Template

import numpy as np
from ring import Ring, pack_up

log = logging.getLogger("program")
pattern = re.compile("a+")
default = collections.defaultdict(list)
queue = collections.deque([1], maxlen=3)
generator = random.Random(3)
add_one = functools.partial(operator.add, 1)
LIMIT = {"max": 10}


def check(value):
    if value > LIMIT["max"]:
        raise ValueError(value)
    return value


class Money:
    """Can only be rebuilt where its function's global is there already."""

    def __init__(self, value):
        self.value = check(value)

    def __reduce__(self):
        return Money, (self.value,)

    def __eq__(self, other):
        return self.value == other.value

    __hash__ = None


wallet = [Money(1), Money(2)]


class Priced:
    standard = Money(3)
    wallet = wallet


class Base:
    log = log
    pattern = pattern
    default = default
    queue = queue

    def __class_getitem__(cls, key):
        return cls, key


class AbstractEnumMeta(abc.ABCMeta, enum.EnumMeta):
    pass


class AbstractEnum(enum.Enum, metaclass=AbstractEnumMeta):
    A = 1

    @classmethod
    def first(cls):
        return cls.A


class Named:
    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner):
        return self.name


class HasNamed:
    attribute = Named()


class Context:
    def __enter__(self):
        return 5

    def __exit__(self, *_):
        return True


class Documented:
    __slots__ = {"a": "what a is"}


class More(Documented):
    __slots__ = ("__dict__", "__weakref__", "c")


class Numbers(list):
    def total(self):
        return sum(self)


class Missing(dict):
    def __missing__(self, key):
        return key


class Twice(int):
    def twice(self):
        return Twice(self * 2)


class Array(np.ndarray):
    pass


class Group(ExceptionGroup):
    def derive(self, excs):
        return Group(self.message, excs)


class Anything:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class Methods:
    @functools.singledispatchmethod
    def kind(self, _):
        return "other"

    @kind.register
    def _(self, _: int):
        return "int"

    @functools.cache
    def cached(self):
        return object()

    @contextlib.contextmanager
    def opened(self):
        yield self


Pair = collections.namedtuple("Pair", "x y", defaults=[1])  # noqa: PYI024 - what is tested
Dynamic = type("Dynamic", (Base,), {"q": 1})
Made = dataclasses.make_dataclass("Made", [("a", int), ("b", list, dataclasses.field(default_factory=list))])
Functional = enum.Enum("Functional", "A B")


async def four():
    return 4


async def later():
    return await four()


def numbers():
    got = yield 1
    yield got


def every_kind(a, /, b, *c, d=wallet, **e):
    return a, b, c, d is wallet, e


def nested(*a):
    def inner():
        nonlocal a
        a += (1,)
        return lambda: (a, LIMIT)

    return inner


def second(things):
    assert [type(thing) for thing in things] == KINDS
    assert Base.log.name == "program"
    assert Base.pattern.match("aa")
    assert Base.default is default
    assert Base.queue is queue
    assert Base[3] == (Base, 3)
    assert Priced.wallet is wallet
    assert wallet == [Money(1), Money(2)]
    assert Priced.standard == Money(3)
    assert AbstractEnum.first() is AbstractEnum.A
    assert HasNamed.attribute == "attribute"
    with Context() as value:
        assert value == 5
        raise KeyError
    assert Documented.__slots__ == {"a": "what a is"}
    more = More()
    more.a = more.c = more.other = 1
    assert weakref.ref(more)() is more
    assert (Numbers([1, 2]).total(), Missing()[4], Twice(2).twice(), Anything().foo) == (3, 4, 4, "foo")
    methods = Methods()
    assert (methods.kind(1), methods.kind("")) == ("int", "other")
    assert methods.cached() is methods.cached()
    with methods.opened() as opened:
        assert opened is methods
    assert Pair(3) == (3, 1)
    assert Dynamic.q == 1
    assert Made(1).b == []
    assert Functional["B"] in Functional
    assert asyncio.run(later()) == 4
    generated = numbers()
    assert (next(generated), generated.send(5)) == (1, 5)
    assert every_kind(1, 2, 3, z=4) == (1, 2, (3,), True, {"z": 4})
    assert nested(1)()() == ((1, 1), LIMIT)
    assert add_one(2) == 3
    assert xml.etree.ElementTree.Element("a").tag == "a"
    assert Template("$x").substitute(x=1) == "1"
    assert generator.random() == random.Random(3).random()
    try:
        raise Group("group", [ValueError(1)])
    except* ValueError as group:
        assert type(group) is Group  # noqa: PT017 - in a rank there is no pytest
    return things


sent = [
    Base(),
    AbstractEnum.A,
    Money(4),
    Priced(),
    HasNamed(),
    More(),
    Numbers([1]),
    Missing(a=1),
    Twice(4),
    np.arange(3).view(Array),
    Group("group", [KeyError(1)]),
    Anything(),
    Methods(),
    Pair(1, 2),
    Dynamic(),
    Made(3),
    Functional.A,
    log,
    later,
]
KINDS = [type(thing) for thing in sent]

with Ring() as ring:
    for _ in range(2):
        back = ring.run(pack_up, second, *sent)
        assert [type(thing) for thing in back] == KINDS
        assert back[1] is AbstractEnum.A
        assert back[16] is Functional.A
        assert back[17] is log
        assert back[18] is later
