from __future__ import annotations

import pickle

import poolwork
import pytest

from klyng_mp.errors import CodecError
from klyng_mp.pooling.answers import MaybeEncodingError, RemoteTraceback, read_answer
from klyng_mp.pooling.tasks import CANNOT_TRAVEL, FAILURE, pack_failure, pack_refusal
from klyng_mp.reduction import codec


def answer(code, head, buffers=()):
    return read_answer(code, head, buffers, codec())


def test_a_result():
    assert answer(*codec().encode({"a": 1})) == (True, {"a": 1})


def test_an_error_has_the_workers_traceback_as_its_cause():
    code, head, buffers = codec().encode(ValueError(7))
    success, error = answer(code | FAILURE, pack_failure("Traceback ...", head), buffers)
    assert (success, repr(error)) == (False, "ValueError(7)")
    assert type(error.__cause__) is RemoteTraceback
    assert "Traceback ..." in str(error.__cause__)


@pytest.mark.parametrize("exception", [poolwork.TwoArguments(1, 2), "no exception"])
def test_an_error_that_cannot_be_rebuilt(exception):
    code, head, buffers = codec().encode(exception)
    success, error = answer(code | FAILURE, pack_failure("Traceback ...", head), buffers)
    assert not success
    assert isinstance(error, CodecError | TypeError)
    assert "Traceback ..." in str(error.__cause__)


def test_a_result_that_cannot_be_rebuilt():
    success, error = answer(*codec().encode(poolwork.Unrebuildable()))
    assert (success, type(error)) == (False, CodecError)
    assert answer(50, b"")[0] is False


def test_what_could_not_travel():
    success, error = answer(CANNOT_TRAVEL, pack_refusal(CodecError("no", path="a.b"), "<lock>"))
    assert (success, error.path, error.value) == (False, "a.b", "<lock>")
    assert str(error) == "Error sending result: '<lock>'. Reason: 'CodecError('no')'"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.path) == (MaybeEncodingError, str(error), "a.b")
    assert MaybeEncodingError(ValueError(1), 5).value == "5"
