from __future__ import annotations

import sys
import types

import poolwork
import pytest

from klyng_mp import reduction
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.reduction import codec


@pytest.fixture
def main(monkeypatch):
    """Put another module in the place of ``__main__``."""
    module = types.ModuleType("__main__")
    module.__file__ = "program.py"
    exec("def old(x): return x\ndef other(x): return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(reduction, "_receivers_lack_main", False)  # which other tests' Worlds may have changed
    return module


def is_by_reference(encoded):
    return b"old" in encoded[1] and encoded[0] == 9 and len(encoded[1]) < 60


def test_what_workers_have_goes_by_reference(main):
    encoder = Encoder(forks=True)
    assert encoder.main_by_reference
    assert is_by_reference(encoder.encode(main.old))
    assert encoder.is_known(main.old)


def test_what_is_younger_goes_by_value(main):
    encoder = Encoder(forks=True)
    exec("def young(x): return x + 1", main.__dict__)
    assert not encoder.main_by_reference
    assert not encoder.is_known(main.young)
    assert encoder.encode(main.young)[0] != 9
    assert is_by_reference(encoder.encode(main.old))


def test_what_was_defined_anew_goes_by_value(main):
    encoder = Encoder(forks=True)
    exec("def old(x): return x + 1", main.__dict__)
    assert not encoder.is_known(main.old)
    assert not is_by_reference(encoder.encode(main.old))


def test_workers_that_are_no_forks_have_what_the_file_has(main):
    encoder = Encoder(forks=False)
    assert is_by_reference(encoder.encode(main.old))
    del main.__file__  # a session
    encoder = Encoder(forks=False)
    assert not encoder.main_by_reference
    assert not is_by_reference(encoder.encode(main.old))


def test_what_has_no_name_finds_what_is_younger(main):
    encoder = Encoder(forks=True)
    exec("nameless = lambda: young()\ndef young(): return 1", main.__dict__)
    code, head, _ = encoder.encode(main.nameless)
    assert (code, b"young" in head) == (10, True)


def test_functions_of_modules_are_known():
    encoder = Encoder(forks=False)
    assert encoder.is_known(poolwork.square)
    assert not encoder.is_known(lambda: None)
    assert encoder.codec is codec(by_reference=True)
