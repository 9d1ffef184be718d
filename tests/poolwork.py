"""What workers of a Pool do in the tests."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import threading
import time

import klyng_mp as mp

settings = {}


def square(x):
    return x * x


def add(a, b=0):
    return a + b


def same(x):
    return x


def add_one(array):
    array += 1
    return array


_kept = []


def keep(array):
    _kept.append(array)
    return array


def add_one_to_all_that_is_kept():
    for array in _kept:
        array[:] += 1


def sums_of_all_that_is_kept():
    return [int(array.sum()) for array in _kept]


def pid(_=None):
    return os.getpid()


def nap(seconds):
    """A task that takes its time, which is what some tests are about."""
    threading.Event().wait(seconds)
    return seconds


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def kill_itself_at(pair):
    index, fatal = pair
    if index == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def die_the_first_time(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "done"
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def leave(code):
    os._exit(code)


def crash(_):
    faulthandler.disable()  # this one is meant
    ctypes.string_at(0)


def set_up(value):
    settings["value"] = value


def what_was_set_up(_=None):
    return settings.get("value")


def refuse_to_start():
    raise RuntimeError("this worker does not want to")


def leave_at_once():
    os._exit(3)


def fail(x):
    raise ValueError(x)


class TwoArguments(Exception):
    """Cannot be unpickled: its class wants more than what is in ``args``."""

    def __init__(self, first, second):
        super().__init__(first)
        self.second = second


def fail_unrebuildably(_):
    raise TwoArguments(1, 2)


class Unrebuildable:
    def __reduce__(self):
        return int, ("no number",)


def return_unrebuildable(_):
    return Unrebuildable()


def return_lock(_):
    return {"inside": [threading.Lock()]}


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("stays here")


def pool_of_its_own(x):
    with mp.get_context("fork").Pool(2) as pool:
        return pool.map(square, [x, x + 1])


def read_shared(name):
    value = mp.shared()[name]
    return value, mp.shared().keys() == {"numbers", "text"}, getattr(mp.shared(), name) is value


def shared_sum(_):
    array = mp.shared().array
    return float(array.sum()), array.flags.writeable


def is_shared_here(_):
    try:
        mp.shared()
    except LookupError:
        return False
    return True


def blas_variable(name):
    return os.environ.get(name)


def wait_for_file(path):
    while not os.path.exists(path):
        os.sched_yield()
    return "seen"


def pid_of_slow(slow, seconds, _index):
    """Return this process, after a while if it is the slow one."""
    nap(seconds if os.getpid() == slow else seconds / 10)
    return os.getpid()


def make_file(path):
    """Make a file that is not there yet: who does this twice fails."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    return path


def read_file(path):
    with open(path) as file:
        return file.read()


def rank_after(seconds):
    nap(seconds)
    return mp.comm().rank


def divide(a, b):
    return a / b


def square_after(pair):
    number, seconds = pair
    nap(seconds)
    return number * number
