"""CPython's own tests of locks, against the classes of klyng_mp, for the start method that is the default."""

from __future__ import annotations

import multiprocessing
import unittest

from test import _test_multiprocessing as theirs

import klyng_mp

MADE = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event", "Barrier")


class Made:
    """What the tests take from multiprocessing, from klyng_mp instead."""

    TYPE = "processes"
    Process = klyng_mp.Process
    Value = property(lambda _self: multiprocessing.Value)
    connection = multiprocessing.connection
    Pipe = staticmethod(klyng_mp.Pipe)
    Queue = property(lambda _self: multiprocessing.Queue)
    current_process = staticmethod(klyng_mp.current_process)
    parent_process = staticmethod(klyng_mp.parent_process)
    active_children = staticmethod(klyng_mp.active_children)
    Lock, RLock = staticmethod(klyng_mp.Lock), staticmethod(klyng_mp.RLock)
    Semaphore, BoundedSemaphore = staticmethod(klyng_mp.Semaphore), staticmethod(klyng_mp.BoundedSemaphore)
    Condition, Event, Barrier = (staticmethod(getattr(klyng_mp, name)) for name in MADE[4:])

    def setUp(self):
        super().setUp()
        for name in MADE:
            made = getattr(self, name)(*([1] if name == "Barrier" else []))
            assert type(made).__module__ == "klyng_mp.synchronize"


class TestLock(Made, theirs._TestLock, unittest.TestCase):
    pass


class TestSemaphore(Made, theirs._TestSemaphore, unittest.TestCase):
    pass


class TestCondition(Made, theirs._TestCondition, unittest.TestCase, theirs.ProcessesMixin):
    pass


class TestEvent(Made, theirs._TestEvent, unittest.TestCase):
    pass


class TestBarrier(Made, theirs._TestBarrier, unittest.TestCase):
    pass
