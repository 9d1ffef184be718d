"""launch.control: how a cause is told to those who are not to blame."""

from __future__ import annotations

import pickle

import pytest

from klyng_mp.launch.control import CLOSE, LOG, UNRECEIVED, Cause


@pytest.mark.parametrize(
    ("cause", "phrase"),
    [
        (Cause("failed", 1, "ValueError: no", "Traceback…"), "failed (ValueError: no)"),
        (Cause("died", 2, "was killed by SIGKILL", "last words", -9), "was killed by SIGKILL"),
        (Cause("cancelled", None, "was cancelled"), "was cancelled"),
    ],
)
def test_a_cause_reads_as_the_end_of_a_sentence(cause, phrase):
    assert cause.phrase() == phrase


def test_a_cause_travels():
    cause = pickle.loads(pickle.dumps(Cause("died", 2, "exited with code 3", "words", 3)))
    assert (cause.kind, cause.rank, cause.detail, cause.text, cause.exitcode) == (
        "died",
        2,
        "exited with code 3",
        "words",
        3,
    )


def test_the_words_differ():
    assert len({CLOSE, LOG, UNRECEIVED}) == 3
