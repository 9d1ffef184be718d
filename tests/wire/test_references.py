"""Which names a function's code refers to."""

from __future__ import annotations

import types

import pytest

from klyng_mp.wire.references import load_code, study


def code_of(text):
    code = compile(text, "<test>", "exec")
    return next(constant for constant in code.co_consts if isinstance(constant, types.CodeType))


MANY = "\n".join(f"    name{number}" for number in range(400))

CASES = [
    ("def f(): return x", {"x"}),
    ("def f(): return x(y)", {"x", "y"}),
    ("def f(a): return a.x", set()),
    ("def f(x): return x", set()),
    ("def f():\n x = 1\n return x", set()),
    ("def f():\n global x\n x = 1", set()),
    ("def f():\n global x\n x += 1", {"x"}),
    ("def f():\n global x\n del x", {"x"}),
    ("def f(): return lambda: x", {"x"}),
    ("def f(): return [x for _ in y]", {"x", "y"}),
    ("def f():\n class C(base):\n  a = x\n  def m(self): return y\n return C", {"base", "x", "y"}),
    ("def f(a=x): return a", set()),
    ("def f():\n import x\n return x", set()),
    ("def f():\n try: pass\n except x: pass", {"x"}),
    ("async def f(): await x", {"x"}),
    (f"def f():\n{MANY}\n    last", {"last", *(f"name{number}" for number in range(400))}),
]


@pytest.mark.parametrize(("text", "names"), CASES, ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_globals_that_are_referred_to(text, names):
    assert set(study(code_of(text)).globals) - {"__name__"} == names


def test_attributes_count_as_words():
    assert study(code_of("def f(): return a.b.c")).names >= {"a", "b", "c"}


def test_code_comes_back():
    code = code_of("def f(x):\n 'doc'\n return [x, lambda: x]")
    facts = study(code)
    assert load_code(facts.packed) == code
    assert load_code(facts.packed) is load_code(bytes(bytearray(facts.packed)))
    assert study(code) is facts


def test_what_is_no_code_is_refused():
    with pytest.raises(TypeError, match="code of a function"):
        load_code(b"N")  # marshal's None


def test_the_caches_are_bounded(monkeypatch):
    monkeypatch.setattr("klyng_mp.wire.references._CACHE_LIMIT", 10)
    monkeypatch.setattr("klyng_mp.wire.references._studied", studied := {})
    monkeypatch.setattr("klyng_mp.wire.references._loaded", loaded := {})
    for number in range(50):
        facts = study(code_of(f"def f(): return {number}, x{number}"))
        assert facts.globals == (f"x{number}",)
        load_code(facts.packed)
    assert len(studied) <= 10
    assert len(loaded) <= 10
