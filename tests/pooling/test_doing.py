from __future__ import annotations

import poolwork
import pytest

from klyng_mp.pooling import tasks
from klyng_mp.pooling.doing import Note, answer_to, call_function
from klyng_mp.pooling.streambench import ERROR, RESULT, TASK
from klyng_mp.pooling.tasks import CANNOT_TRAVEL, FAILURE, unpack_failure
from klyng_mp.reduction import codec


@pytest.mark.parametrize(
    ("how", "argument", "result"),
    [
        (tasks.CALL, 3, 3),
        (tasks.CALL_STAR, (3, 4), 7),
        (tasks.CALL_BOTH, ((3,), {"b": 5}), 8),
        (tasks.MAP, (1, 2), [1, 2]),
        (tasks.MAP_STAR, ((1, 2), (3, 4)), [3, 7]),
    ],
)
def test_how_functions_are_called(how, argument, result):
    assert call_function(how, poolwork.add, argument) == result


@pytest.fixture
def note():
    return Note(tasks.CALL, codec().encode(poolwork.square), is_plain=True)


def test_what_a_task_comes_to(note):
    context, index, *encoded = answer_to(codec(), TASK, 5, 7, note, *codec().encode(6))
    assert (context, index, codec().decode(*encoded)) == (5, 7, 36)


def test_a_result_is_encoded(note):
    assert codec().decode(*answer_to(codec(), RESULT, 5, 7, note, "argument", "result", None)[2:]) == "result"


def test_an_error_names_its_task(note):
    *_, code, head, buffers = answer_to(codec(), TASK, 5, 7, note, *codec().encode("text"))
    text, payload = unpack_failure(head)
    assert code & FAILURE
    assert "in task 7 of square, with 'text'" in text
    assert isinstance(codec().decode(code & ~FAILURE, payload, buffers), TypeError)


def test_an_error_that_was_raised_elsewhere_is_encoded(note):
    *_, code, head, buffers = answer_to(codec(), ERROR, 5, 7, note, "argument", KeyError(3), None)
    assert codec().decode(code & ~FAILURE, unpack_failure(head)[1], buffers).args == (3,)


def test_what_cannot_travel_is_said(note):
    assert answer_to(codec(), RESULT, 5, 7, note, "argument", (x for x in ()), None)[2] == CANNOT_TRAVEL


def test_a_function_may_be_called_again_and_again_or_not(note):
    assert note.shortcut(codec()) is poolwork.square
    assert Note(tasks.MAP, note.encoded, is_plain=True).shortcut(codec()) is None
    assert Note(tasks.CALL, note.encoded, is_plain=False).shortcut(codec()) is None
    assert Note(tasks.CALL, (0x7E, b"", []), is_plain=True).shortcut(codec()) is None
