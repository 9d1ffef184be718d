"""The codec: typed heads, pickle with buffers apart, and errors that say where."""

from __future__ import annotations

import array
import collections
import contextlib
import enum
import functools
import gc
import math
import pickle
import struct
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klyng_mp.errors import CodecError
from klyng_mp.wire.codec import Codec, content_size
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import SYNCHRONOUS

LARGE = 4096


@pytest.fixture(params=[False, True], ids=["by value", "by reference"])
def codec(request):
    return Codec(main_by_reference=request.param)


def received(encoded):
    """Return a message as its receiver has it: in memory of its own."""
    code, head, buffers = encoded
    return code, bytes(head), [bytearray(buffer) for buffer in buffers]


def travelled(obj, codec=None):
    codec = codec or Codec(main_by_reference=False)
    return codec.decode(*received(codec.encode(obj)))


# Typed heads

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**4000), max_value=2**4000)
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=2 * LARGE)
    | st.binary(max_size=2 * LARGE).map(bytearray)
)


def same(one, other):
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other


@given(SCALARS)
def test_scalars_come_back_and_never_meet_pickle(obj):
    codec = Codec(main_by_reference=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("klyng_mp.wire.codec.pickle", None)
        assert same(travelled(obj, codec), obj)


@pytest.mark.parametrize(
    "obj",
    [
        0,
        -1,
        127,
        128,
        -128,
        -129,
        2**63,
        -(2**63),
        2**100_000,
        "",
        "\ud800",
        "\0",
        math.inf,
        -0.0,
        math.nan,
        b"",
        bytearray(),
    ],
    ids=lambda obj: repr(obj)[:20] if not isinstance(obj, int) or abs(obj) < 2**70 else "huge",
)
def test_edges_of_scalars(obj, codec):
    assert same(travelled(obj, codec), obj)


class Text(str):
    __slots__ = ()


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize("obj", [Text("x"), Number.ONE, np.float64(1.5), True], ids=repr)
def test_subclasses_keep_their_class(obj, codec):
    assert same(travelled(obj, codec), obj)


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("size", [LARGE - 1, LARGE, 1 << 20])
def test_large_bytes_go_apart(kind, size, codec):
    obj = kind(size)
    encoded = codec.encode(obj)
    _, head, buffers = encoded
    if size < LARGE:
        assert buffers == []
    else:
        assert head == b""
        assert [buffer.obj is obj for buffer in buffers] == [True]  # not copied
    assert same(codec.decode(*received(encoded)), obj)


def test_a_received_bytearray_is_the_object_itself(codec):
    code, head, buffers = received(codec.encode(bytearray(LARGE)))
    assert codec.decode(code, head, buffers) is buffers[0]


def test_a_senders_own_memory_is_not_handed_out(codec):
    obj = bytearray(LARGE)
    decoded = codec.decode(*codec.encode(obj))
    assert decoded == obj
    assert decoded is not obj


# Pickles

NESTED = st.recursive(
    SCALARS.filter(lambda obj: obj == obj),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text() | st.binary())
        | st.sets(st.integers())
    ),
    max_leaves=30,
)


@given(NESTED)
def test_nested_structures_come_back_equal(obj):
    assert travelled(obj) == obj


@given(NESTED)
def test_by_value_packing_differs_in_nothing(obj):
    """What the C pickler could do alone comes out the same from the second tier."""
    thing = [obj, lambda: obj]
    back = travelled(thing)
    assert back[0] == obj == back[1]()


@pytest.mark.parametrize(
    "obj",
    [
        np.arange(LARGE),
        np.arange(LARGE).reshape(64, 64).T,
        np.arange(2 * LARGE)[::2],
        np.arange(LARGE).reshape(64, 64)[:, ::2],
        np.arange(3),
        np.zeros((0, 3)),
        np.array("scalar"),
        np.array([{"a": 1}, None], dtype=object),
        np.zeros(LARGE, dtype=[("a", "i4"), ("b", "f8")]),
        array.array("d", range(LARGE)),
    ],
    ids=lambda obj: f"{type(obj).__name__}{getattr(obj, 'shape', '')}{getattr(obj, 'dtype', '')}"[:40],
)
def test_arrays(obj, codec):
    back = travelled(obj, codec)
    assert type(back) is type(obj)
    assert np.array_equal(back, obj)
    if isinstance(obj, np.ndarray):
        assert back.flags.writeable
        assert back.flags.f_contiguous == obj.flags.f_contiguous or not obj.flags.forc


def test_large_arrays_go_apart_and_are_not_copied(codec):
    arrays = [np.arange(LARGE), np.ones((100, 100), order="F"), np.arange(3)]
    _, head, buffers = codec.encode(arrays)
    assert len(head) < 1000
    assert [buffer.nbytes for buffer in buffers] == [arrays[0].nbytes, arrays[1].nbytes]
    assert np.shares_memory(np.frombuffer(buffers[0], dtype=arrays[0].dtype), arrays[0])


def test_a_received_array_uses_the_received_memory(codec):
    code, head, buffers = received(codec.encode(np.zeros(LARGE)))
    back = codec.decode(code, head, buffers)
    back[0] = 7
    assert struct.unpack_from("d", buffers[0]) == (7.0,)


def test_a_readonly_array_stays_readonly(codec):
    obj = np.zeros(LARGE)
    obj.flags.writeable = False
    assert not travelled(obj, codec).flags.writeable


def test_two_references_stay_one_object(codec):
    shared = [np.zeros(LARGE)]
    one, other = travelled((shared, shared), codec)
    assert one is other


# Beyond pickle


def test_lambdas_and_closures(codec):
    n = 3
    double, add = travelled([lambda x: 2 * x, {"add": lambda x: x + n}], codec)
    assert (double(4), add["add"](4)) == (8, 7)


def test_dill_is_asked_last():
    keys = {"a": 1, "b": 2}.keys()
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    assert list(travelled([keys, lambda: 5])[0]) == ["a", "b"]


def test_dill_is_not_imported_for_what_does_without():
    program = """
import sys
from klyng_mp.wire.codec import Codec, content_size
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import SYNCHRONOUS
class Thing: pass
codec = Codec(main_by_reference=False)
codec.decode(*codec.encode([Thing(), lambda: Thing, 1]))
codec.encode_run((lambda: Thing, (), {}))
assert "dill" not in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Errors

LOCK = threading.Lock()


class Logger:
    def __init__(self):
        self._lock = LOCK

    def log(self): ...


class Config:
    def __init__(self):
        self.logger = Logger()


class Job:
    def __init__(self):
        self.config = Config()


class Slotted:
    __slots__ = ("a", "lock")

    def __init__(self):
        self.a = 1
        self.lock = LOCK


class Refuses:
    def __reduce__(self):
        raise ValueError("not me")


class Stateful:
    def __getstate__(self):
        return {"inner": LOCK}


class Liar:
    __reduce__ = None

    @property
    def __class__(self):
        raise RuntimeError("no class")

    def __repr__(self):
        raise RuntimeError("no repr")


def closes_over(thing):
    return lambda: thing


def with_default(a, b=LOCK): ...


def outside_main():
    """Return functions of a namespace that nobody can import, one of them with a global that cannot travel."""
    namespace = {"lock": LOCK, "config": Config(), "__name__": "nowhere"}
    exec("def uses_lock(): return lock\ndef uses_config(): return config", namespace)
    return namespace["uses_lock"], namespace["uses_config"]


uses_lock, uses_config = outside_main()
circle = [1]
circle.append({"circle": circle, "logger": Logger()})

CULPRITS = [
    (Job(), "job.config.logger._lock"),
    ([1, {"x": Logger()}], "obj[1]['x']._lock"),
    ((1, (2, LOCK)), "obj[1][1]"),
    ({(1, LOCK): 2}, "obj.keys()"),
    (Slotted(), "slotted.lock"),
    (Stateful(), "stateful.inner"),
    (Refuses(), "refuses"),
    ([0, Refuses()], "obj[1]"),
    (circle, "obj[1]['logger']._lock"),
    (functools.partial(print, LOCK), "partial.args[0]"),
    (collections.deque([1, LOCK]), "deque[1]"),
    (collections.OrderedDict(a=[LOCK]), "ordereddict['a'][0]"),
    (collections.defaultdict(list, a=LOCK), "defaultdict['a']"),
    (ValueError("text", LOCK), "obj.args[1]"),
    (Logger().log, "obj.__self__._lock"),
    (closes_over(LOCK), "the variable 'thing' that function closes_over.<locals>.<lambda> closes over"),
    (closes_over(Job()), "thing.config.logger._lock in the variable 'thing' that"),
    (uses_lock, "the global 'lock' of function uses_lock"),
    (uses_config, "config.logger._lock in the global 'config' of function uses_config"),
    ((x for x in ()), "obj"),
    (sys.stdout, ""),
    (sys._getframe(), "obj"),
    (Liar(), ""),
    ([lambda: LOCK, Liar()], ""),
]


@pytest.mark.parametrize("number", range(len(CULPRITS)), ids=[path or "?" for _, path in CULPRITS])
def test_the_error_says_what_cannot_travel(number, codec):
    obj, path = CULPRITS[number]
    with pytest.raises(CodecError) as caught:
        codec.encode(obj)
    error = caught.value
    assert error.path.startswith(path)
    assert str(error).startswith(f"{error.path} cannot travel to another process: it is a")
    assert isinstance(error.__cause__, Exception)
    assert f"{type(error.__cause__).__name__}: " in str(error)


def test_a_default_that_cannot_travel():
    function = types_function(with_default)
    with pytest.raises(CodecError) as caught:
        travelled(function)
    assert caught.value.path == "the default of parameter 'b' of function with_default"


def types_function(function):
    """Return a copy that nobody can import."""
    return type(function)(function.__code__, {"__name__": "nowhere"}, function.__name__, function.__defaults__)


def test_an_error_keeps_nothing_alive(codec):
    class Thing:
        lock = LOCK

    thing = Thing()
    thing.lock = LOCK
    alive = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(CodecError):
            codec.encode([thing])
        del thing
        assert alive() is None
    finally:
        gc.enable()


def test_the_caller_names_the_parts(codec):
    with pytest.raises(CodecError) as caught:
        codec.encode_run((print, (1, 2, {"x": Logger()}), {}), names=("func", "args", "kwargs"))
    assert caught.value.path == "args[2]['x']._lock"
    with pytest.raises(CodecError) as caught:
        codec.encode_run((uses_lock, (), {}), names=("func", "args", "kwargs"))
    assert caught.value.path == "the global 'lock' of function uses_lock"
    with pytest.raises(CodecError) as caught:
        codec.encode([LOCK], name="result")
    assert caught.value.path == "result[0]"


@pytest.mark.parametrize("what", ["lock", "rlock", "file", "view"])
def test_dill_does_not_make_new_ones_of(what, codec):
    """Its locks would protect nothing, its files would be other files."""
    with open(__file__, "rb") as file, memoryview(b"") as view:
        thing = {"lock": LOCK, "rlock": threading.RLock(), "file": file, "view": view}[what]
        with pytest.raises(CodecError):
            codec.encode([{}.keys(), thing])


def test_too_deep(codec):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CodecError, match="nested too deeply") as caught:
        codec.encode(deep)
    assert isinstance(caught.value.__cause__, RecursionError)
    while deep:
        deep = deep.pop()  # nor could it be collected at once


class TwoArguments(Exception):
    def __init__(self, one, two):
        super().__init__(one)
        self.two = two


class CannotBeFilled:
    def __init__(self):
        self.a = 1

    def __setstate__(self, state):
        raise LookupError("nothing to be filled with")


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (TwoArguments(1, 2), "TwoArguments"),
        (CannotBeFilled(), "nothing to be filled with"),
        ([CannotBeFilled()], "CannotBeFilled"),
    ],
    ids=["constructor", "setstate", "inside"],
)
def test_what_cannot_be_rebuilt(obj, words, codec):
    encoded = received(codec.encode(obj))
    with pytest.raises(CodecError, match=words) as caught:
        codec.decode(*encoded)
    assert caught.value.__cause__ is not None
    with pytest.raises(CodecError, match=words):
        codec.decode_run(*encoded)


def test_a_missing_module_is_named(codec, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    encoded = received(codec.encode(only_here.Thing()))
    monkeypatch.delitem(sys.modules, "only_here")
    monkeypatch.undo()
    sys.modules.pop("only_here", None)
    with pytest.raises(CodecError, match="needs the module 'only_here'") as caught:
        codec.decode(*encoded)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@given(st.integers(0, 255), st.binary(max_size=200), st.lists(st.binary(max_size=20).map(bytearray), max_size=2))
def test_garbage_is_refused(code, head, buffers):
    codec = Codec(main_by_reference=False)
    with contextlib.suppress(CodecError):  # any other error would be a failure
        codec.decode(code, head if code != 9 else b"\x80\x05" + head[:0], buffers)


def test_an_unknown_kind_is_refused(codec):
    with pytest.raises(CodecError, match="kind 200"):
        codec.decode(200, b"", [])


def test_a_truncated_message_is_refused(codec):
    local = type("Local", (), {"__module__": "nowhere", "a": 1})
    code, head, buffers = received(codec.encode([local(), 1]))
    for end in range(len(head)):
        with pytest.raises(CodecError):
            codec.decode(code, head[:end], buffers)


def test_threads_may_encode_and_decode_at_once(codec):
    failures = []
    barrier = threading.Barrier(8)

    def work():
        local = type("Local", (), {"__module__": "nowhere"})
        barrier.wait()
        try:
            for _ in range(100):
                made, cls, function = travelled([local(), local, lambda: local], codec)
                assert type(made) is cls is function() is local
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("mark", [0, SYNCHRONOUS])
@pytest.mark.parametrize(
    "obj", [np.zeros(LARGE), bytes(10), bytes(LARGE), bytearray(LARGE)], ids=["array", "few", "many", "own"]
)
def test_the_size_of_what_is_in_a_message(codec, obj, mark):
    code, head, buffers = codec.encode(obj)
    message = Message(0, 0, 0, 0, code | mark, head, buffers)
    assert content_size(message) == memoryview(obj).nbytes


def test_an_object_is_as_large_as_it_is_encoded(codec):
    message = Message(0, 0, 0, 0, *codec.encode({"a": [1, 2]}))
    assert content_size(message) == message.nbytes > 0
