from __future__ import annotations

import pickle

import numpy as np
import pytest

import klyng_mp as mp
from klyng_mp.pooling.sharing import Shared, SharedValues, install_shared, shared
from klyng_mp.reduction import codec


def test_what_is_made_can_be_read():
    made = Shared.make({"array": np.arange(2000), "small": np.arange(3), "text": "abc", "bytes": b"x" * 10_000})
    values = made.read(codec())
    made.close()
    made.close()
    assert np.array_equal(values["array"], np.arange(2000))
    assert not values["array"].flags.writeable
    assert values["array"].ctypes.data % 64 == 0
    assert (values["text"], values["bytes"], list(values["small"])) == ("abc", b"x" * 10_000, [0, 1, 2])


def test_nothing_at_all_can_be_shared():
    made = Shared.make({})
    assert made.read(codec()) == {}
    made.close()


def test_it_travels_to_processes_that_are_started_only():
    made = Shared.make({"a": 1})
    with pytest.raises(RuntimeError, match="being started"):
        pickle.dumps(made)
    made.close()


def test_values_are_items_and_attributes():
    values = SharedValues({"a": 1, "b": 2})
    assert (values["a"], values.b, len(values), dict(values), repr(values)) == (
        1,
        2,
        2,
        {"a": 1, "b": 2},
        "<shared: a, b>",
    )
    with pytest.raises(AttributeError, match="'c'"):
        _ = values.c
    with pytest.raises(KeyError):
        values["c"]


def test_what_is_installed_is_read_once():
    with pytest.raises(mp.NothingSharedError):
        shared()
    install_shared(Shared.make({"a": [1]}))
    try:
        assert shared().a is shared()["a"]
    finally:
        install_shared(None)
    with pytest.raises(LookupError):
        shared()
