"""One collective call of one rank: what its steps send and receive, and who notices that ranks disagree.

Layer: communicator.

The steps of a collective are a generator over a `Call`: it sends by `Call.send`, receives by yielding the rank that it
receives from, and is sent what came. So one text serves the call that waits (`Call.run`) and the one that does not
(`CollectiveRequest`).

Every call has a number, the same on all ranks as they make the same calls. The tag of its messages is made of that
number and of what is called, so that calls never mix, and a message that belongs to the present call and was sent by
another one tells that the ranks disagree.

After an error (DeadlineError, PeerLostError, CollectiveMismatchError, an error of the operator's) the call is over on
this rank only. Its late messages meet nobody; the next call starts afresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from klyng_mp.communicator.agreement import disagreement, find_stranger, may_disagree
from klyng_mp.communicator.buffers import Gift
from klyng_mp.communicator.calls import describe_tag, make_tag
from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, CollectiveMismatchError, PeerLostError
from klyng_mp.wire.frames import Message

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from klyng_mp.communicator.base import Base
    from klyng_mp.native import core
    from klyng_mp.transports.contract import Ticket
    from klyng_mp.wire.frames import Part
    from klyng_mp.wire.mailbox import Receive

__all__ = ["EVERYBODY", "Call", "Packed", "Steps"]

Result = TypeVar("Result")
if TYPE_CHECKING:
    Steps = Generator[int, Any, Result]
else:
    Steps = object

_NEVER = Deadline(None)


EVERYBODY = 1 << 40
"""What steps yield to be sent a list of what comes from all other ranks, by rank, with None in their own place."""


class Packed(NamedTuple):
    """An object as it travels, to be sent to several ranks, or passed on, without being built."""

    code: int
    head: bytes
    buffers: Sequence[Part]


class Call:
    """One collective call of this rank.

    Args:
        comm: the communicator.
        kind: what is called: "bcast".
        timeout: seconds for all steps together; None for no limit.
        root: the root, where there is one, else -1.

    Attributes:
        comm: the communicator.
        rank, size: of the communicator.
        tag: of the call's messages.
        number: counts the communicator's calls.
        direct, in_turns: how the call had better go; see `Ways`.
        tickets: of the sends that were started, where sends do not wait.

    Raises:
        CollectiveMismatchError: an earlier call was not the same on all ranks.
    """

    __slots__ = (
        "_context", "_short", "comm", "deadline", "direct", "in_turns", "number", "rank", "size", "tag", "tickets",
    )  # fmt: skip

    def __init__(self, comm: Base, kind: str, timeout: float | None, root: int = -1) -> None:
        if comm.closed:
            comm.check_open(f"{kind}()")
        self.comm = comm
        self._context = comm.context | 1
        self._short = comm.short_collective
        self.deadline = _NEVER if timeout is None else Deadline(timeout)
        self.rank = comm.rank
        self.size = comm.size
        self.number = comm.call_log.made
        self.tag = tag = make_tag(self.number, kind, root)
        self.direct = comm.direct
        self.in_turns = comm.in_turns
        self.tickets: list[tuple[Ticket, int, Message]] | None = None
        comm.call_log.note(tag)
        if comm.meeting is not None and kind != "barrier":
            comm.meeting.enter(tag)
        if may_disagree(comm, self.number):
            self.check_agreement()

    @property
    def doing(self) -> str:
        """What errors say this rank was doing: "bcast(root=1)"."""
        return describe_tag(self.tag)

    # -- for the steps

    def pack(self, obj: object) -> Packed:
        """Encode an object once, for several `send_packed`."""
        return Packed(*self.comm.codec.encode(obj))

    def open(self, packed: Packed) -> Any:
        """Build the object."""
        return self.comm.codec.decode(*packed)

    def send(self, obj: object, dest: int) -> None:
        """Send an object to a rank; it may be changed afterwards."""
        if self._short is None or not self._short.send(obj, dest, self.tag):
            self.send_packed(self.pack(obj), dest)

    def send_packed(self, packed: Packed, dest: int) -> None:
        """Send what was packed, or is passed on as it came."""
        if packed.buffers:  # a slab that was received would be given away; it is this rank's object, too
            packed = packed._replace(buffers=[memoryview(buffer) for buffer in packed.buffers])
        self._dispatch(self._envelop(packed, dest), self.comm.members[dest])

    def give(self, array: Any, dest: int) -> None:
        """Send an array that is not used afterwards."""
        message = self._envelop(self.pack(array), dest)
        gift = Gift(self.comm.endpoint.port, message, array)
        try:
            self._dispatch(message, self.comm.members[dest])
        finally:
            gift.close()

    def _envelop(self, packed: Packed, dest: int) -> Message:
        endpoint = self.comm.endpoint
        incarnation = endpoint.incarnations.get(self.comm.members[dest], 0)
        return Message(self._context, endpoint.number, self.tag, incarnation, *packed)

    def _dispatch(self, message: Message, peer: int) -> None:
        endpoint = self.comm.endpoint
        if self.tickets is None:
            endpoint.send(peer, message, deadline=self.deadline, doing=self.doing)
        else:
            self.tickets.append((endpoint.start_send(peer, message, doing=self.doing), peer, message))

    @staticmethod
    def as_it_comes(source: int) -> int:
        """Return what to yield to be sent the `Packed` that comes from a rank, and not the object."""
        return ~source

    def spread(self, obj: object) -> None:
        """Send an object to all other ranks."""
        short: Any = self._short  # in a direct call, which alone comes here, an Express
        done = 0 if short is None else short.spread(obj, self.tag)
        if done + 1 < self.size:
            packed = self.pack(obj)
            for step in range(done + 1, self.size):
                self.send_packed(packed, (self.rank + step) % self.size)

    # -- with waiting

    def run(self, steps: Steps[Result]) -> Result:
        """Take all steps; return what they return."""
        try:
            source = next(steps)
            while True:
                source = steps.send(self._receive(source))
        except StopIteration as stop:
            result: Result = stop.value
        except BaseException:
            self.comm.call_log.abandoned.add(self.number)
            raise
        if may_disagree(self.comm, self.number + 1):  # what a peer sent before comes before
            self.check_agreement()
        return result

    def _receive(self, source: int) -> Any:
        if source == EVERYBODY:
            return self._collect()
        short = self._short
        if short is not None and source >= 0:
            got = short.recv(source, self.tag)
            if got is NOT_YET and self._may_nap() and self.comm.endpoint.nap(1, self.comm.members[source]):
                got = short.recv(source, self.tag)
            if got is not NOTHING and got is not NOT_YET:
                return self.take(got, source) if type(got) is Message else got
        return self.take(self._await(source if source >= 0 else ~source), source)

    def _may_nap(self) -> bool:
        """Whether nothing is to be looked at while this call sleeps, neither a clock nor what other ranks call."""
        meeting = self.comm.meeting
        return self.deadline is _NEVER and (meeting is None or meeting.find_stranger(self.tag) is None)

    def _collect(self) -> list[Any]:
        """Return what comes from all other ranks, by rank, and None in this one's place."""
        found: list[Any] = [NOT_YET] * self.size
        found[self.rank] = None
        short: Any = self._short  # as in `spread`
        endpoint = self.comm.endpoint
        before = self.size
        while short is not None:
            left = short.collect(found, self.tag)
            if not 0 < left < before or not self._may_nap():
                break
            before = left
            if not endpoint.nap(left):
                break
        for source, got in enumerate(found):
            if got is NOT_YET:
                found[source] = self.take(self._await(source), source)
            elif type(got) is Message:
                found[source] = self.take(got, source)
        return found

    def _await(self, source: int) -> Message:
        endpoint = self.comm.endpoint
        receive = self.post(source)
        try:
            endpoint.wait_within(
                lambda: endpoint.is_received(receive) or self.find_stranger(source) is not None,
                self.deadline,
                self.doing,
                lambda: self._needed(source),
            )
            if receive.message is not None:
                return receive.message
            self.check_agreement(source)
            return endpoint.wait_received(receive, deadline=self.deadline, doing=self.doing)
        finally:
            endpoint.withdraw_receive(receive)

    def _needed(self, source: int) -> list[int]:
        """Return whom this call waits for, as numbers of endpoints: where all leave something, who has not."""
        members, gathering = self.comm.members, self.comm.gathering
        absent = [] if gathering is None else gathering.absent(self.tag)
        return [members[rank] for rank in absent] or [members[source]]

    def meet(self, meeting: core.Meeting) -> None:
        """Wait until all ranks have come to this call, which is a barrier."""
        endpoint = self.comm.endpoint
        try:
            if came := meeting.arrive(self.tag):
                return
            if came is None:
                endpoint.check_run(self._context, self.doing)
            # Nobody rings for a rank that is gone, and has been told of.
            if not endpoint.has_losses and self._may_nap() and endpoint.nap() and meeting.arrive(self.tag):
                return
            self._wait_to_meet(meeting)
        except BaseException:
            self.comm.call_log.abandoned.add(self.number)
            meeting.leave()
            raise

    def _wait_to_meet(self, meeting: core.Meeting) -> None:
        comm, endpoint = self.comm, self.comm.endpoint

        def absent() -> list[int]:
            return [comm.members[rank] for rank in meeting.absent()]

        def loss() -> PeerLostError | None:
            return endpoint.find_loss(absent(), self.doing)

        def ready() -> bool:
            return bool(meeting.arrive(self.tag)) or loss() is not None or self.find_stranger() is not None

        endpoint.wait_within(ready, self.deadline, self.doing, absent)
        if not meeting.arrive(self.tag):
            self.check_agreement()
            raise loss() or ClosedError(f"this communicator is closed, so {self.doing} cannot be done")

    # -- without

    def post(self, source: int) -> Receive:
        """Post the receive of the next message from a rank."""
        return self.comm.endpoint.start_receive(self._context, self.comm.members[source], self.tag, doing=self.doing)

    def take(self, message: Message, source: int) -> Any:
        """Return what the steps asked for by yielding ``source``: the message's object, or what it is packed in."""
        if source < 0:
            return Packed(message.code, message.head, message.buffers)
        return self.comm.codec.decode(message.code, message.head, message.buffers)

    # -- agreement

    def find_stranger(self, source: int | None = None) -> tuple[int, int] | None:
        """See `agreement.find_stranger`."""
        return find_stranger(self.comm, self.tag, source, needs=source)

    def disagreement(
        self, source: int | None = None, *, ask: bool, needs: int | None = None
    ) -> CollectiveMismatchError | None:
        """See `agreement.disagreement`."""
        return disagreement(self.comm, self.tag, source, ask=ask, needs=needs)

    def check_agreement(self, source: int | None = None) -> None:
        """Raise the CollectiveMismatchError that can be told now."""
        error = self.disagreement(source, ask=True, needs=source)
        if error is not None:
            raise error
