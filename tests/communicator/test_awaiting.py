"""Awaiting requests keeps its contract on every transport; and coroutines that are run to their end."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from contracts.awaiting import AwaitingContract

from klyng_mp import native
from klyng_mp.communicator.awaiting import complete


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
