"""Functions of every kind, and the globals that they take along."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import os.path
import threading

from ring import Ring

lock = threading.Lock()  # nobody refers to it by this name
calls = []
CACHE = {}
MISSING = object()
names_for_one_list = one_list = [1]
counter = 10
square = lambda x: x * x  # noqa: E731


def logged(tag):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            calls.append(tag)
            return function(*args)

        return wrapper

    return decorate


@logged("tag")
def decorated(x):
    return x + 1


@contextlib.contextmanager
def managed(value):
    yield value


@functools.lru_cache(maxsize=50)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@functools.singledispatch
def kind(_):
    return "other"


@kind.register
def _(_: int):
    return "int"


def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)


def make_pair():
    n = 0

    def increase():
        nonlocal n
        n += 1
        return n

    def get():
        return n

    return increase, get


increase, get = make_pair()


def optional(value=MISSING, *, cache=CACHE):
    cache["optional"] = True
    return value is MISSING


def bump():
    global counter  # noqa: PLW0603 - what is tested
    counter += 1


def see():
    return counter


def takes_attribute(thing):
    return thing.lock


def numbers():
    yield square(2)


class Thing:
    table = CACHE
    factor = 3

    def method(self, x):
        return self.factor * x

    @classmethod
    def of_class(cls):
        return cls.factor

    def __eq__(self, other):
        return type(other) is Thing

    __hash__ = None


def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)


def first(*args):
    depth = 7

    def local(n):
        return 0 if n == 0 else local(n - 1)

    class Local:
        """A class that nobody else has."""

        base = depth

        def both(self):
            return depth, Local, __class__

        def shown(self):
            return super().__repr__()

    bump()
    things = {
        "nested": [lambda x: x * depth, local],
        "class": Local,
        "instance": Local(),
        "partial": functools.partial(is_even, 4),
        "bound": Thing().method,
        "bound to class": Thing.of_class,
        "method": Thing.method,
        "decorated": decorated,
    }
    return things, args


def second(message):
    things, args = message
    times, local = things["nested"]
    instance = things["instance"]
    assert times(2) == 14
    assert local(5) == 0
    assert type(instance) is things["class"]
    assert instance.both() == (7, things["class"], things["class"])
    assert "Local" in instance.shown()
    assert things["class"].__doc__ == "A class that nobody else has."
    assert things["partial"]()
    assert things["bound"](2) == 6
    assert things["bound to class"]() == 3
    assert things["method"] is Thing.method
    assert things["decorated"] is decorated
    assert args == (decorated, is_even, Thing.method, fibonacci, managed)
    assert decorated(1) == 2
    assert calls == ["tag"]
    assert is_even(10)
    assert not is_odd(10)
    assert recursive(5) == 120
    assert fibonacci(20) == 6765
    assert (kind(3), kind("x")) == ("int", "other")
    assert (increase(), increase(), get()) == (1, 2, 2)
    assert square(3) == 9
    assert [*numbers()] == [4]
    with managed(5) as value:
        assert value == 5
    assert optional()
    assert not optional(1)
    assert Thing.table is CACHE
    assert CACHE == {"optional": True}
    assert names_for_one_list is one_list
    assert see() == 10  # rank 0 has bumped its own
    bump()
    assert see() == 11
    assert takes_attribute.__name__ == "takes_attribute"
    assert os.path.join("a", "b") == "a/b"
    assert concurrent.futures.Future
    assert json.decoder.JSONDecoder
    return things, args


def main():
    with Ring() as ring:
        for _ in range(2):
            things, args = ring.run(first, second, decorated, is_even, Thing.method, fibonacci, managed)
            assert args == (decorated, is_even, Thing.method, fibonacci, managed)  # functions are equal if the same
            assert things["method"] is Thing.method
            assert things["decorated"] is decorated
            assert things["bound"].__self__ == Thing()
            assert type(things["instance"]) is things["class"]
            assert (counter, calls, CACHE) == (10, [], {})
            assert things["nested"][0](2) == 14
        # A method can be the function of a run, and so can anything else that is called.
        assert ring.run(functools.partial(Thing().method, 2), square) == 36
        assert ring.run(Thing().method, lambda x: x + Thing.factor, 2) == 9


main()
