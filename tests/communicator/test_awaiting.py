"""Awaiting requests keeps its contract on every transport; and coroutines that are run to their end."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from contracts.awaiting import AwaitingContract

from klyng_mp import native
from klyng_mp.communicator.awaiting import complete
from klyng_mp.communicator.waiting import WaitingRoom
from klyng_mp.deadline import Deadline


class TestByMemory(AwaitingContract):
    transport = "memory"


class TestByStream(AwaitingContract):
    transport = "stream"


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
class TestByShm(AwaitingContract):
    transport = "shm"


def test_a_coroutine_is_run_and_all_else_is_a_result():
    async def main(value):
        await asyncio.sleep(0)
        return value

    assert complete(main(5)) == 5
    for result in (None, 5, main, [1], (one for one in ())):
        assert complete(result) is result


def test_what_a_coroutine_raises_is_raised():
    async def main():
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        complete(main())


def test_who_does_not_await_does_not_import_asyncio():
    code = (
        "import sys, klyng_mp as mp\n"
        "request = mp.comm().irecv(0)\n"
        "mp.send(5, 0)\n"
        "assert mp.init(request.wait) == 5\n"
        "print('asyncio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


class Chore:
    """A call that was started, whose last step is taken as soon as somebody looks."""

    due, over = True, False

    def advance(self):
        self.over = True
        return True


class Guest:
    """An event loop that awaits it."""

    def __init__(self, chore):
        self.chore, self.called, self.woken = chore, False, False

    def is_ready(self):
        return self.chore.over

    def wake(self):
        self.woken = True


def test_who_awaits_a_call_is_woken_when_a_thread_takes_its_last_step():
    room, chore = WaitingRoom(lambda: None), Chore()
    guest = Guest(chore)
    with room.lock:
        room.welcome(guest)
        room.chores.append(chore)
        assert room.wait(lambda: True, Deadline(None))
        assert guest.woken
        room.dismiss(guest)
        room.close()
