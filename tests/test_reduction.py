"""reduction: pickles that carry what plain pickle refuses, and errors that name what cannot travel."""

from __future__ import annotations

import copyreg
import multiprocessing.reduction
import pickle
import socket
import threading

import numpy as np
import pytest

import klyng_mp
from klyng_mp import errors, reduction

BY_VALUE = """
import pickle, sys
from klyng_mp.reduction import ForkingPickler

class Point:
    def __init__(self, x):
        self.x = x
    def double(self):
        return scale * self.x

def halve(x):
    return x / scale

scale = 2
open(sys.argv[1], "wb").write(ForkingPickler.dumps((Point(21), halve, lambda x: halve(x) + 1)))
"""
OPENED = """
import pickle, sys
point, halve, function = pickle.loads(open(sys.argv[1], "rb").read())
print(point.double(), halve(10), function(10))
"""


class Refuses:
    def __reduce__(self):
        raise ZeroDivisionError("not this one")


class Registered:
    pass


@pytest.mark.parametrize("value", [None, 7, "text", b"bytes", [1, {"a": (2.5, None)}], range(3), int, len, 1 + 2j])
def test_ordinary_objects_are_ordinary_pickles(value):
    data = bytes(reduction.ForkingPickler.dumps(value))
    assert data == pickle.dumps(value, 5)
    assert pickle.loads(data) == value


def test_lambdas_closures_and_local_classes_come_along():
    base = 10

    class Local:
        def value(self):
            return base

    thing = [Local(), lambda x: x + base]
    again, function = pickle.loads(reduction.ForkingPickler.dumps(thing))
    assert (again.value(), function(1)) == (10, 11)
    assert type(again) is Local, "what comes home is the original"


def test_a_session_sends_its_main_by_value_to_a_process_that_does_not_have_it(run_python, tmp_path):
    made = run_python("-c", BY_VALUE, tmp_path / "pickle")
    assert made.returncode == 0, made.stderr
    opened = run_python("-c", OPENED, tmp_path / "pickle")
    assert opened.stdout == "42 5.0 6.0\n", opened.stderr


def test_a_script_sends_its_main_by_reference(run_python, tmp_path):
    (tmp_path / "script.py").write_text(BY_VALUE.replace(", lambda x: halve(x) + 1", ""))
    made = run_python("script.py", tmp_path / "pickle")
    assert made.returncode == 0, made.stderr
    data = (tmp_path / "pickle").read_bytes()
    assert b"__main__" in data
    assert b"klyng_mp" not in data


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ({"job": [1, threading.Lock()]}, "obj['job'][1]", TypeError),
        (threading.current_thread(), "._", TypeError),
    ],
)
def test_what_cannot_travel_is_named_and_is_what_pickle_would_raise(value, path, kind):
    with pytest.raises(errors.CodecError) as caught:
        reduction.ForkingPickler.dumps(value)
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, pickle.PicklingError)
    assert path in caught.value.path


def test_what_an_objects_own_method_raises_comes_as_it_is_with_its_place():
    with pytest.raises(ZeroDivisionError, match="not this one") as caught:
        reduction.ForkingPickler.dumps({"here": Refuses()})
    assert caught.value.__notes__ == ["obj['here'] cannot travel to another process"]


def test_a_lock_of_multiprocessing_says_what_the_standard_library_says():
    lock = klyng_mp.Lock()
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        reduction.ForkingPickler.dumps([lock])


@pytest.mark.parametrize("register", [reduction.register, multiprocessing.reduction.register, copyreg.pickle])
def test_reducers_registered_anywhere_are_used_in_both_tiers(register):
    register(Registered, lambda _: (str, ("reduced",)))
    try:
        plain = pickle.loads(reduction.ForkingPickler.dumps(Registered()))
        beside, _ = pickle.loads(reduction.ForkingPickler.dumps((Registered(), lambda: None)))
        assert (plain, beside) == ("reduced", "reduced")
    finally:
        multiprocessing.reduction.ForkingPickler._extra_reducers.pop(Registered, None)
        copyreg.dispatch_table.pop(Registered, None)


@pytest.mark.may_leave("threads", "fds", why="the standard library's resource sharer serves until the end")
def test_sockets_travel_beside_lambdas():
    with socket.socket() as sock:
        again, function = pickle.loads(reduction.ForkingPickler.dumps((sock, lambda: 3)))
        with again:
            assert again.fileno() != sock.fileno()
            assert function() == 3
    multiprocessing.resource_sharer.stop()


@pytest.mark.parametrize("beside", [None, lambda: 1])
def test_large_buffers_stay_apart(beside):
    array = np.arange(10_000)
    data, buffers = reduction.dumps_apart((array, beside))
    assert len(data) < 2000
    assert [view.nbytes for view in buffers] == [array.nbytes]
    again, _ = reduction.loads(data, [bytearray(view) for view in buffers])
    assert (again == array).all()
    assert again.flags.writeable


def test_an_array_in_a_pickle_stays_writable():
    again, _ = pickle.loads(reduction.ForkingPickler.dumps((np.arange(10_000), lambda: 1)))
    again[0] = 7


def test_dump_writes_what_dumps_returns(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        reduction.dump([1, 2], file)
    assert pickle.loads((tmp_path / "file").read_bytes()) == [1, 2]


def test_an_older_protocol_is_left_to_plain_pickle():
    assert bytes(reduction.ForkingPickler.dumps([1], 2)) == pickle.dumps([1], 2)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        reduction.ForkingPickler.dumps(lambda: 1, 2)
