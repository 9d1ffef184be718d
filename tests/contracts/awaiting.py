"""What every communicator promises of requests that are awaited: subclass and name the transport."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.requests import waitall
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CodecError, DeadlineError, PeerLostError
from klyng_mp.wire.mailbox import PROC_NULL


class Unbuildable:
    """Travels, and cannot be rebuilt."""

    def __reduce__(self):
        return int, ("no number",)


def run(coroutine):
    """Run it in an event loop that complains of what is left behind; fail if it hangs."""
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT), debug=True)


async def begun(coroutine):
    """Return a task that has begun to wait."""
    task = asyncio.ensure_future(coroutine)
    while asyncio.isfuture(task) and not task.done() and getattr(task, "_fut_waiter", None) is None:
        await asyncio.sleep(0)
    return task


async def value_of(awaitable):
    return await awaitable


class AwaitingContract:
    """Subclass it, name it Test…, and set `transport`."""

    transport = ""

    @pytest.fixture
    def pair(self):
        with ranks(2, self.transport) as made:
            yield made
            for endpoint in made.endpoints:
                assert endpoint.room.guests == []
                assert endpoint.lock.waiting == 0

    @pytest.mark.parametrize(
        "obj", [None, "text", [1, {2}], bytes(300_000), bytearray(5_000_000)], ids=lambda o: str(type(o))
    )
    def test_every_kind_of_request(self, pair, obj):
        async def exchange(comm):
            other = 1 - comm.rank
            receive = comm.irecv(other, 1)
            assert await comm.isend(obj, other, 1) is None
            assert await receive == obj
            assert await receive is await receive
            requests = [comm.issend(obj, other, 2), comm.irecv(other, 2), comm.irecv(PROC_NULL)]
            assert await asyncio.gather(*requests) == [None, obj, None]
            return True

        assert pair.run(lambda comm: run(exchange(comm))) == [True, True]

    def test_others_run_meanwhile(self, pair):
        sender, receiver = pair.comms

        async def main():
            task = await begun(value_of(receiver.irecv(0)))
            assert not task.done()
            sender.send("x", 1)
            return await task

        assert run(main()) == "x"

    def test_a_sleeping_loop_is_woken_at_once(self, pair):
        sender, receiver = pair.comms
        for _ in range(5):
            asleep = Asleep()

            def send(asleep=asleep):
                assert asleep.event.wait(LIMIT)
                sender.send("x", 1)
                sender.endpoint.flush(Deadline(LIMIT))

            sending = Background(send)
            with asyncio.Runner(loop_factory=lambda asleep=asleep: asyncio.SelectorEventLoop(asleep)) as runner:
                assert runner.run(value_of(receiver.irecv(0))) == "x"
            sending.result()
            assert asleep.longest is None  # nothing but the message would have ended that sleep

    def test_a_loop_sleeps_again_after_a_thread_has_served_it(self, pair):
        sender, receiver = pair.comms

        async def main():
            last = await begun(value_of(receiver.irecv(0, "last")))
            for number in range(20):
                sender.send(number, 1, "sync")
                assert receiver.recv(0, "sync") == number  # in the loop's own thread, past the loop
                call = loop.run_in_executor(None, receiver.recv, 0, "thread")
                sender.send(number, 1, "thread")
                assert await call == number
                assert not last.done()
            Background(lambda: sender.send("x", 1, "last"))
            return await last

        loop = None

        async def outer():
            nonlocal loop
            loop = asyncio.get_running_loop()
            return await main()

        assert run(outer()) == "x"

    def test_many_at_once(self, pair):
        sender, receiver = pair.comms

        async def main():
            waits = asyncio.gather(*(receiver.irecv(0, tag) for tag in range(200)))
            await asyncio.sleep(0)
            for tag in reversed(range(200)):
                await sender.isend(tag, 1, tag)
            return await waits

        assert run(main()) == list(range(200))

    def test_one_request_in_several_tasks(self, pair):
        sender, receiver = pair.comms

        async def main():
            request = receiver.irecv(0)
            tasks = [await begun(value_of(request)) for _ in range(3)]
            sender.send(["x"], 1)
            first, *others = await asyncio.gather(*tasks)
            assert all(one is first for one in others)
            return first

        assert run(main()) == ["x"]

    def test_a_wait_that_is_given_up_leaves_the_request_as_it_was(self, pair):
        sender, receiver = pair.comms

        async def main():
            request = receiver.irecv(0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(value_of(request), 0.01)
            task = await begun(value_of(request))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not request.done
            assert not request.collected
            assert receiver.endpoint.room.guests == []
            sender.send("x", 1)
            return await request

        assert run(main()) == "x"

    def test_a_cancelled_request_is_none(self, pair):
        async def main():
            request = pair.comms[0].irecv(1)
            assert request.cancel()
            return await request

        assert run(main()) is None

    # -- threads and loops

    def test_threads_wait_beside_the_loop(self, pair):
        sender, receiver = pair.comms

        async def main():
            awaited = await begun(value_of(receiver.irecv(0, "loop")))
            sender.send("to the thread", 1, "thread")
            assert await asyncio.to_thread(call.result) == "to the thread"
            assert not awaited.done()
            sender.send("to the loop", 1, "loop")
            return await awaited

        there = when_waiting(receiver.endpoint)
        call = Background(lambda: receiver.recv(0, "thread"))
        assert there.wait(LIMIT)
        assert run(main()) == "to the loop"

    def test_a_thread_goes_on_when_the_loop_has_left(self, pair):
        sender, receiver = pair.comms
        there = when_waiting(receiver.endpoint)
        call = Background(lambda: receiver.recv(0, "thread"))
        assert there.wait(LIMIT)
        sender.send("loop", 1, "loop")
        assert run(value_of(receiver.irecv(0, "loop"))) == "loop"
        sender.send("thread", 1, "thread")
        assert call.result() == "thread"

    def test_a_loop_in_each_of_several_threads(self, pair):
        async def exchange(comm, tag):
            for number in range(50):
                if comm.rank:
                    await comm.issend((tag, number), 0, tag)
                    assert await comm.irecv(0, tag) == number
                else:
                    assert await comm.irecv(1, tag) == (tag, number)
                    await comm.issend(number, 1, tag)

        calls = [Background(lambda c=c, t=t: run(exchange(c, t))) for c in pair.comms for t in range(3)]
        for call in calls:
            call.result()

    def test_loops_threads_and_tasks_together(self, pair):
        async def awaiting(comm, tag):
            async def one(sub):
                other = 1 - comm.rank
                for number in range(20):
                    receive = comm.irecv(other, (tag * 10 + sub))
                    await comm.isend(number, other, tag * 10 + sub)
                    assert await receive == number

            await asyncio.gather(*(one(sub) for sub in range(4)))

        def blocking(comm, tag):
            for number in range(50):
                assert comm.sendrecv(number, 1 - comm.rank, f"{tag}", 1 - comm.rank, f"{tag}") == number

        calls = [Background(lambda c=c, t=t: run(awaiting(c, t))) for c in pair.comms for t in range(2)]
        calls += [Background(lambda c=c, t=t: blocking(c, t)) for c in pair.comms for t in range(2)]
        for call in calls:
            call.result()

    # -- errors

    def test_a_lost_peer_wakes_who_awaits(self, pair):
        sender, receiver = pair.comms
        sender.send("hello", 1)
        receiver.recv(0)

        async def main():
            tasks = [await begun(value_of(one)) for one in (receiver.irecv(0), receiver.issend("x", 0, 5))]
            sender.endpoint.close()
            for task in tasks:
                with pytest.raises(PeerLostError, match="rank 0 closed its connection; this rank was in i"):
                    await task

        run(main())

    def test_abort_wakes_who_awaits_until_resume(self, pair):
        sender, receiver = pair.comms

        async def main():
            request = receiver.irecv(0)
            task = await begun(value_of(request))
            receiver.endpoint.abort("raised ValueError", 0)
            for awaited in (task, request):
                with pytest.raises(PeerLostError, match="rank 0 raised ValueError; this rank was in irecv"):
                    await awaited
            receiver.endpoint.resume()
            sender.send("again", 1)
            return await request

        assert run(main()) == "again"

    def test_closing_wakes_who_awaits(self, pair):
        receiver = pair.comms[1]

        async def main():
            task = await begun(value_of(receiver.irecv(0)))
            receiver.endpoint.close()
            with pytest.raises(ClosedError):
                await task

        run(main())

    def test_what_cannot_be_rebuilt_is_raised_at_every_await(self, pair):
        sender, receiver = pair.comms

        async def main():
            request = receiver.irecv(0)
            sender.send(Unbuildable(), 1)
            for _ in range(2):
                with pytest.raises(CodecError):
                    await request

        run(main())

    def test_an_exception_that_escapes_a_callback_spoils_and_wakes(self, pair):
        receiver = pair.comms[1]
        reader, writer = os.pipe()
        seen = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
            task = await begun(value_of(receiver.irecv(0)))
            os.write(writer, b"x")
            with pytest.raises(ClosedError):
                await task

        receiver.endpoint.watch(reader, lambda _: 1 // 0)
        run(main())
        assert [type(error) for error in seen] == [ZeroDivisionError]
        for fd in (reader, writer):
            os.close(fd)

    # -- nothing is left

    def test_a_loop_that_is_closed_with_tasks_in_it_harms_nobody(self, pair):
        sender, receiver = pair.comms
        loop = asyncio.new_event_loop()
        request = receiver.irecv(0)
        task = loop.create_task(value_of(request))
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        assert len(receiver.endpoint.room.guests) == 1
        loop.close()
        sender.send("x", 1)
        assert request.wait(LIMIT) == "x"
        task._log_destroy_pending = False
        task.get_coro().close()
        assert receiver.endpoint.room.guests == []

    def test_nothing_is_registered_before_and_after(self, pair):
        sender, receiver = pair.comms

        async def main():
            before = len(os.listdir("/proc/self/fd"))
            selector = asyncio.get_running_loop()._selector
            assert len(selector.get_map()) == 1  # the loop's own
            task = await begun(value_of(receiver.irecv(0)))
            assert len(selector.get_map()) == 2
            sender.send("x", 1)
            await task
            assert len(selector.get_map()) == 1
            assert len(os.listdir("/proc/self/fd")) == before

        run(main())

    def test_blocking_calls_work_in_a_coroutine(self, pair):
        sender, receiver = pair.comms

        async def main():
            task = await begun(value_of(receiver.irecv(0, "await")))
            with pytest.raises(DeadlineError):
                receiver.recv(0, "block", timeout=0.01)
            sender.send(1, 1, "block")
            sender.send(2, 1, "await")
            return receiver.recv(0, "block"), waitall([receiver.isend("x", 1)], LIMIT), await task

        assert run(main()) == (1, [None], 2)


class Asleep(selectors.DefaultSelector):
    """A selector that tells when its loop is about to sleep for want of anything to do.

    Attributes:
        event: it is.
        longest: the time-out of that sleep, in seconds.
    """

    def __init__(self):

        super().__init__()
        self.event = threading.Event()
        self.longest = 0

    def select(self, timeout=None):
        if timeout is None or timeout > 0:
            self.longest = timeout
            self.event.set()
        return super().select(timeout)
