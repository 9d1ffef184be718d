"""What the processes of tests/test_synchronize.py do.

Each takes a connection as its last argument, and says there how far it is.
"""

from __future__ import annotations

import os
import signal
import threading


def hold(lock, connection):
    """Take a lock, say so, and keep it until there is a word."""
    lock.acquire()
    connection.send("held")
    connection.recv()
    lock.release()


def hold_and_leave(lock, connection):
    """Take a lock, and end as a process ends."""
    connection.send(lock.acquire())


def take_and_tell(lock, connection):
    """Wait for a lock, and give it back; say what came of it."""
    connection.send("waiting")
    try:
        result = lock.acquire()
        lock.release()
    except Exception as error:
        result = error
    connection.send(result)


def wait_in(condition, timeout, connection):
    """Wait in a condition; say what came of it."""
    with condition:
        connection.send("waiting")
        result = condition.wait(timeout)
    connection.send(result)


def wait_for(event, connection):
    """Wait for an event, or in a barrier; say what came of it."""
    connection.send("waiting")
    try:
        connection.send(event.wait())
    except Exception as error:
        connection.send(type(error).__name__)


def release(lock, connection):
    """Release a lock that somebody else has taken."""
    lock.release()
    connection.send("released")


def interrupted(wait, connection):
    """Wait until the signal comes that ends it; say what it was."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection.send("waiting")
    try:
        wait()
    except KeyboardInterrupt:
        connection.send("interrupted")


def tell_of(lock, connection):
    """Say what a lock looks like from here."""
    made = lock._semlock
    connection.send((made._is_mine(), made._count(), made._is_zero(), lock.acquire(False)))


def count_up(lock, counter, times, threads):
    """Add to a counter in several threads, with a lock or without, giving others every chance to come between."""

    def add():
        for _ in range(times):
            if lock is not None:
                lock.acquire()
            seen = counter.value
            os.sched_yield()
            counter.value = seen + 1
            if lock is not None:
                lock.release()

    workers = [threading.Thread(target=add) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
