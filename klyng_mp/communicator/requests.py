"""Requests: what ``isend`` and ``irecv`` return, and the functions that wait for several; and ``Status``.

Layer: communicator.

Invariants: a request is waited for and tested by any thread, any number of times; after an error of
``wait`` other than its own failure it goes on as if nobody had waited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.awaiting import wait_in_loop
from klyng_mp.deadline import Deadline
from klyng_mp.wire.codec import content_size
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from klyng_mp.communicator.endpoint import Endpoint, Handover
    from klyng_mp.transports.contract import Ticket
    from klyng_mp.wire.frames import Message
    from klyng_mp.wire.mailbox import Receive

__all__ = [
    "HandoverRequest",
    "NullRequest",
    "ReceiveRequest",
    "Request",
    "SendRequest",
    "SentRequest",
    "Status",
    "testall",
    "waitall",
    "waitany",
    "waitsome",
]


class Status:
    """What is known of a message besides its object; give one to ``recv``, or get one from ``probe``.

    Attributes:
        source: the rank that sent it; ANY_SOURCE before there was a message, PROC_NULL if that is where it is from.
        tag: its tag.
        count: its size in bytes; of an array or bytes that of its elements, of another object as encoded.
    """

    __slots__ = ("count", "source", "tag")

    def __init__(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, count: int = 0) -> None:
        self.source = source
        self.tag = tag
        self.count = count

    def describe(self, message: Message, source: int) -> Status:
        """Take on what is known of a message that the rank ``source`` sent; return itself."""
        self.source = source
        self.tag = message.tag
        self.count = content_size(message)
        return self

    def describe_nothing(self) -> Status:
        """Take on what is known of what comes from PROC_NULL; return itself."""
        self.source, self.tag, self.count = PROC_NULL, ANY_TAG, 0
        return self

    def __repr__(self) -> str:
        return f"Status(source={self.source}, tag={self.tag!r}, count={self.count})"


class Request:
    """Something that was started and may not be finished yet: `wait` for it, or in a coroutine ``await`` it.

    An ``await`` returns and raises what `wait` does, and lets other tasks of its event loop run meanwhile. One that is
    cancelled, or given up by ``asyncio.wait_for``, leaves the request as it was.

    Attributes:
        cancelled: `cancel` took it back; `wait` then returns None.
    """

    __slots__ = ("_collected", "_doing", "_endpoint", "cancelled")

    def __init__(self, endpoint: Endpoint, doing: str) -> None:
        self._endpoint = endpoint
        self._doing = doing
        self._collected = False
        self.cancelled = False

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "done" if self.done else "under way"
        return f"<Request {self._doing}: {state}>"

    def __await__(self) -> Generator[Any, None, Any]:
        return wait_in_loop(self).__await__()

    @property
    def done(self) -> bool:
        """Whether it is finished, as far as this rank has looked; `test` looks again."""
        raise NotImplementedError

    @property
    def settled(self) -> bool:
        """Whether `wait` would return or raise at once."""
        raise NotImplementedError

    @property
    def collected(self) -> bool:
        """Whether `wait`, `waitany` or `waitsome` has handed out the outcome."""
        return self._collected

    @property
    def endpoint(self) -> Endpoint:
        """What it belongs to."""
        return self._endpoint

    @property
    def needed(self) -> int:
        """The endpoint's number of the peer that it cannot be finished without, or ANY_SOURCE."""
        return ANY_SOURCE

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until it is finished.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            What was received, the same object at every call; None for a send, and if it was cancelled.

        Raises:
            DeadlineError: it is not finished; it goes on.
            PeerLostError: it never will be.
            CodecError: what was received cannot be rebuilt here; it is gone.
        """
        return self.collect(Deadline(timeout))

    def collect(self, deadline: Deadline) -> Any:
        """Wait as `wait` does, with a deadline that is shared with others."""
        self._collected = self._collected or self.settled
        if self.cancelled:
            return None
        outcome = self._finish(deadline)
        self._collected = True
        return outcome

    def test(self) -> bool:
        """Look whether it is finished, without waiting; then `wait` returns at once.

        Raises:
            PeerLostError: it never will be.
        """
        if self.settled:
            self._collected = True
        else:
            self._endpoint.progress()
        if self.settled and not self.done:
            self.wait(0)
        return self.done

    def cancel(self) -> bool:
        """Take it back if nothing has happened yet; return False, and change nothing, if something has.

        A receive can be taken back until a message matched it, a send until a part of it has left.
        """
        if not self.cancelled and not self.done and self._withdraw():
            self.cancelled = True
        return self.cancelled

    def _finish(self, deadline: Deadline) -> Any:
        raise NotImplementedError

    def _withdraw(self) -> bool:
        raise NotImplementedError


class SendRequest(Request):
    """A message that was sent with ``isend``; its object has been copied."""

    __slots__ = ("_message", "_peer", "_ticket")

    def __init__(self, endpoint: Endpoint, doing: str, peer: int, message: Message, ticket: Ticket) -> None:
        super().__init__(endpoint, doing)
        self._peer = peer
        self._message = message
        self._ticket = ticket

    @property
    def needed(self) -> int:
        """See `Request.needed`."""
        return self._peer

    @property
    def done(self) -> bool:
        """See `Request.done`."""
        return self.cancelled or self._ticket.done

    @property
    def settled(self) -> bool:
        """See `Request.settled`."""
        return self.done or self._endpoint.is_sent(self._ticket, self._peer)

    def _finish(self, deadline: Deadline) -> None:
        if not self._ticket.done:
            self._endpoint.wait_sent(self._ticket, self._peer, deadline=deadline, doing=self._doing)

    def _withdraw(self) -> bool:
        return self._endpoint.withdraw_send(self._ticket, self._peer, self._message)


class SentRequest(Request):
    """A send that was over when it was started."""

    __slots__ = ("_dest", "_tag")

    done = settled = True

    def __init__(self, endpoint: Endpoint, dest: int, tag: int | str) -> None:  # thousands are made at once
        self._endpoint = endpoint
        self._dest = dest
        self._tag = tag
        self._collected = self.cancelled = False

    def __repr__(self) -> str:
        return f"<Request isend(dest={self._dest}, tag={self._tag!r}): done>"

    def collect(self, deadline: Deadline) -> None:
        """See `Request.collect`."""
        del deadline
        self._collected = True


class NullRequest(Request):
    """A send to PROC_NULL, or a receive from it: over when it was started."""

    __slots__ = ()

    done = settled = True

    def _finish(self, deadline: Deadline) -> None:
        del deadline


class HandoverRequest(Request):
    """A message that was sent with ``issend``; its object has been copied."""

    __slots__ = ("_handover",)

    def __init__(self, endpoint: Endpoint, doing: str, handover: Handover) -> None:
        super().__init__(endpoint, doing)
        self._handover = handover

    @property
    def done(self) -> bool:
        """See `Request.done`."""
        return self.cancelled or self._handover.matched

    @property
    def settled(self) -> bool:
        """See `Request.settled`."""
        return self.done or self._endpoint.is_matched(self._handover)

    def _finish(self, deadline: Deadline) -> None:
        if not self._handover.matched:
            self._endpoint.wait_matched(self._handover, deadline=deadline, doing=self._doing)

    def _withdraw(self) -> bool:
        return self._endpoint.withdraw_handover(self._handover)


class ReceiveRequest(Request):
    """A receive that was posted with ``irecv``."""

    __slots__ = ("_among", "_decode", "_error", "_receive", "_result", "_unpacked")

    def __init__(
        self,
        endpoint: Endpoint,
        doing: str,
        receive: Receive,
        decode: Callable[[Message], Any],
        among: Sequence[int],
    ) -> None:
        super().__init__(endpoint, doing)
        self._receive = receive
        self._decode = decode
        self._among = among
        self._unpacked = False
        self._result: Any = None
        self._error: Exception | None = None

    @property
    def needed(self) -> int:
        """See `Request.needed`."""
        return self._receive.source

    @property
    def done(self) -> bool:
        """See `Request.done`."""
        return self.cancelled or self._receive.message is not None

    @property
    def settled(self) -> bool:
        """See `Request.settled`."""
        return self.done or self._endpoint.is_received(self._receive, self._among)

    def _finish(self, deadline: Deadline) -> Any:
        message = self._endpoint.wait_received(self._receive, deadline=deadline, doing=self._doing, among=self._among)
        with self._endpoint.lock:  # so that two threads that wait for it get the same object
            if not self._unpacked:
                self._unpacked = True
                try:
                    self._result = self._decode(message)
                except Exception as error:
                    self._error = error
                    raise
            if self._error is not None:
                raise self._error
            return self._result

    def _withdraw(self) -> bool:
        return self._endpoint.withdraw_receive(self._receive)


def waitall(requests: Sequence[Request], timeout: float | None = None) -> list[Any]:
    """Wait until all are finished, or one has failed.

    Returns:
        What each one's ``wait`` returns, in their order.

    Raises:
        DeadlineError: not all are finished; they go on, and those that are finished keep their outcome.
        PeerLostError: one of them never will be; the others go on.
    """
    deadline = Deadline(timeout)
    if under_way := [one for one in requests if not one.done]:

        def ready() -> bool:
            return any(one.settled and not one.done for one in under_way) or all(one.done for one in under_way)

        doing = f"waitall of {len(requests)} requests"
        under_way[0].endpoint.wait(ready, deadline, doing, lambda: _needed_by(under_way))
        for one in [one for one in under_way if one.settled and not one.done]:
            one.collect(deadline)
    return [one.collect(deadline) for one in requests]


def _needed_by(requests: Sequence[Request]) -> set[int]:
    return {one.needed for one in requests if not one.done} - {ANY_SOURCE}


def waitany(requests: Sequence[Request], timeout: float | None = None) -> tuple[int, Any]:
    """Wait until one is finished whose outcome was not handed out yet.

    Returns:
        Its index and what its ``wait`` returns. Calling again gives the next one.

    Raises:
        ValueError: the outcomes of all were handed out.
        DeadlineError: none is finished; all go on.
        PeerLostError: the first that is settled never will be finished; it counts as handed out.
    """
    deadline = Deadline(timeout)
    _wait_some(requests, deadline, "waitany")
    index = next(index for index, one in enumerate(requests) if one.settled and not one.collected)
    return index, requests[index].collect(deadline)


def waitsome(requests: Sequence[Request], timeout: float | None = None) -> list[tuple[int, Any]]:
    """Wait until at least one is finished whose outcome was not handed out yet; return all such.

    Returns:
        Pairs of an index and what that request's ``wait`` returns.

    Raises:
        ValueError, DeadlineError, PeerLostError: see `waitany`.
    """
    deadline = Deadline(timeout)
    _wait_some(requests, deadline, "waitsome")
    ready = [index for index, one in enumerate(requests) if one.settled and not one.collected]
    finished = [index for index in ready if requests[index].done]
    return [(index, requests[index].collect(deadline)) for index in finished or ready]


def testall(requests: Sequence[Request]) -> bool:
    """Look whether all are finished, without waiting.

    Raises:
        PeerLostError: one of them never will be.
    """
    finished = [one.test() for one in requests]
    return all(finished)


testall.__test__ = False  # type: ignore[attr-defined]  # its name is MPI's, and no test's


def _wait_some(requests: Sequence[Request], deadline: Deadline, name: str) -> None:
    open_ones = [one for one in requests if not one.collected]
    if not open_ones:
        raise ValueError(f"{name} needs a request whose outcome was not handed out yet, out of {len(requests)}")
    doing = f"{name} of {len(open_ones)} requests"
    open_ones[0].endpoint.wait(lambda: any(one.settled for one in open_ones), deadline, doing)
