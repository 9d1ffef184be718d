"""Collectives that go on by themselves: their requests, and the calls that return these.

Layer: communicator.

A call that was started takes its steps whenever this rank waits for anything or tests a request, in whichever thread
does so, with the endpoint's lock held. So a function that is given as an operator must not communicate.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.call import EVERYBODY
from klyng_mp.communicator.collectives import Collectives
from klyng_mp.communicator.reductions import SUM
from klyng_mp.communicator.requests import Request
from klyng_mp.errors import CollectiveMismatchError
from klyng_mp.wire.mailbox import ANY_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from klyng_mp.communicator.base import Base
    from klyng_mp.communicator.call import Call, Steps
    from klyng_mp.deadline import Deadline
    from klyng_mp.wire.mailbox import Receive

    Operator = Callable[[Any, Any], Any]

__all__ = ["CollectiveRequest", "NonBlockingCollectives"]


class CollectiveRequest(Request):
    """A collective call that was started, as ``iallreduce`` and its kin return it.

    It cannot be cancelled. It is finished when this rank has its result and all that it sends is on its way.
    """

    __slots__ = ("_call", "_comm", "_error", "_finished", "_found", "_posted", "_result", "_steps")

    def __init__(self, comm: Base, call: Call, steps: Steps[Any]) -> None:
        super().__init__(comm.endpoint, call.doing)
        self._comm = comm
        self._call = call
        self._steps = steps
        self._posted: deque[tuple[int, Receive]] = deque()
        self._found: list[Any] | None = None  # where what comes from everybody is put
        self._result: Any = None
        self._error: BaseException | None = None
        self._finished = False
        call.tickets = []
        with self._endpoint.lock:
            comm.call_log.pending.add(call.number)
            self._take_steps()
            if not self._finished:
                self._endpoint.add_chore(self)

    @property
    def due(self) -> bool:
        """See `Chore.due`."""
        return not self._finished and bool(self._posted) and self._endpoint.is_received(self._posted[0][1])

    def advance(self) -> bool:
        """Take the steps that can be taken without waiting; return whether none are left. Needs the lock."""
        if self._finished:
            return True
        if self.due:
            self._take_steps()
        elif (error := self._call.disagreement(ask=False, needs=self._source)) is not None:
            self._fail(error)
        return self._finished

    def _take_steps(self) -> None:
        self._endpoint.room.steps += 1
        try:
            self._receive_next()
        except StopIteration as stop:
            self._result = stop.value
            self._finish_steps()
        except Exception as error:  # noqa: BLE001 - raised by `wait`
            self._fail(error)
        except BaseException as error:  # for the thread that it struck
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._comm.call_log.abandoned.add(self._call.number)
        for _, receive in self._posted:
            self._endpoint.withdraw_receive(receive)
        self._finish_steps()

    def _receive_next(self) -> None:
        call, value = self._call, None
        while True:
            while self._posted:
                source, receive = self._posted[0]
                if not self._endpoint.is_received(receive):
                    return
                message = self._endpoint.wait_received(receive, deadline=call.deadline, doing=self._doing)
                self._posted.popleft()
                value = call.take(message, source)
                if self._found is not None:
                    self._found[source] = value
            if self._found is not None:
                value, self._found = self._found, None
            source = self._steps.send(value)
            sources = [source]
            if source == EVERYBODY:
                self._found = [None] * call.size
                sources = [other for other in range(call.size) if other != call.rank]
            for one in sources:
                self._posted.append((one, call.post(one if one >= 0 else ~one)))

    def _finish_steps(self) -> None:
        self._finished = True
        self._comm.call_log.pending.discard(self._call.number)
        self._steps.close()

    @property
    def needed(self) -> int:
        """See `Request.needed`."""
        return ANY_SOURCE if self._source is None else self._comm.members[self._source]

    @property
    def _source(self) -> int | None:
        """The rank that the next step waits for."""
        if not self._posted:
            return None
        source = self._posted[0][0]
        return source if source >= 0 else ~source

    @property
    def done(self) -> bool:
        """See `Request.done`."""
        return self._finished and self._error is None and all(ticket.done for ticket, _, _ in self._call.tickets or ())

    @property
    def settled(self) -> bool:
        """See `Request.settled`."""
        if not self._finished:
            return self._endpoint.failure(self._doing) is not None
        return self._error is not None or all(
            self._endpoint.is_sent(ticket, peer) for ticket, peer, _ in self._call.tickets or ()
        )

    def _finish(self, deadline: Deadline) -> Any:
        self._endpoint.wait(lambda: self._finished, deadline, self._doing, lambda: {self.needed} - {ANY_SOURCE})
        if isinstance(self._error, CollectiveMismatchError):
            self._error = self._call.disagreement(ask=True, needs=self._source) or self._error
        if self._error is not None:
            raise self._error
        for ticket, peer, _ in self._call.tickets or ():
            self._endpoint.wait_sent(ticket, peer, deadline=deadline, doing=self._doing)
        return self._result

    def _withdraw(self) -> bool:
        return False


class NonBlockingCollectives(Collectives):
    """The collectives that return a request at once, whose ``wait`` returns what the call without the ``i`` does.

    All ranks make them in the same order, beside those that wait; as in MPI, a started call is not the same call as one
    that waits. See `Collectives` for arguments and results.
    """

    __slots__ = ()

    def ibarrier(self) -> CollectiveRequest:
        """Start a `barrier`."""
        return CollectiveRequest(self, *self._ibarrier())

    def ibcast(self, obj: Any = None, root: int = 0) -> CollectiveRequest:
        """Start a `bcast`."""
        return CollectiveRequest(self, *self._bcast(obj, root, None))

    def iscatter(self, objs: Sequence[Any] | None = None, root: int = 0) -> CollectiveRequest:
        """Start a `scatter`."""
        return CollectiveRequest(self, *self._scatter(objs, root, None))

    def igather(self, obj: Any, root: int = 0) -> CollectiveRequest:
        """Start a `gather`."""
        return CollectiveRequest(self, *self._gather(obj, root, None))

    def iallgather(self, obj: Any) -> CollectiveRequest:
        """Start an `allgather`."""
        return CollectiveRequest(self, *self._allgather(obj, None))

    def ialltoall(self, objs: Sequence[Any]) -> CollectiveRequest:
        """Start an `alltoall`."""
        return CollectiveRequest(self, *self._alltoall(objs, None))

    def ireduce(self, obj: Any, op: Operator = SUM, root: int = 0) -> CollectiveRequest:
        """Start a `reduce`."""
        return CollectiveRequest(self, *self._reduce(obj, op, root, None))

    def iallreduce(self, obj: Any, op: Operator = SUM) -> CollectiveRequest:
        """Start an `allreduce`."""
        return CollectiveRequest(self, *self._allreduce(obj, op, None))

    def ireduce_scatter(self, objs: Sequence[Any], op: Operator = SUM) -> CollectiveRequest:
        """Start a `reduce_scatter`."""
        return CollectiveRequest(self, *self._reduce_scatter(objs, op, None))

    def iscan(self, obj: Any, op: Operator = SUM) -> CollectiveRequest:
        """Start a `scan`."""
        return CollectiveRequest(self, *self._scan(obj, op, None))

    def iexscan(self, obj: Any, op: Operator = SUM) -> CollectiveRequest:
        """Start an `exscan`."""
        return CollectiveRequest(self, *self._exscan(obj, op, None))
