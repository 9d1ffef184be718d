"""What cannot travel is named, also where it is a global of ``__main__``."""

from __future__ import annotations

import threading

from ring import Ring

from klyng_mp.errors import CodecError
from klyng_mp.wire.codec import Codec

lock = threading.Lock()
by_value = Codec(main_by_reference=False)
by_reference = Codec(main_by_reference=True)


class Logger:
    def __init__(self):
        self._lock = threading.Lock()


class Config:
    def __init__(self):
        self.logger = Logger()


class Job:
    def __init__(self):
        self.config = Config()


class WithLock:
    lock = threading.Lock()

    def method(self):
        return self.lock


config = Config()


def uses_lock():
    return lock


def calls_one_that_uses_it():
    return uses_lock()


def uses_config():
    return config


def takes_default(a, b=lock):
    return a, b


def unrelated():
    return 1


def path_of(obj, codec=by_value):
    try:
        codec.encode_run(
            (obj, (1, 2, {"x": Logger()} if obj is unrelated else 3), {}), names=("func", "args", "kwargs")
        )
    except CodecError as error:
        assert isinstance(error.__cause__, TypeError), error.__cause__
        assert str(error).startswith(f"{error.path} cannot travel to another process: it is a _thread.lock")
        return error.path
    return None


assert path_of(uses_lock) == "the global 'lock' of function uses_lock"
assert path_of(calls_one_that_uses_it) == "the global 'lock' of function uses_lock"
assert path_of(uses_config) == "config.logger._lock in the global 'config' of function uses_config"
assert path_of(takes_default) == "the default of parameter 'b' of function takes_default"
assert path_of(unrelated) == "args[2]['x']._lock"
assert path_of(WithLock().method) == "WithLock.lock"
assert path_of(lambda: Job().config) is None
assert (
    path_of(lambda job=Job(): job) == "job.config.logger._lock in the default of parameter 'job' of function <lambda>"
)
# Where the receiver runs the same program, none of them travels.
assert path_of(uses_lock, by_reference) is None
assert path_of(takes_default, by_reference) is None
assert path_of(WithLock().method, by_reference) is None
assert path_of(unrelated, by_reference) == "args[2]['x']._lock"

try:
    by_value.encode(Job())
except CodecError as error:
    assert error.path == "job.config.logger._lock"  # noqa: PT017 - in a program there is no pytest


class Mandatory(Exception):
    def __init__(self, text, extra):
        super().__init__(text)


class Explodes:
    armed = True

    def __setstate__(self, state):
        raise LookupError("boom")


def raises(make, words):
    try:
        with Ring() as ring:
            ring.run(make, lambda value: value)
    except RuntimeError as error:
        assert "CodecError" in str(error), error
        assert words in str(error), error
    else:
        raise AssertionError("it was rebuilt")


raises(lambda: Mandatory("text", 1), "Mandatory")
thing = Explodes()
thing.state = 1
raises(lambda: thing, "boom")

# A rank that could not build something builds it when it can.
with Ring() as ring:

    class Picky:
        limit = None

        def __reduce__(self):
            return build_picky, ()

    def build_picky():
        if Picky.limit is None:
            raise ValueError("no limit")
        return Picky()

    picky = Picky()

    def first():
        return picky

    try:
        ring.run(first, lambda value: type(value) is Picky)
    except RuntimeError as error:
        assert "no limit" in str(error)  # noqa: PT017 - as above
    else:
        raise AssertionError("it was rebuilt")
    Picky.limit = 1
    assert ring.run(first, lambda value: type(value) is Picky)
