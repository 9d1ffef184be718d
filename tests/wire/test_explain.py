"""Paths to what cannot travel, and words for anything."""

from __future__ import annotations

import pickle
import threading

import pytest

from klyng_mp.wire.explain import describe, describe_error, find_culprit, names_in, type_name

LOCK = threading.Lock()


class Silent:
    def __repr__(self):
        raise RuntimeError("no repr")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no str")


class Nameless(type):
    def __getattribute__(cls, name):
        raise RuntimeError("no name")


class HasNoName(metaclass=Nameless):
    pass


class Looping:
    def __init__(self):
        self.me = self
        self.lock = LOCK


class Wide:
    def __init__(self, n):
        self.parts = [Wide(n - 1) for _ in range(3)] if n else [LOCK]


class Deep:
    def __init__(self, inner):
        self.inner = inner


def pickled(part):
    pickle.dumps(part, 5)


@pytest.mark.parametrize(
    "obj", [Silent(), [Silent()], {1: Silent()}, HasNoName(), Mute(), LOCK, "x" * 10_000], ids=type_name
)
def test_describe_never_raises_and_is_short(obj):
    text = describe(obj)
    assert text
    assert len(text) <= 200


def test_describe_error_never_raises():
    assert describe_error(ValueError("text")) == "ValueError: text"
    assert "Mute" in describe_error(Mute())


@pytest.mark.parametrize(
    ("obj", "name"), [(1, "int"), (LOCK, "_thread.lock"), (Silent(), f"{__name__}.Silent"), (HasNoName(), "object")]
)
def test_type_name(obj, name):
    assert type_name(obj) == name


def test_the_deepest_part_is_found():
    assert find_culprit(Deep([1, Deep(LOCK)]), pickled).path == "deep.inner[1].inner"
    assert find_culprit([LOCK], pickled, name="result").path == "result[0]"
    assert find_culprit((1, [LOCK]), pickled, names=("first", "second")).path == "second[0]"


def test_circles_end():
    assert find_culprit(Looping(), pickled).path == "looping.lock"


def test_the_search_is_bounded():
    trials = []

    def attempt(part):
        trials.append(1)
        raise ValueError("never")

    culprit = find_culprit(Wide(7), attempt)
    assert culprit.path.startswith("wide")
    assert len(trials) < 5000


def test_what_works_alone_makes_the_whole_the_culprit():
    obj = [1, 2]

    def attempt(part):
        if part is obj:
            raise ValueError("not together")

    assert find_culprit(obj, attempt) == ("obj", obj, "ValueError: not together")


def test_names_in_a_pickle():
    assert names_in(pickle.dumps([Silent(), Silent(), LookupError()], 5)) == [f"{__name__}.Silent"]
    assert names_in(b"no pickle") == []
    assert names_in(pickle.dumps(Silent(), 5)[:-3]) == [f"{__name__}.Silent"]
