from __future__ import annotations

import functools
import itertools
import math
import struct

import poolwork
import pytest

from klyng_mp.native import core
from klyng_mp.pooling import tasks
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.tasks import Batch, Function, pack_work, unpack_work
from klyng_mp.reduction import codec


def batch_of(*items):
    batch = Batch.single(None, 5, codec().encode(items[0]))
    for index, item in enumerate(items[1:], 6):
        batch.add(Batch.single(None, index, codec().encode(item)))
    return batch


def decoded(batch):
    found = []
    while batch.count:
        found.append(codec().decode(*batch.task()))
        batch = batch.split(1)[1]
    return found


def test_a_batch_can_be_split_anywhere():
    items = [1, "two", b"3" * 5000, [4.0], b"5" * 4096, None]
    for count in range(len(items) + 1):
        front, rest = batch_of(*items).split(count)
        assert (front.first, front.count, rest.first, rest.count) == (5, count, 5 + count, len(items) - count)
        assert decoded(front) + decoded(rest) == items
        assert front.size_bytes + rest.size_bytes == 5000 + 4096


def test_work_comes_back_as_it_was():
    function = Function.of(poolwork.square, Encoder(forks=True))
    head, buffers = pack_work(batch_of(b"x" * 5000, 7), 9, function)
    work = unpack_work(head, buffers)
    assert (work.context, work.first, work.number, work.is_plain) == (9, 5, 2, True)
    assert codec().decode(*work.function) is poolwork.square
    again = Batch(None, 5, 2, work.text[work.offset :], work.buffers[work.buffer :])
    assert decoded(again) == [b"x" * 5000, 7]
    assert unpack_work(*pack_work(batch_of(1), 9, None)).function is None


def test_the_buffers_of_a_function_come_before_those_of_tasks():
    large = b"f" * 6000
    function = Function.of(functools.partial(poolwork.add, bytearray(large)), Encoder(forks=True))
    work = unpack_work(*pack_work(batch_of(b"t" * 5000), 9, function))
    assert codec().decode(*work.function).args == (bytearray(large),)
    assert bytes(work.buffers[work.buffer]) == b"t" * 5000
    assert not work.is_plain


@pytest.mark.parametrize(
    ("function", "plain"),
    [
        (poolwork.square, True),
        (lambda x: x, True),
        (int, True),
        (math.sqrt, True),
        ([].append, False),
        (functools.partial(poolwork.add, 1), False),
        (poolwork.Unrebuildable().__reduce__, False),
    ],
)
def test_what_has_no_state_is_known(function, plain):
    if plain or not hasattr(function, "__self__"):
        assert Function.of(function, Encoder(forks=True)).is_plain == plain


def test_failures_and_refusals():
    text, payload = tasks.unpack_failure(tasks.pack_failure("Trace\ud800back", b"rest"))
    assert (text, payload) == ("Trace\\ud800back", b"rest")
    assert tasks.unpack_refusal(tasks.pack_refusal(ValueError(1), "value")) == ("ValueError(1)", "value", "")


def raising():
    yield 1
    raise KeyError(2)


@pytest.mark.skipif(core is None, reason="it is the core's")
class TestPackTasks:
    def test_everyday_items(self):
        items = [0, -5, 2**70, 1.5, "text", b"bytes", None, True, [1, (2, {"a": 3})]]
        text, count, how, rest = core.pack_tasks(iter(items[:2] + items[3:]), 100, 10**6, True)
        assert (count, how, rest) == (len(items) - 1, tasks.AT_END, None)
        assert decoded(Batch(None, 0, count, text)) == items[:2] + items[3:]
        assert core.pack_tasks(iter([2**70]), 100, 10**6, True) == (b"", 0, tasks.LONG_ITEM, 2**70)

    def test_its_limits(self):
        numbers = itertools.count()
        assert core.pack_tasks(numbers, 7, 10**6, True)[1:] == (7, tasks.MORE, None)
        assert next(numbers) == 7
        text, count, how, _ = core.pack_tasks(iter([b"x" * 1000] * 100), 100, 5000, True)
        assert (count, how, len(text)) == (5, tasks.MORE, 5 * 1008)

    def test_what_ends_it(self):
        lock = object()
        assert core.pack_tasks(iter([1, lock, 2]), 9, 999, True)[1:] == (1, tasks.LONG_ITEM, lock)
        _, count, how, error = core.pack_tasks(raising(), 9, 999, True)
        assert (count, how, repr(error)) == (1, tasks.ITERATOR_RAISED, "KeyError(2)")
        assert error.__traceback__ is not None
        with pytest.raises(TypeError, match="iterator"):
            core.pack_tasks([1], 9, 999, True)

    def test_it_writes_what_the_twin_writes(self):
        text, *_ = core.pack_tasks(iter(["abc"]), 1, 999, True)
        assert text == Batch.single(None, 0, codec().encode("abc")).text
        assert struct.unpack_from("<IHB", text) == (3, 0, codec().encode("abc")[0])


def test_the_pure_one_leaves_all_to_the_codec():
    assert tasks.pure_pack_tasks(iter([1, 2]), 9, 999, True) == (b"", 0, tasks.LONG_ITEM, 1)
    assert tasks.pure_pack_tasks(iter([]), 9, 999, True) == (b"", 0, tasks.AT_END, None)
    iterator = raising()
    next(iterator)
    assert tasks.pure_pack_tasks(iterator, 9, 999, True)[2] == tasks.ITERATOR_RAISED
