"""Who runs next: turns, alarms, naps, and chance."""

from __future__ import annotations

import time

import pytest
from greenlet import greenlet

from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.green.scheduler import Scheduler


class Stage:
    """A scheduler with ranks that do what a function says, and note when."""

    def __init__(self, body, count=3, schedule=None):
        self.scheduler = Scheduler(schedule)
        self.seen = []
        self.greenlets = [greenlet(lambda number=number: body(self, number)) for number in range(count)]
        self.scheduler.populate(self.greenlets, range(count))
        self.stuck = 0

    def over(self):
        return all(one.dead for one in self.greenlets) or self.stuck

    def be_stuck(self):
        self.stuck += 1

    def drive(self, deadline=NEVER):
        return self.scheduler.drive(self.over, deadline, self.be_stuck)


def test_they_take_turns_in_order():
    def body(stage, number):
        for step in range(3):
            stage.seen.append((step, number))
            stage.scheduler.give_way(number)

    stage = Stage(body)
    assert stage.drive()
    assert stage.seen == [(step, number) for step in range(3) for number in range(3)]
    assert not stage.stuck


def test_who_sleeps_is_woken_once():
    def body(stage, number):
        if number:
            stage.scheduler.wake(0)
            stage.scheduler.wake(0)
        else:
            stage.scheduler.sleep(number)
            stage.seen.append("woken")
            stage.scheduler.sleep(number)

    stage = Stage(body)
    stage.drive()
    assert stage.seen == ["woken"]
    assert stage.stuck == 1


def test_alarms_ring_in_their_order_unless_called_off():
    def body(stage, number):
        scheduler = stage.scheduler
        alarm = scheduler.set_alarm(number, time.monotonic() + (3 - number) * 0.02)
        if number == 1:
            scheduler.call_off(alarm)
            scheduler.call_off(alarm)
            return
        scheduler.sleep(number)
        stage.seen.append(number)
        scheduler.call_off(alarm)

    stage = Stage(body)
    began = time.monotonic()
    assert stage.drive()
    assert stage.seen == [2, 0]
    assert time.monotonic() - began >= 0.06


def test_alarms_that_were_called_off_do_not_pile_up():
    def body(stage, number):
        for _ in range(1000):
            stage.scheduler.call_off(stage.scheduler.set_alarm(number, time.monotonic() + 1000))
        stage.seen.append(len(stage.scheduler._alarms))

    stage = Stage(body, count=1)
    stage.drive()
    assert stage.seen[0] < 200


def test_the_hub_returns_at_its_deadline_and_goes_on():
    def body(stage, number):
        stage.scheduler.set_alarm(number, time.monotonic() + 0.2)
        stage.scheduler.sleep(number)
        stage.seen.append(number)

    stage = Stage(body, count=1)
    assert not stage.drive(Deadline(0.02))
    assert stage.seen == []
    assert stage.drive()
    assert stage.seen == [0]


def test_who_naps_in_vain_is_told():
    def body(stage, number):
        stage.seen.append(stage.scheduler.nap(number))
        stage.scheduler.sleep(number)

    stage = Stage(body)
    napping = {0, 1, 2}
    stage.scheduler.mind_nappers(lambda number: number in napping and not napping.discard(number))
    stage.drive()
    assert stage.seen == [False] * 3
    assert stage.stuck == 1


def test_ten_thousand_that_begin_do_not_nest():
    def body(stage, number):
        stage.scheduler.give_way(number)
        stage.seen.append(number)

    stage = Stage(body, count=10_000)
    assert stage.drive()
    assert stage.seen == list(range(10_000))


@pytest.mark.parametrize("schedule", [0, 1, 2])
def test_chance_is_repeated_by_its_seed(schedule):
    def body(stage, number):
        for _ in range(4):
            stage.seen.append(number)
            stage.scheduler.give_way(number)

    orders = []
    for _ in range(2):
        stage = Stage(body, schedule=schedule)
        stage.drive()
        orders.append(stage.seen)
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [0] * 4 + [1] * 4 + [2] * 4
    assert orders[0] != [0, 1, 2] * 4


def test_somebody_is_told_of_each_turn():
    class Around:
        def before(self, number):
            stage.seen.append(("before", number))

        def after(self, number):
            stage.seen.append(("after", number))

    def body(stage, number):
        stage.scheduler.give_way(number)

    stage = Stage(body, count=2)
    stage.scheduler.around = Around()
    stage.drive()
    assert stage.seen == [(when, number) for _ in range(2) for number in range(2) for when in ("before", "after")]
