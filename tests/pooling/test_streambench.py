"""The bench of a worker behind a stream, in Python and in C."""

from __future__ import annotations

import time

import pytest

from klyng_mp.pooling import tasks
from klyng_mp.pooling.streambench import FLUSH, RESULT, TASK, PureStreamBench, StreamBench
from klyng_mp.pooling.tasks import TASK_HEADER, Work
from klyng_mp.pooling.trays import HALF_BYTES, TRAY_BYTES, read_tray
from klyng_mp.reduction import codec

NEVER = 1 << 62
LONG = "long " * 20


class Case:
    def __init__(self, make):
        self.tray = bytearray(TRAY_BYTES)
        self.bench = make(self.tray)

    def add(self, *items, function=None, first=0):
        encoded = [codec().encode(item) for item in items]
        text = b"".join(TASK_HEADER.pack(len(head), len(buffers), code) + head for code, head, buffers in encoded)
        buffers = [buffer for _, _, own in encoded for buffer in own]
        self.bench.add(Work(5, first, len(items), None, True, text, 0, buffers, 0), tasks.CALL, function, "note")

    def do(self, until=NEVER):
        """Work as a worker would; return what was left to it."""
        left = []
        while (found := self.bench.work(until)) is not None:
            left.append(found[0])
            if found[0] == FLUSH:
                break
            kind, _context, _index, _note, *content = found
            value = codec().decode(*content) if kind == TASK else content[1]
            assert self.bench.put(*codec().encode(value)[:2])
        return left

    def content(self):
        return read_tray(bytes(self.tray))


def values(text):
    found = []
    offset = 0
    while offset < len(text):
        size, _, code = TASK_HEADER.unpack_from(text, offset)
        offset += TASK_HEADER.size
        found.append(codec().decode(code, text[offset : offset + size], []))
        offset += size
    return found


@pytest.fixture(params=sorted({PureStreamBench, StreamBench}, key=str), ids=lambda kind: kind.__module__)
def case(request):
    return Case(request.param)


def same(value):
    return value


def test_tasks_become_answers(case):
    case.add(1, "two", 3.0, function=same)
    assert case.bench.ahead == 3
    case.do()
    assert (case.bench.claims, case.bench.ahead, case.bench.held) == (3, 0, 3)
    first, count, text = case.bench.take()
    assert (first, count, values(text)) == (0, 3, [1, "two", 3.0])


def test_what_is_unusual_is_left_to_the_caller(case):
    case.add(LONG, {1: object}, function=same)
    assert TASK in case.do()
    assert case.bench.held == 2


def test_without_a_function_all_are_left_to_the_caller(case):
    case.add(1, 2)
    assert case.do() == [TASK, TASK]


def test_buffers_belong_to_their_tasks(case):
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(1 << 17, number, "u1") for number in range(2)]
    case.add(*arrays)
    for number in range(2):
        kind, _context, index, _note, code, head, buffers = case.bench.work(NEVER)
        assert (kind, index) == (TASK, number)
        assert int(codec().decode(code, head, buffers)[5]) == number


def test_the_tray_tells_what_has_not_left(case):
    case.add(*range(5), function=same)
    case.do()
    begun, ((first, count, text),) = case.content()
    assert (begun, first, count, values(text)) == (5, 0, 5, [0, 1, 2, 3, 4])
    assert case.bench.take()[:2] == (0, 5)
    assert case.bench.take() is None, "the other half is still leaving"
    case.add(5, function=same)
    case.do()
    assert [(first, values(text)) for first, _, text in case.content().answers] == [(0, [0, 1, 2, 3, 4]), (5, [5])]
    case.bench.gone()
    assert case.content().answers == [(5, 1, case.bench.take()[2])]
    case.bench.gone()
    assert case.content() == (6, [])
    assert case.bench.take() is None


def test_tasks_are_given_back_from_the_end(case):
    case.add(0, 1, 2, function=same)
    case.add(3, 4, function=same, first=3)
    assert case.bench.withdraw(3) == 3
    assert case.bench.ahead == 2
    case.add(12, 13, function=same, first=12)
    case.do()
    assert case.bench.withdraw(9) == 0
    assert values(case.bench.take()[2]) == [0, 1, 12, 13]


def test_answers_are_let_go_in_time(case):
    case.add(*range(3), function=same)
    assert FLUSH in case.do(time.monotonic_ns())
    assert case.bench.held == 1


def test_a_full_half_is_no_place_for_more(case):
    head = bytes(HALF_BYTES // 2 - TASK_HEADER.size)
    assert case.bench.put(2, head)
    assert case.bench.put(2, head)
    assert not case.bench.put(2, b"")
    case.bench.take()
    assert case.bench.put(2, b"")


def test_a_result_that_finds_no_room_is_left_to_the_caller(case):
    case.add(7, function=same)
    assert case.bench.put(2, bytes(HALF_BYTES - TASK_HEADER.size))
    found = case.bench.work(NEVER)
    assert found[0] in (TASK, RESULT)
    assert found[5 if found[0] == RESULT else 1] in (7, 5)


def test_what_leaves_by_itself_is_counted(case):
    assert case.bench.skip() == 0
    case.bench.put(2, b"")
    assert case.bench.take()[:2] == (1, 1)
