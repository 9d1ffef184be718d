"""What the driver changes between two runs, the ranks have in the next one."""

from __future__ import annotations

import pickle
import threading

from ring import Ring

shared = [1]
bad = threading.Lock()


class Thing:
    value = 1

    def method(self):
        return "one"


Former = Thing


def first():
    return Thing(), Thing.value, Thing().method(), shared


def second(message):
    return message, Thing, isinstance(message[0], Thing)


def check(ring, value, method, data):
    (thing, *rest), cls, known = ring.run(first, second)
    assert type(thing) is cls is Thing
    assert known
    assert rest == [value, method, data]


def identity(x=1):
    return x


def is_gone():
    try:
        return gone
    except NameError:
        return "gone"


def make_local():
    class Local:
        value = 5

    return Local


def home_again(cls):
    return cls(), cls


def pickled_there():
    return pickle.loads(pickle.dumps(Thing())).value


with Ring() as ring:
    check(ring, 1, "one", [1])
    shared.append(2)
    Thing.value = 2
    Thing.method = lambda self: "two"
    check(ring, 2, "two", [1, 2])
    shared = "rebound"
    del Thing.method
    Thing.method = classmethod(lambda cls: cls.__name__)
    check(ring, 2, "Thing", "rebound")

    class Thing:
        value = 3

        def method(self):
            return "three"

    check(ring, 3, "three", "rebound")
    former, now = ring.run(lambda x: (x, Thing()), lambda x: x, Former())
    assert type(former) is Former
    assert type(now) is Thing
    assert ring.run(pickled_there, identity) == 3

    assert ring.run(identity, identity) == 1
    identity.__defaults__ = (2,)
    assert ring.run(identity, lambda x: x) == 2
    identity.__code__ = (lambda x: x * 10).__code__
    assert ring.run(identity, lambda x: x) == 20

    gone = "here"
    assert ring.run(is_gone, lambda x: x) == "here"
    del gone
    assert ring.run(is_gone, lambda x: x) == "gone"

    for _ in range(3):
        Local = make_local()
        made, cls = ring.run(home_again, lambda x: x, Local)
        assert type(made) is Local is cls
    made, cls = ring.run(home_again, lambda x: x, make_local())
    assert type(made) is cls
    assert cls.value == 5
