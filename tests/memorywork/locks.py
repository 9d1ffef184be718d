"""Scenarios of locks, and of those who wait on conditions and events."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from functools import partial

from memorywork.driver import each, scenario
from memorywork.matching import accept

import klyng_mp._core as core
from klyng_mp.errors import BrokenLockError

MUTEX, SEMAPHORE = 0, 1
WORD = 16  # where a lock's word is


@each(
    lock=partial(core.SemLock, SEMAPHORE, 1, 1, "a lock", False, True),
    semaphore=partial(core.SemLock, SEMAPHORE, 3, 5, "a semaphore", True, True),
    waiters=partial(core.Waiters, True),
    flag=partial(core.Flag, False),
)
def make_shared(action):
    got = yield action
    assert got.error is not None or type(got.value) is action.func


@each(
    lock=(core.SemLock(SEMAPHORE, 1, 1, "a lock", True, True), (SEMAPHORE, 1, "a lock")),
    waiters=(core.Waiters(True), ()),
    flag=(core.Flag(True), ()),
)
def rebuild_shared(case):
    made, rest = case
    handle = os.dup(made.handle)
    got = yield partial(type(made)._rebuild, handle, *rest)
    if got.error is None:
        assert got.value.handle == handle
    else:
        with suppress(OSError):  # it closes what it was given, unless the call did not come so far
            os.close(handle)


@each(plain={}, words={"block": False, "timeout": None})
def acquire(words):
    lock = core.SemLock(SEMAPHORE, 2, 3, "a semaphore", False, True)
    got = yield partial(lock.acquire, **words)
    assert lock._get_value() == 1 + (got.error is not None)
    assert lock._count() == (got.error is None)


@each(many=((1, 2, 3), {}), unknown=((), {"wait": 1}), no_flag=(("yes",), {}), no_time=((), {"timeout": "soon"}))
def acquire_refused(case):
    args, words = case
    lock = core.SemLock(SEMAPHORE, 1, 1, "a lock", False, True)
    got = yield partial(accept, TypeError, partial(lock.acquire, *args, **words))
    assert got.error is not None or got.value is TypeError
    assert lock._get_value() == 1


@scenario
def acquire_broken():
    lock = core.SemLock(SEMAPHORE, 1, 1, "a lock", True, True)
    lock.acquire()
    with mmap.mmap(lock.handle, 4096) as memory:
        (word,) = struct.unpack_from("Q", memory, WORD)
        struct.pack_into("Q", memory, WORD, word + (1 << 24))  # another start time
    got = yield partial(accept, BrokenLockError, lock.acquire)
    assert got.error is not None or got.value is BrokenLockError


@scenario
def wait_in_line():
    waiters = core.Waiters(False)
    got = yield partial(waiters.add, True)
    place = waiters.add(False) if got.error is not None else got.value
    assert waiters.wait(place, 0.0) is False
    assert waiters.wake() is True
    while waiters.wake():
        pass
    assert waiters.remove(place) is True
