"""Packing and unpacking, both in this process."""

from __future__ import annotations

import pickle
import sys
import types

import numpy as np
import pytest

from klyng_mp.wire.namespace import NAMESPACES
from klyng_mp.wire.packing import APART_BYTES, Known, Packing, body_of, keep_large, unpack

PROGRAM = """
import os.path
import xml.dom
used = [1]
unused = open
number = 5
class Thing:
    pass
def helper(): return used
def function(x): return helper(), number, Thing, os.path, xml.dom, missing
"""


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(PROGRAM, vars(module))
    return module


def test_only_what_is_referred_to_travels(main):
    packing = Packing(main_by_reference=False)
    front, body, buffers = packing.pack(main.function, run=True)
    assert b"unused" not in front
    assert b"used" in front
    assert len(body) < 200
    assert buffers == []
    assert {thing.__name__ for thing in packing.items.values()} == {"function", "helper", "Thing"}


def test_what_is_known_travels_as_a_reference_only(main):
    first = Packing(main_by_reference=False)
    first.pack(main.function, run=True)
    known = Known()
    known.items = first.items
    known.names = {(NAMESPACES.main_id(), name) for name in vars(main)}
    front, body, _ = Packing(main_by_reference=False, known=known).pack([main.function, main.Thing()])
    assert front == b""
    back = pickle.loads(body)
    assert back[0] is main.function
    assert type(back[1]) is main.Thing


def test_at_home_everything_is_the_original(main):
    front, body, buffers = Packing(main_by_reference=False).pack((main.function, main.Thing()), run=True)
    before = dict(vars(main))
    (function, thing), known = unpack(front + body, buffers, run=True)
    assert function is main.function
    assert type(thing) is main.Thing
    assert dict(vars(main)) == before
    assert known.main is main


def test_by_reference_main_stays_where_it_is(main):
    front, body, _ = Packing(main_by_reference=True).pack([main.function, lambda: 1])
    assert front == b""
    assert pickle.loads(body)[0] is main.function


def test_large_buffers_go_apart_in_their_order():
    arrays = [np.arange(APART_BYTES), np.arange(4), np.ones(APART_BYTES)]
    _, body, buffers = Packing(main_by_reference=False).pack(lambda: arrays)
    assert [view.nbytes for view in buffers] == [arrays[0].nbytes, arrays[2].nbytes]
    back = pickle.loads(body, buffers=buffers)()
    assert all(np.array_equal(one, other) for one, other in zip(back, arrays, strict=True))


def test_keep_large():
    kept = []
    callback = keep_large(kept)
    assert callback(pickle.PickleBuffer(bytes(APART_BYTES - 1)))
    assert not callback(pickle.PickleBuffer(bytes(APART_BYTES)))
    assert [view.nbytes for view in kept] == [APART_BYTES]


def test_body_of(main):
    front, body, _ = Packing(main_by_reference=False).pack(main.function, run=True)
    assert bytes(body_of(front + body)) == body
    assert bytes(body_of(b"short")) == b""
