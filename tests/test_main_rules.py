"""The rules for things of ``__main__``, as a script sees them: no guard, and what comes home is the original.

Each test is a program that somebody could have written. It runs as a script, whose functions the ranks
cannot import, and again by the command, where each rank runs the program itself.
"""

from __future__ import annotations

import textwrap

import programs
import pytest

import klyng_mp as mp


def run(folder, text, **keywords):
    return programs.run_script(folder, text, **keywords)


def check(folder, text, **keywords):
    """Run a program that must end with the word "well"."""
    assert run(folder, textwrap.dedent(text) + "\nprint('well')\n", **keywords) == "well\n"


THINGS = """
import enum, dataclasses, collections, typing
import klyng_mp as mp

class Plain:
    def __init__(self, value):
        self.value = value
    def double(self):
        return Plain(self.value * 2)

class Child(Plain):
    def double(self):
        found = super().double()
        found.seen = __class__
        return found

class Colour(enum.Enum):
    RED = 1
    GREEN = "green"

class Flags(enum.IntFlag):
    A = 1
    B = 2

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    def moved(self):
        return dataclasses.replace(self, x=self.x + 1)

Pair = collections.namedtuple("Pair", "left right")

class Typed(typing.NamedTuple):
    name: str
    size: int = 1

class Slotted:
    __slots__ = ("value",)
    def __init__(self, value):
        self.value = value

class Meta(type):
    def __call__(cls, *args):
        made = super().__call__(*args)
        made.by = cls.__name__
        return made

class Made(metaclass=Meta):
    pass

class Error(Exception):
    def __init__(self, number, text="why"):
        super().__init__(number, text)
        self.number = number

MISSING = object()
"""

MAKERS = {
    "Plain": ("Plain(3)", "back.value == 3 and back.double().value == 6"),
    "Child": ("Child(3)", "isinstance(back, Plain) and back.double().seen is Child"),
    "enum": ("Colour.RED", "back is Colour.RED"),
    "flags": ("Flags.A | Flags.B", "back == Flags.A | Flags.B"),
    "dataclass": (
        "Point(1, 2)",
        "back == Point(1, 2) and back.moved() == Point(2, 2) and hash(back) == hash(Point(1, 2))",
    ),
    "namedtuple": ("Pair(1, [2])", "back == Pair(1, [2]) and back.right == [2]"),
    "NamedTuple": ("Typed('x')", "back == Typed('x', 1)"),
    "slots": ("Slotted(4)", "back.value == 4"),
    "metaclass": ("Made()", "back.by == 'Made' and type(type(back)) is Meta"),
    "exception": ("Error(7)", "back.number == 7 and back.args == (7, 'why')"),
}
TRAVELS = """
def travel(sent):
    comm = mp.comm()
    if comm.rank == 0:
        assert isinstance(sent, {cls}), type(sent)
        comm.send([sent, {maker}, {cls}], 1)
        sent, made, cls = comm.recv()
        assert type(sent) is type(made) is cls is {cls}
        return sent, made, cls
    sent, made, cls = comm.recv()
    assert type(sent) is type(made) is cls is {cls}
    assert isinstance(made, {cls})
    comm.send([sent, made, cls], 0)

def main():
    original = {maker}
    with mp.World(2) as w:
        for number in range(2):
            (*backs, cls), _ = w.run(travel, original)
            assert cls is {cls}
            for back in backs:
                assert type(back) is type(original) is {cls}, (type(back), {cls})
                assert {test}
"""


@pytest.mark.parametrize("kind", list(MAKERS))
def test_what_travels_from_driver_to_rank_to_rank_to_driver_is_the_original(tmp_path, kind):
    maker, test = MAKERS[kind]
    names = {"enum": "Colour", "flags": "Flags", "dataclass": "Point", "namedtuple": "Pair", "NamedTuple": "Typed",
             "slots": "Slotted", "metaclass": "Made", "exception": "Error"}  # fmt: skip
    check(tmp_path, THINGS + TRAVELS.format(maker=maker, test=test, cls=names.get(kind, kind)) + "\nmain()\n")


def test_exceptions_of_main_are_caught_everywhere(tmp_path):
    check(
        tmp_path,
        THINGS
        + """
def fail():
    comm = mp.comm()
    if comm.rank == 0:
        try:
            raise comm.recv()
        except Error as error:
            assert error.number == 1
        raise Error(2)
    comm.send(Error(1), 0)
    comm.recv(source=0)

with mp.World(2) as w:
    for _ in range(2):
        try:
            w.run(fail)
        except mp.RankFailedError as failed:
            try:
                raise failed.__cause__
            except Error as error:
                assert (error.number, error.args) == (2, (2, "why"))
            else:
                raise SystemExit("not caught")
""",
    )


def test_an_exception_of_main_that_needs_more_than_its_args(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
class Strict(Exception):
    def __init__(self, one, *, two):
        super().__init__(one)
        self.two = two
def fail():
    raise Strict(1, two=2)
with mp.World(1) as w:
    try:
        w.run(fail)
    except mp.RankFailedError as failed:
        assert "Strict" in str(failed)
        cause = failed.__cause__
        assert isinstance(cause, (Strict, mp.CodecError)), cause
    assert w.run(mp.rank) == [0]
""",
    )


def test_globals_are_shared_by_the_functions_of_a_rank(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
counter = 0
log = []
MISSING = object()

def count():
    global counter
    counter += 1
    log.append(counter)
    return counter

class Counting:
    @staticmethod
    def read():
        return counter, log
    def count(self):
        return count()

def is_missing(value=MISSING):
    return value is MISSING

def work(own):
    before = counter
    Counting().count()
    count()
    assert Counting.read() == (before + 2, log), (Counting.read(), counter)
    assert Counting.read()[1] is log
    assert is_missing() and is_missing(MISSING)
    assert own.read()[1] is log
    return counter

with mp.World(2) as w:
    assert w.run(work, Counting()) == [2, 2]
assert (counter, log) == (0, [])
""",
    )


def test_a_run_takes_the_values_of_now(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
setting = "first"
def read():
    return setting
def helper():
    return "one"
def use():
    return helper()
with mp.World(2) as w:
    assert w.run(read) == ["first"] * 2
    setting = "second"
    assert w.run(read) == ["second"] * 2
    assert w.run(use) == ["one"] * 2
    def helper():
        return "two"
    assert w.run(use) == ["two"] * 2
    del helper
    try:
        w.run(use)
    except mp.RankFailedError as error:
        assert isinstance(error.__cause__, NameError), error.__cause__
    else:
        raise SystemExit("no error")
""",
    )


def test_a_class_that_is_defined_anew_is_another(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
class Thing:
    version = 1
def make():
    return Thing()
def check(thing):
    return isinstance(thing, Thing), Thing.version, type(thing).version
with mp.World(2) as w:
    old_class, old = Thing, w.run(make)[0]
    assert type(old) is Thing
    assert w.run(check, old) == [(True, 1, 1)] * 2
    class Thing:
        version = 2
    new = w.run(make)[0]
    assert type(new) is Thing and new.version == 2
    assert type(old) is old_class
    assert w.run(check, new) == [(True, 2, 2)] * 2
    assert w.run(check, old) == [(False, 2, 1)] * 2
    assert [type(back) for back in w.run(lambda thing: thing, old)] == [old_class] * 2
""",
    )


def test_only_what_is_referred_to_travels(tmp_path):
    check(
        tmp_path,
        """
import sys, klyng_mp as mp
stream = (number for number in range(3))    # could not travel
socket = __import__("socket").socket()      # nor this
big = bytes(300_000_000)                    # nor this in good time
used, by_method, by_default, by_nested, by_lambda, by_annotation = "used", 1, 2, 3, 4, 5
unused = "unused"

class Helper:
    def method(self):
        return by_method
    def other(self, value=by_default):
        return value

def nested():
    def inner():
        return [by_nested for _ in range(1)]
    return inner()

def look():
    Helper().method(); nested(); (lambda: by_lambda)()
    return used, sorted(name for name in globals() if not name.startswith("__"))

with mp.World(2) as w:
    import time
    begin = time.monotonic()
    for value, names in w.run(look):
        assert value == "used"
        assert {"used", "by_method", "by_nested", "by_lambda", "Helper", "nested"} <= set(names), names
        assert not {"stream", "socket", "big", "unused", "w", "begin", "look_not"} & set(names), names
    assert time.monotonic() - begin < 5
socket.close()
""",
    )


def test_what_is_referred_to_and_cannot_travel_is_named(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
stream = (number for number in range(3))
def use():
    return next(stream)
with mp.World(1) as w:
    try:
        w.run(use)
    except mp.CodecError as error:
        assert "stream" in str(error), error
        assert "generator" in str(error), error
    else:
        raise SystemExit("no error")
    assert w.run(mp.rank) == [0]
""",
    )


def test_no_guard_is_needed_and_the_program_runs_once(tmp_path):
    out = run(
        tmp_path,
        """
        print("top")
        import klyng_mp as mp
        with mp.World(3) as w:
            print(w.run(lambda: (mp.rank(), __name__)))
        print("bottom")
    """,
    )
    assert out == "top\n[(0, '__main__'), (1, '__main__'), (2, '__main__')]\nbottom\n"


def test_functions_of_every_kind(tmp_path):
    check(
        tmp_path,
        """
import functools, operator
import klyng_mp as mp

def decorate(func):
    @functools.wraps(func)
    def wrapper(*args):
        calls.append(func.__name__)
        return func(*args)
    return wrapper

calls = []

@decorate
def decorated(x):
    return x + len(calls)

@functools.lru_cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def generate(n):
    yield from range(n)

async def wait():
    return 5

@functools.singledispatch
def kind(x):
    return "any"

@kind.register
def _(x: int):
    return "int"

def counter():
    count = 0
    def add():
        nonlocal count
        count += 1
        return count
    return add

class Thing:
    cached = functools.cached_property(lambda self: self.x * 2)
    def __init__(self, x):
        self.x = x
    @property
    def prop(self):
        return self.x
    @classmethod
    def make(cls, x):
        return cls(x)
    @staticmethod
    def static(x):
        return fib(x)
    def __call__(self, y):
        return self.x + y
    def method(self, y=1, *args, z, **rest):
        return self.x, y, args, z, rest

table = {"a": lambda x: x + 1, "b": lambda x: table["a"](x) * 2}

def drive(coroutine_function):
    try:
        coroutine_function().send(None)
    except StopIteration as stop:
        return stop.value

with mp.World(1) as w:
    one = lambda *a, **k: w.run(*a, **k)[0]
    assert one(decorated, 1) == 2
    assert decorated.__name__ == "decorated" and calls == []
    assert one(fib, 20) == 6765
    assert one(even, 10) is True
    assert one(lambda: list(generate(3))) == [0, 1, 2]
    assert one(drive, wait) == 5
    assert [one(kind, x) for x in (1, "x")] == ["int", "any"]
    add = counter()
    assert one(lambda: [add(), add()]) == [1, 2] and add() == 1
    thing = Thing(4)
    assert one(thing, 3) == 7
    assert one(thing.method, 2, 3, z=4, q=5) == (4, 2, (3,), 4, {"q": 5})
    assert one(Thing.make, 9).cached == 18
    assert one(Thing.static, 10) == 55
    assert one(lambda: (Thing(2).cached, Thing(3).prop)) == (4, 3)
    assert one(table["b"], 3) == 8
    assert one(functools.partial(thing.method, z=1)) == (4, 1, (), 1, {})
    assert one(operator.methodcaller("make", 5), Thing).x == 5
    assert one(lambda x, *, y=[1]: (x, y), 0) == (0, [1])
    assert one(lambda f: f(3), lambda x: x + 1) == 4
    assert one(lambda: (lambda: (lambda: fib(10))())()) == 55
""",
    )


def test_functions_that_come_home_are_the_originals(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
def helper():
    return 1
class Thing:
    def method(self):
        return helper
    @classmethod
    def kind(cls):
        return cls
def give():
    return helper, Thing, Thing.method, Thing.kind, [helper, {"k": Thing}], give
def travel(things):
    comm = mp.comm()
    comm.send(things, (comm.rank + 1) % comm.size)
    things = comm.recv()
    assert things[0] is helper and things[1] is Thing and things[0]() == 1
    return things
with mp.World(3) as w:
    for found in w.run(give):
        assert found[0] is helper
        assert found[1] is Thing
        assert found[2] is Thing.method
        assert found[3] == Thing.kind
        assert found[4] == [helper, {"k": Thing}]
        assert found[5] is give
    for found in w.run(travel, [helper, Thing]):
        assert found == [helper, Thing]
""",
    )


def test_two_worlds_do_not_share_the_globals_of_their_ranks(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
class Thing:
    pass
state = []
def add(item):
    state.append(item)
    return len(state), Thing()
with mp.World(1) as one, mp.World(1) as two:
    assert one.run(add, 1)[0][0] == 1
    found = two.run(add, 2)[0]
    assert found[0] == 1
    assert type(found[1]) is Thing
    assert type(two.run(lambda thing: thing, one.run(add, 1)[0][1])[0]) is Thing
assert state == []
""",
    )


def test_modules_and_their_things_go_by_reference(tmp_path):
    (tmp_path / "helper.py").write_text(
        "class Thing:\n    pass\nshared = []\ndef add():\n    shared.append(1)\n    return len(shared)\n"
    )
    check(
        tmp_path,
        """
import os.path as path, json
import numpy as np
import helper
from helper import Thing, add
import klyng_mp as mp
def work():
    return path.join("a", "b"), json.dumps([1]), int(np.arange(3).sum()), helper.Thing is Thing, add(), helper.shared
with mp.World(2) as w:
    assert w.run(work) == [("a/b", "[1]", 3, True, 1, [1])] * 2
    assert w.run(work) == [("a/b", "[1]", 3, True, 2, [1, 1])] * 2
    assert w.run(lambda: type(Thing()) is helper.Thing) == [True, True]
    assert type(w.run(lambda: Thing())[0]) is Thing
""",
    )


def test_classes_made_in_functions_travel_too(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
def make():
    class Local:
        def __init__(self):
            self.rank = mp.rank()
        def tell(self):
            return self.rank
    return Local()
def swap():
    comm = mp.comm()
    got = comm.sendrecv(make(), 1 - comm.rank)
    return got.tell()
with mp.World(2) as w:
    assert [local.tell() for local in w.run(make)] == [0, 1]
    assert w.run(swap) == [1, 0]
""",
    )


def test_arrays_and_large_things_of_main(tmp_path):
    check(
        tmp_path,
        """
import numpy as np
import klyng_mp as mp
class Grid:
    def __init__(self, cells):
        self.cells = cells
def work(grid):
    comm = mp.comm()
    got = comm.sendrecv(Grid(grid.cells + comm.rank), 1 - comm.rank)
    assert isinstance(got, Grid)
    return got
with mp.World(2) as w:
    first, second = w.run(work, Grid(np.zeros((500, 500))))
    assert type(first) is Grid and first.cells.sum() == 250_000 and second.cells.sum() == 0
    first.cells[0, 0] = 5      # what arrives can be written to
""",
    )


@pytest.mark.parametrize("how", ["-c", "-m", "stdin", "zip"])
def test_programs_that_are_no_script(tmp_path, how):
    text = textwrap.dedent("""
        import klyng_mp as mp
        class Thing:
            pass
        def make():
            return Thing()
        with mp.World(2) as w:
            assert [type(thing) for thing in w.run(make)] == [Thing] * 2
            try:
                w.run(lambda: 1 / 0)
            except mp.RankFailedError as error:
                assert "ZeroDivisionError" in str(error)
        print("well")
    """)
    if how == "zip":
        import zipfile

        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("__main__.py", text)
    else:
        (tmp_path / "app.py").write_text(text)
    words = {"-c": ["-c", text], "-m": ["-m", "app"], "stdin": [], "zip": ["app.zip"]}[how]
    keywords = {"stdin": (tmp_path / "app.py").open()} if how == "stdin" else {}
    with programs.Program(*words, cwd=tmp_path, **keywords) as program:
        assert program.finish() == 0, program.err
        assert (program.out, program.err) == ("well\n", "")
    for file in keywords.values():
        file.close()


def test_a_traceback_shows_the_lines_of_the_script(tmp_path):
    text = """
        import klyng_mp as mp
        def inner():
            raise ValueError("here")    # this very line
        with mp.World(1) as w:
            w.run(lambda: inner())
    """
    with programs.start_script(tmp_path, text) as program:
        assert program.finish() == 1
        assert program.err.count('raise ValueError("here")') >= 1
        assert 'driver.py", line 4, in inner' in program.err
        assert program.err.rstrip().splitlines()[-1] == "ValueError: here"


def test_the_same_program_under_the_command(tmp_path):
    """There main is the program itself in every rank, and goes by reference."""
    text = (
        THINGS
        + """
comm = mp.comm()
things = [Plain(1), Child(2), Colour.RED, Point(3), Pair(4, 5), Typed("x"), Slotted(6), Made(), Error(7), Flags.B]
back = comm.sendrecv(things, (comm.rank + 1) % comm.size)
assert [type(thing) for thing in back] == [type(thing) for thing in things]
assert back[2] is Colour.RED
assert comm.sendrecv(Plain.double, (comm.rank + 1) % comm.size) is Plain.double
print("well")
"""
    )
    path = programs.write_script(tmp_path, text)
    with programs.Program("-m", "klyng_mp", "-n", "3", path, cwd=tmp_path) as program:
        assert (program.finish(), program.out, program.err) == (0, "well\n" * 3, "")


def test_a_world_in_a_rank_carries_main_on(tmp_path):
    check(
        tmp_path,
        """
import klyng_mp as mp
class Thing:
    pass
def inner(thing):
    assert isinstance(thing, Thing)
    return Thing()
def outer():
    with mp.World(2) as w:
        found = w.run(inner, Thing())
    assert [type(thing) for thing in found] == [Thing] * 2
    return found[0]
with mp.World(1) as w:
    assert type(w.run(outer)[0]) is Thing
""",
    )


def test_functions_of_a_test_module_work_too():
    """As in this file: neither a script nor a module that ranks could import cheaply."""

    class Local:
        pass

    with mp.World(2) as world:
        assert world.run(lambda: mp.rank() + 1) == [1, 2]
        assert [type(found) for found in world.run(lambda: [Local()][0])] == [Local] * 2
