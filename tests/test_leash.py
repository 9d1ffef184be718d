"""leash: a process ends with the holder of its leash, whatever it does, and whoever was forked meanwhile."""

from __future__ import annotations

import os
import select
import signal

import pytest

from klyng_mp import leash


def forked(function):
    """Return the pid of a child that calls the function."""
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def ending(pid, seconds):
    """Return how a child has ended, or None."""
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.select([pidfd], [], [], seconds)[0]
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if ended else None


def compute():
    while True:
        pass


@pytest.mark.parametrize("work", [compute, signal.pause])
def test_the_end_of_the_holder_kills(work, time_limit):
    end, held = os.pipe()
    ready, tell = os.pipe()

    def child():
        os.close(held)
        leash.put_on_leash(end, os.getpid())
        os.write(tell, b"!")
        work()

    pid = forked(child)
    os.read(ready, 1)
    assert ending(pid, 0) is None
    os.close(held)
    assert ending(pid, time_limit(5)) == -signal.SIGKILL
    for fd in (end, ready, tell):
        os.close(fd)


def test_a_holder_that_is_gone_already_kills_too(time_limit):
    end, held = os.pipe()
    os.close(held)
    pid = forked(lambda: leash.put_on_leash(end, os.getpid()) or signal.pause())
    assert ending(pid, time_limit(5)) == -signal.SIGKILL
    os.close(end)


def test_a_group_can_be_put_on_a_leash(time_limit):
    end, held = os.pipe()
    ready, tell = os.pipe()

    def leader():
        os.close(held)
        os.setsid()
        leash.put_on_leash(end, -os.getpgrp())
        other = forked(compute)
        os.write(tell, other.to_bytes(4, "little"))
        os.waitpid(other, 0)
        signal.pause()

    pid = forked(leader)
    other = os.pidfd_open(int.from_bytes(os.read(ready, 4), "little"))
    os.close(held)
    assert ending(pid, time_limit(5)) == -signal.SIGKILL
    assert select.select([other], [], [], time_limit(5))[0]
    for fd in (end, ready, tell, other):
        os.close(fd)
