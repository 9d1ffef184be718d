"""What cannot travel is named, also where it is a global of ``__main__``."""

from __future__ import annotations

import threading

import pytest
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


def path_of(function, *args, codec=by_value):
    with pytest.raises(CodecError) as caught:
        codec.encode_run((function, args, {}), names=("func", "args", "kwargs"))
    assert isinstance(caught.value.__cause__, TypeError)
    path = caught.value.path
    assert str(caught.value).startswith(f"{path} cannot travel to another process: it is a _thread.lock")
    return path


assert path_of(uses_lock) == "the global 'lock' of function uses_lock"
assert path_of(calls_one_that_uses_it) == "the global 'lock' of function uses_lock"
assert path_of(uses_config) == "config.logger._lock in the global 'config' of function uses_config"
assert path_of(takes_default) == "the default of parameter 'b' of function takes_default"
assert path_of(unrelated, 1, 2, {"x": Logger()}) == "args[2]['x']._lock"
assert path_of(WithLock().method) == "WithLock.lock"
assert (
    path_of(lambda job=Job(): job) == "job.config.logger._lock in the default of parameter 'job' of function <lambda>"
)
assert path_of(unrelated, Job(), codec=by_reference) == "args[0].config.logger._lock"
# Where the receiver runs the same program, these do not travel.
for function in (uses_lock, takes_default, WithLock().method):
    by_reference.encode_run((function, (), {}))
# Nor does what nobody refers to.
by_value.encode_run((lambda: Job().config, (), {}))


class Mandatory(Exception):
    def __init__(self, text, extra):
        super().__init__(text)


class Explodes:
    armed = True

    def __setstate__(self, state):
        raise LookupError("boom")


thing = Explodes()
thing.state = 1
for make, words in ((lambda: Mandatory("text", 1), "Mandatory"), (lambda: thing, "boom")):
    with Ring() as ring, pytest.raises(RuntimeError, match=f"CodecError: .*{words}"):
        ring.run(make, lambda value: value)

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

    with pytest.raises(RuntimeError, match="no limit"):
        ring.run(first, lambda value: type(value) is Picky)
    Picky.limit = 1
    assert ring.run(first, lambda value: type(value) is Picky)
