"""Waiting in an event loop: a request is awaited, and the loop's other tasks run meanwhile.

Layer: communicator; the only part that knows asyncio, which it imports when it is first needed.

A loop in which somebody awaits a request is a guest of the endpoint's waiting room: it watches the descriptor of the
room's poller, which is readable when something is due, and moves messages itself. So no thread is started, and the
descriptor shows whatever would wake a thread. Before a loop may sleep, the room has to be asked whether something is
due that does not show; then whoever sends to this rank rings its bell. Threads that wait in the room at the same time
do all of that for the loops, too, and wake those that have something to do.

Invariant: a loop is a guest for as long as it awaits a request, and nothing of the endpoint is registered in it before
and after.

Threads: each loop in its own, as many as there are; a request may be awaited in several.
"""

from __future__ import annotations

import math
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from klyng_mp.deadline import Deadline

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, TimerHandle

    from klyng_mp.communicator.lifecycle import Lifecycle

__all__ = ["complete", "wait_in_loop"]


class _Pending(Protocol):
    """What can be awaited; see `Request`."""

    @property
    def settled(self) -> bool: ...

    @property
    def endpoint(self) -> Lifecycle: ...

    def collect(self, deadline: Deadline) -> Any: ...


async def wait_in_loop(request: _Pending) -> Any:
    """Wait in the running event loop until a request is finished; return and raise what its ``wait`` does.

    When it is cancelled, the request goes on as if nobody had waited.
    """
    endpoint = request.endpoint
    if not request.settled:
        endpoint.progress()
    while not request.settled and not endpoint.room.stopped:
        await _until_news(endpoint, request)
    return request.collect(Deadline(0))


def complete(result: Any) -> Any:
    """Run a coroutine, in an event loop of its own, and return its result; return anything else as it is.

    Raises:
        KeyboardInterrupt: by Ctrl-C, once the coroutine has been cancelled.
        BaseException: whatever the coroutine raises.
    """
    if type(result) is not CoroutineType:
        return result
    import asyncio  # noqa: PLC0415 - slow to import, and only for those who use it

    return asyncio.run(result)


async def _until_news(endpoint: Lifecycle, request: _Pending) -> None:
    """Wait until the request is settled or the endpoint stopped, or may be."""
    from asyncio import get_running_loop  # noqa: PLC0415 - whoever comes here has imported it

    loop = get_running_loop()
    future = loop.create_future()
    with endpoint.lock:
        guest = _guest_for(endpoint, loop)
        guest.enter(request, future)
    try:
        await future
    finally:
        guest.leave(future)


def _guest_for(endpoint: Lifecycle, loop: AbstractEventLoop) -> _LoopGuest:
    """Return the guest that a loop is, or is to become; needs the lock."""
    for guest in endpoint.room.guests:
        if isinstance(guest, _LoopGuest) and guest.loop is loop:
            return guest
    return _LoopGuest(endpoint, loop)


class _LoopGuest:
    """An event loop in which requests of one endpoint are awaited; see `Guest`.

    Attributes:
        loop: its event loop; all but `is_ready`, `wake` and `enter` is called by its thread, without the lock.
        called: it is going to look, so it need not be woken.
    """

    def __init__(self, endpoint: Lifecycle, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.called = False
        self._endpoint = endpoint
        self._fd = -1  # of the poller; kept, since a poller that was closed has none
        self._awaited: dict[Future[None], _Pending] = {}
        self._timer: TimerHandle | None = None

    def enter(self, request: _Pending, future: Future[None]) -> None:
        """Set the future's result when the request is settled, until it leaves; needs the lock."""
        room = self._endpoint.room
        if room.stopped:  # and its poller may be closed
            future.set_result(None)
            return
        if not self._awaited:
            self._fd = room.poller.fileno()
            self.loop.add_reader(self._fd, self._look)
            room.welcome(self)
        self._awaited[future] = request
        self._look_soon()

    def leave(self, future: Future[None]) -> None:
        """Await the future's request no longer."""
        with self._endpoint.lock:
            if self._awaited.pop(future, None) is None or self._awaited:
                return
            if not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            self._endpoint.room.dismiss(self)

    def is_ready(self) -> bool:
        """Whether one of the requests is settled."""
        return any(_is_settled(request) for request in self._awaited.values())

    def wake(self) -> None:
        """Have the loop look, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: its tasks were left behind, and nobody is to be woken
            self.loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Move what can be moved, tell those whose request is settled, and let the loop sleep if nothing is due."""
        with self._endpoint.lock:
            self.called = True  # so as not to be woken by what it does itself
            try:
                if not self._endpoint.room.stopped:
                    self._endpoint.progress()
            finally:
                self.called = False
                if self._tell():
                    self._rest(self._endpoint.room.rest())

    def _rest(self, seconds: float) -> None:
        if seconds == 0:
            self._look_soon()
        elif seconds < math.inf:
            if self._timer is not None:
                self._timer.cancel()  # each look has one at most
            self._timer = self.loop.call_later(seconds, self._look)

    def _look_soon(self) -> None:
        """Look after the tasks that can run now: the loop does not sleep before."""
        if not self.called:
            self.called = True
            self.loop.call_soon(self._look)

    def _tell(self) -> bool:
        """Set the results of those futures whose requests are settled; return whether any is still waited for."""
        stopped, waiting = self._endpoint.room.stopped, False
        for future, request in self._awaited.items():
            if future.done():
                continue
            if stopped or _is_settled(request):
                future.set_result(None)
            else:
                waiting = True
        return waiting


def _is_settled(request: _Pending) -> bool:
    """Whether nothing is left to wait for; an exception is for the request's own task to meet."""
    try:
        return request.settled
    except Exception:  # noqa: BLE001
        return True
