from __future__ import annotations

import queue

import pytest

from klyng_mp.pooling.recruiting import Recruiter

LIMIT = 30


@pytest.fixture
def make_recruiter():
    made = []

    def make(*args):
        made.append(Recruiter(*args))
        return made[-1]

    yield make
    for recruiter in made:
        recruiter.stop()


def test_each_place_is_filled_once(make_recruiter):
    filled = queue.SimpleQueue()
    recruiter = make_recruiter(lambda: True, filled.put, pytest.fail)
    recruiter.want(2)
    recruiter.want(1)
    assert sorted(filled.get(timeout=LIMIT) for _ in range(2)) == [1, 2]
    recruiter.want(2)
    assert filled.get(timeout=LIMIT) == 2


def test_it_waits_for_a_place(make_recruiter):
    answers, filled = iter([False, True]), queue.SimpleQueue()
    make_recruiter(lambda: next(answers), filled.put, pytest.fail).want(3)
    assert filled.get(timeout=LIMIT) == 3


def test_a_place_that_was_lost_meanwhile_is_tried_again(make_recruiter):
    places, tries = iter([True, False, True]), queue.SimpleQueue()

    def recruit(place):
        tries.put(place)
        return OSError("its host is lost") if tries.qsize() == 1 else None

    make_recruiter(lambda: next(places), recruit, pytest.fail).want(3)
    assert [tries.get(timeout=LIMIT)] == [3]


@pytest.mark.parametrize("has_place", [lambda: True, lambda: 1 / 0])
def test_what_can_never_be_is_said(make_recruiter, has_place):
    said = queue.SimpleQueue()
    recruiter = make_recruiter(has_place, lambda _place: ZeroDivisionError("no"), said.put)
    recruiter.want(1)
    assert isinstance(said.get(timeout=LIMIT), ZeroDivisionError)


def test_nobody_is_started_after_the_end(make_recruiter):
    recruiter = make_recruiter(lambda: True, pytest.fail, pytest.fail)
    recruiter.stop()
    recruiter.want(1)
    recruiter.stop()
