"""Classes of every kind go driver -> rank -> rank -> driver, and stay the same classes."""

from __future__ import annotations

import abc
import functools

from ring import Ring, pack_up


class MyError(Exception):
    def __init__(self, text, *, code=3):
        super().__init__(text)
        self.code = code


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

    @property
    def twice(self):
        return 2 * self.area()

    @classmethod
    def make(cls, *args):
        return cls(*args)

    @staticmethod
    def unit():
        return "m2"

    @functools.cached_property
    def cached(self):
        return object()


class Square(Shape):
    __slots__ = ("_Square__hidden", "side")

    def __init__(self, side):
        self.side = side
        self.__hidden = side

    def area(self):
        return self.side * self.__hidden


class Round(Square):
    def __init__(self, side):
        super().__init__(side)
        self.name = "round"

    def area(self):
        return super().area() * 3


@Shape.register
class Odd:
    pass


class Meta(type):
    made = []  # noqa: RUF012 - what is tested

    def __new__(cls, name, bases, namespace):
        cls.made.append(name)
        return super().__new__(cls, name, bases, namespace)

    def __call__(cls, *args):
        made = super().__call__(*args)
        made.called = True
        return made

    def __setattr__(cls, name, value):
        raise AttributeError(f"{name} cannot be set")


class WithMeta(metaclass=Meta):
    level = 1


class Plugin:
    known = []  # noqa: RUF012 - what is tested

    def __init_subclass__(cls, *, key):
        super().__init_subclass__()
        cls.key = key
        Plugin.known.append(cls)


class PluginA(Plugin, key="a"):
    pass


class PluginB(Plugin, key="b"):
    pass


class Point:
    """Has a constant of its own class, which only its own __setstate__ can fill."""

    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x

    def __getstate__(self):
        return [self.x]

    def __setstate__(self, state):
        (self.x,) = state


Point.ORIGIN = Point(0)


class Wrapped(property):
    """A property with something more."""

    note = ""


class Descriptors:
    def __init__(self):
        self.value = 5

    def read(self):
        return self.value

    plain = Wrapped(read)
    plain.note = "more"
    partial = functools.partialmethod(read)


class Singleton:
    def __reduce__(self):
        return "SINGLETON"


SINGLETON = Singleton()


class Inner:
    class Deeper:
        class Deepest:
            pass


def check(things):
    square, round_, odd, with_meta, plugin, point, described, error, singleton, deepest = things
    assert type(square) is Square
    assert type(round_) is Round
    assert isinstance(round_, Square)
    assert isinstance(odd, Shape)
    assert not isinstance(3, Shape)
    assert (square.area(), round_.area(), round_.twice, round_.name) == (4, 12, 24, "round")
    assert Square.make(3).area() == 9
    assert Shape.unit() == "m2"
    assert round_.cached is round_.cached
    try:
        Shape()
    except TypeError:
        pass
    else:
        raise AssertionError("an abstract class was instantiated")
    assert with_meta.called
    assert type(WithMeta) is Meta
    assert Meta.made == ["WithMeta"]
    assert Plugin.known == [PluginA, PluginB]
    assert plugin.key == "a"
    assert type(point) is Point
    assert (point.x, Point.ORIGIN.x) == (7, 0)
    assert (described.plain, Descriptors.plain.note, described.partial()) == (5, "more", 5)
    try:
        raise error
    except MyError as caught:
        assert (caught.args, caught.code) == (("text",), 7)  # noqa: PT017 - in a rank there is no pytest
    assert singleton is SINGLETON
    assert type(deepest) is Inner.Deeper.Deepest
    return things, [Shape, Meta, Plugin, Inner.Deeper]


def main():
    sent = (
        Square(2),
        Round(2),
        Odd(),
        WithMeta(),
        PluginA(),
        Point(7),
        Descriptors(),
        MyError("text", code=7),
        SINGLETON,
        Inner.Deeper.Deepest(),
    )
    for install in (True, False):
        with Ring(install=install) as ring:
            for _ in range(2):
                back, classes = ring.run(pack_up, check, *sent)
                assert [type(thing) for thing in back] == [type(thing) for thing in sent]
                assert back[8] is SINGLETON
                assert classes == [Shape, Meta, Plugin, Inner.Deeper]
                assert Plugin.known == [PluginA, PluginB]


main()
