"""Looking at messages before they are received, and taking them out so that nobody else receives them.

Layer: communicator; the lowest part of what a communicator does with messages between two ranks.

Threads: all of it may be used by several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.base import Base
from klyng_mp.communicator.requests import Status
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.errors import LocalProtocolError
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL

if TYPE_CHECKING:
    from collections.abc import Callable

    from klyng_mp.wire.frames import Message

__all__ = ["MatchedMessage", "Probing", "describe_receive"]


class MatchedMessage:
    """A message that was taken out by ``mprobe`` or ``improbe``: nobody else can receive it.

    One that is dropped without `recv` is lost, like an object that was received and dropped.

    Attributes:
        status: what is known of it.
    """

    __slots__ = ("_open", "_parts", "status")

    def __init__(self, status: Status, message: Message | None, decode: Callable[[Message], Any]) -> None:
        self.status = status
        self._parts = [message]
        self._open = decode

    def __repr__(self) -> str:
        return f"<MatchedMessage {self.status}: {'not received' if self._parts else 'received'}>"

    def recv(self) -> Any:
        """Return its object, at once; None if it is from PROC_NULL. To be called once, by any thread.

        Raises:
            LocalProtocolError: it was received already.
            CodecError: the object cannot be rebuilt here; the message is gone.
        """
        try:
            message = self._parts.pop()
        except IndexError:
            raise LocalProtocolError(f"a matched message is received once, and {self} was") from None
        return None if message is None else self._open(message)


class Probing(Base):
    """Looking at messages; see `Base` for the arguments and attributes."""

    __slots__ = ()

    def probe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, timeout: float | None = None) -> Status:
        """Wait for a message that matches, leave it there, and return what is known of it.

        Raises:
            DeadlineError, PeerLostError: as ``recv``.
        """
        number, tag = self._check_receive("probe", source, tag)
        if number == PROC_NULL:
            return Status().describe_nothing()
        message = self.endpoint.wait_message(
            self.context,
            number,
            tag,
            deadline=NEVER if timeout is None else Deadline(timeout),
            doing=describe_receive("probe", source, tag),
            among=self.members,
        )
        return Status().describe(message, self._ranks[message.source])

    def iprobe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG) -> Status | None:
        """Look for a message that matches, leave it there, and return what is known of it, or None.

        From PROC_NULL there always is one, as MPI has it.
        """
        number, tag = self._check_receive("iprobe", source, tag)
        if number == PROC_NULL:
            return Status().describe_nothing()
        message = self.endpoint.peek(self.context, number, tag, doing=describe_receive("iprobe", source, tag))
        return None if message is None else Status().describe(message, self._ranks[message.source])

    def mprobe(
        self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, timeout: float | None = None
    ) -> MatchedMessage:
        """Wait for a message that matches, and take it out, so that no other thread can receive it.

        To its sender it counts as received.

        Raises:
            DeadlineError: no such message came; nothing was taken.
            PeerLostError: the source, or with ANY_SOURCE every other rank, is gone; nothing was taken.
        """
        number, tag = self._check_receive("mprobe", source, tag)
        if number == PROC_NULL:
            return self._matched(None)
        message = self.endpoint.receive(
            self.context,
            number,
            tag,
            deadline=NEVER if timeout is None else Deadline(timeout),
            doing=describe_receive("mprobe", source, tag),
            among=self.members,
        )
        return self._matched(message)

    def improbe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG) -> MatchedMessage | None:
        """Take out a message that matches, if there is one now; see `mprobe`. From PROC_NULL there always is one."""
        number, tag = self._check_receive("improbe", source, tag)
        if number == PROC_NULL:
            return self._matched(None)
        message = self.endpoint.take(self.context, number, tag, doing=describe_receive("improbe", source, tag))
        return None if message is None else self._matched(message)

    def _matched(self, message: Message | None) -> MatchedMessage:
        """Wrap a message that was taken; None is one from PROC_NULL."""
        status = Status()
        if message is None:
            status.describe_nothing()
        else:
            status.describe(message, self._ranks[message.source])
        return MatchedMessage(status, message, lambda taken: self._unpack(taken, None))


def describe_receive(name: str, source: int, tag: int | str) -> str:
    """Say what a call that receives was asked for, as errors have it."""
    who = "ANY_SOURCE" if source == ANY_SOURCE else source
    what = "ANY_TAG" if tag == ANY_TAG else repr(tag)
    return f"{name}(source={who}, tag={what})"
