from __future__ import annotations

import time

import pytest

from klyng_mp.pooling.streambench import FLUSH, TASK, StreamBench
from klyng_mp.pooling.tasks import TASK_HEADER, Work
from klyng_mp.pooling.trays import HALF_BYTES, TRAY_BYTES, read_tray
from klyng_mp.reduction import codec

NEVER = 1 << 62


class Case:
    def __init__(self):
        self.tray = bytearray(TRAY_BYTES)
        self.bench = StreamBench(self.tray)

    def add(self, *items, first=0):
        encoded = [codec().encode(item) for item in items]
        text = b"".join(TASK_HEADER.pack(len(head), len(buffers), code) + head for code, head, buffers in encoded)
        buffers = [buffer for _, _, own in encoded for buffer in own]
        self.bench.add(Work(5, first, len(items), None, True, text, 0, buffers, 0), "note")

    def do(self, until=NEVER):
        """Work as a worker would; return what was left to it."""
        left = []
        while (found := self.bench.work(until)) is not None:
            left.append(found[0])
            if found[0] == FLUSH:
                break
            kind, _context, _index, _note, *content = found
            assert kind == TASK
            value = codec().decode(*content)
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


@pytest.fixture
def case():
    return Case()


def test_tasks_become_answers(case):
    case.add(1, "two", 3.0)
    assert case.bench.ahead == 3
    case.do()
    assert (case.bench.claims, case.bench.ahead, case.bench.held) == (3, 0, 3)
    first, count, text = case.bench.take()
    assert (first, count, values(text)) == (0, 3, [1, "two", 3.0])


def test_buffers_belong_to_their_tasks(case):
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(1 << 17, number, "u1") for number in range(2)]
    case.add(*arrays)
    for number in range(2):
        kind, _context, index, _note, code, head, buffers = case.bench.work(NEVER)
        assert (kind, index) == (TASK, number)
        assert int(codec().decode(code, head, buffers)[5]) == number


def test_the_tray_tells_what_has_not_left(case):
    case.add(*range(5))
    case.do()
    begun, ((first, count, text),) = case.content()
    assert (begun, first, count, values(text)) == (5, 0, 5, [0, 1, 2, 3, 4])
    assert case.bench.take()[:2] == (0, 5)
    assert case.bench.take() is None, "the other half is still leaving"
    case.add(5)
    case.do()
    assert [(first, values(text)) for first, _, text in case.content().answers] == [(0, [0, 1, 2, 3, 4]), (5, [5])]
    case.bench.gone()
    assert case.content().answers == [(5, 1, case.bench.take()[2])]
    case.bench.gone()
    assert case.content() == (6, [])
    assert case.bench.take() is None


def test_tasks_are_given_back_from_the_end(case):
    case.add(0, 1, 2)
    case.add(3, 4, first=3)
    assert case.bench.withdraw(3) == 3
    assert case.bench.ahead == 2
    case.add(12, 13, first=12)
    case.do()
    assert case.bench.withdraw(9) == 0
    assert values(case.bench.take()[2]) == [0, 1, 12, 13]


def test_answers_are_let_go_in_time(case):
    case.add(*range(3))
    assert FLUSH in case.do(time.monotonic_ns())
    assert case.bench.held == 1


def test_a_full_half_is_no_place_for_more(case):
    head = bytes(HALF_BYTES // 2 - TASK_HEADER.size)
    assert case.bench.put(2, head)
    assert case.bench.put(2, head)
    assert not case.bench.put(2, b"")
    case.bench.take()
    assert case.bench.put(2, b"")


def test_what_leaves_by_itself_is_counted(case):
    assert case.bench.skip() == 0
    case.bench.put(2, b"")
    assert case.bench.take()[:2] == (1, 1)
