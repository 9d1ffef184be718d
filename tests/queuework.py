"""What child processes do with queues in tests/test_queues.py; importable, so that each start method finds it."""

from __future__ import annotations

import os
import signal


def echo(requests, answers):
    """Answer until there is None."""
    while (thing := requests.get()) is not None:
        answers.put(thing)


def put_all(queue, things):
    """Put each."""
    for thing in things:
        queue.put(thing)


def put_numbers(queue, start, count):
    """Put (start, 0 to count - 1), with something large now and then."""
    for number in range(count):
        queue.put((start, number, b"x" * (100_000 if number % 50 == 7 else number % 300)))


def take_until_none(queue, results):
    """Take until there is None; then put what was taken."""
    taken = []
    while (thing := queue.get()) is not None:
        taken.append((thing[0], thing[1], len(thing[2])))
    results.put(taken)


def wait_in_get(queue, ready):
    """Say that it is about to wait, and wait for something that does not come."""
    ready.send(os.getpid())
    queue.get()


def put_for_ever(queue, thing):
    """Put and take the same thing again and again; put back what is another's."""
    while True:
        queue.put(thing)
        if (taken := queue.get()) != thing:
            queue.put(taken)


def put_and_die(queue, thing):
    """Put something and be killed before anything is flushed."""
    queue.put(thing)
    os.kill(os.getpid(), signal.SIGKILL)


def square(number):
    """Return the square, for executors."""
    return number * number
