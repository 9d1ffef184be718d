"""Where queues live, and that nothing is lost or given twice, in whatever order messages arrive and processes end."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated import DRIVER, Processes

RANKS = st.integers(1, 3)
STEPS = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3)),
    st.tuples(st.just("get"), st.integers(0, 3)),
    st.tuples(st.just("deliver"), st.integers(0, 11)),
    st.tuples(st.just("deliver"), st.integers(0, 11)),
    st.tuples(st.just("deliver"), st.integers(0, 11)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("interrupt"), st.integers(0, 3)),
    st.tuples(st.just("kill"), RANKS),
    st.tuples(st.just("leave"), RANKS),
)


def play(steps, maxsize=0):
    """Let it all happen, then let the driver take what is left; return the processes."""
    made = Processes(4, maxsize)
    for step, number in steps:
        if step == "deliver":
            made.deliver(number)
        elif step == "kill" and number in made.alive:
            made.end(number, orderly=False)
        elif number in made.alive - made.leaving:
            if step == "leave":
                made.end(number, orderly=True)
            else:
                getattr(made, step)(number)
    made.settle()
    for number in sorted(made.alive):
        for _ in list(made.requests[number]):
            made.cancel(number)
            made.settle()
        assert not made.requests[number], "a request that was withdrawn was not answered"
    while True:
        before = len(made.got)
        made.get(DRIVER, block=0)
        made.settle()
        assert not made.requests[DRIVER]
        if len(made.got) == before:
            return made


def check(made):
    given_out = [item for _, item in made.got]
    assert len(set(given_out)) == len(given_out), "an item was given twice"
    assert not made.refused & set(given_out), "a put that was withdrawn was given"
    for number in made.alive:
        wanted = [item for item in made.put_by[number] if item not in made.refused]
        assert set(wanted) <= set(given_out) | made.lost, "an item was lost"
        for desk in made.desks:
            if desk.process[0] in made.alive:
                assert not desk._requests


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
@example([("put", 1), ("get", 2), ("deliver", 0), ("deliver", 0), ("kill", 2)])
def test_nothing_is_lost_or_given_twice(steps):
    made = play(steps)
    check(made)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60), st.integers(1, 2))
def test_nothing_is_lost_or_given_twice_where_there_is_a_bound(steps, maxsize):
    made = play(steps, maxsize)
    check(made)


def deliver_between(made, source, receiver):
    """Deliver the first message of one way."""
    made.deliver(sorted(way for way, messages in made.ways.items() if messages).index((source, receiver)))


def rest_of(made):
    """Let the driver take what is left, and return all that was got."""
    for _ in range(10):
        made.get(DRIVER, block=0)
        made.settle()
    return sorted(item for _, item in made.got)


def test_who_ends_with_its_first_item_has_the_queue_handed_back():
    """Else what was put by those who have ended would be gone with it."""
    made = Processes(3)
    for _ in range(3):
        made.put(1)
    made.settle()
    made.end(1, orderly=True)
    made.settle()
    request = made.get(2)
    while request.answer is None:
        assert made.deliver(0)
    made.end(2, orderly=True)
    made.settle()
    assert rest_of(made) == [(1, 0), (1, 1), (1, 2)]


def test_who_has_come_and_is_not_known_yet_is_answered_all_the_same():
    made = Processes(3)
    made.get(1)
    made.put(DRIVER)
    made.settle()
    made.desks[1].endpoint.incarnations[2] = 0  # the news of it are late
    for _ in range(2):
        made.put(2)
        made.get(2)
        made.settle()
    assert made.got == [(1, (0, 0)), (2, (2, 0)), (2, (2, 1))]
    made.desks[2].endpoint.incarnations[1] = 0
    made.put(2)
    made.get(2)
    made.settle()
    assert made.got[3:] == [(2, (2, 2))]
    made.desks[1].endpoint.incarnations[1] = 0  # nobody tells a process of itself
    made.put(1)
    made.get(1)
    assert made.got[4:] == [(1, (1, 0))]


def test_who_hands_a_queue_back_ends_when_that_has_arrived_and_not_before():
    """Else what the directory has passed on to it meanwhile would be lost."""
    made = Processes(4)
    made.put(DRIVER)
    made.get(1)
    made.settle()
    made.end(1, orderly=True)
    while 1 in made.alive:
        deliver_between(made, *next(way for way, messages in sorted(made.ways.items()) if messages))
    late = made.ways.pop((1, DRIVER))  # the news of its end
    made.put(DRIVER)
    made.put(DRIVER)
    made.get(2)
    made.settle()
    made.ways[1, DRIVER] = late
    deliver_between(made, 1, DRIVER)
    assert made.ways[DRIVER, 2]  # it is told of that
    made.end(2, orderly=True)
    request = made.get(3)
    deliver_between(made, 3, DRIVER)
    deliver_between(made, DRIVER, 2)
    made.settle()
    assert request.answer is not None
    assert [item for _, item in made.got] == [(0, 0), (0, 1), (0, 2)]
    assert 2 not in made.alive


def test_who_asks_again_for_what_is_on_its_way_gets_one_item():
    made = Processes(3)
    for reader in (1, 2):  # the queue lives with the first one, and the second one knows that
        made.get(reader)
        made.put(DRIVER)
        made.settle()
    made.put(DRIVER)
    made.settle()
    request = made.get(2)
    deliver_between(made, 2, 1)
    assert made.ways[1, 2]
    made.put(DRIVER)
    made.end(1, orderly=True)
    late = made.ways.pop((1, 2))
    made.settle()
    assert request.answer is None
    made.ways[1, 2] = late
    deliver_between(made, 1, 2)
    assert request.answer is not None
    made.end(2, orderly=True)
    made.settle()
    assert rest_of(made) == [(0, number) for number in range(4)]
