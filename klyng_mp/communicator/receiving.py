"""An endpoint's messages in: receives that are posted, awaited, withdrawn; messages that are looked at.

Layer: communicator.

Invariant: a receive that ends with an error, whichever, has taken nothing.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Protocol

from klyng_mp.communicator.accounts import Accounts
from klyng_mp.errors import ClosedError
from klyng_mp.wire.mailbox import ANY_SOURCE, Receive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from klyng_mp.deadline import Deadline
    from klyng_mp.wire.frames import Message

__all__ = ["Ground", "Landing", "Receiving"]


class Ground(Protocol):
    """What can put the next large message of a peer where it is wanted; the core's port, or a transport."""

    @property
    def size(self) -> int:
        """How many ranks there are."""

    @property
    def rank(self) -> int:
        """This one's."""

    def land(  # noqa: PLR0917 - as the core has it
        self, owner: object, source: int, context: int, tag: int, view: memoryview, head: bytes | None, /
    ) -> object:
        """See `klyng_mp._core.Port.land`."""

    def unland(self, owner: object, /) -> object:
        """Put nothing into this owner's memory any more."""


class Landing(Protocol):
    """A buffer that a message may be received into without a copy in between."""

    def prepare(self, ground: Ground, receive: Receive) -> None:
        """Have the message of a receive put there if that can be, until the ground's ``unland``.

        Args:
            ground: of the endpoint.
            receive: posted first in its context, and not matched.
        """


class Receiving(Accounts):
    """What an endpoint receives; see `Membership` for its arguments and attributes."""

    @property
    def ground(self) -> Ground | None:
        """What can put large messages where they are wanted, if anything can."""
        return self.port

    def receive(
        self,
        context: int,
        source: int,
        tag: int | str,
        *,
        deadline: Deadline,
        doing: str,
        among: Iterable[int] | None = None,
    ) -> Message:
        """Receive the first message that matches.

        Args:
            context: of the communicator.
            source: the sender's number or ANY_SOURCE.
            tag: a tag or ANY_TAG.
            deadline: when to give up.
            doing: what errors say this rank was doing.
            among: who may send with ANY_SOURCE; when all of them are lost there is nothing to wait for.

        Raises:
            DeadlineError: nothing was taken.
            PeerLostError: the source is gone, or the run was ended; nothing was taken.
        """
        return self.fulfil(Receive(context, source, tag), deadline=deadline, doing=doing, among=among)

    def fulfil(
        self,
        receive: Receive,
        *,
        deadline: Deadline,
        doing: str,
        among: Iterable[int] | None = None,
        landing: Landing | None = None,
    ) -> Message:
        """Post a receive and wait for its message; see `receive`.

        The message may be put into ``landing`` at once; one of its buffers is then the landing's own.
        """
        context = receive.context
        with self._room.lock:
            if self._refusal is not None or context < self._lowest:
                self._admit(context, doing)
            first = landing is not None and not self.mailbox.is_posted(context)
            try:
                self.mailbox.post(receive)
            except BaseException:
                self._poison()
                raise
            if receive.message is not None:
                if self.mailbox.unanswered:
                    self._catch_up()
                return receive.message
            try:
                if landing is not None and first and self.ground is not None:
                    landing.prepare(self.ground, receive)
                return self._await_message(receive, deadline, doing, among)
            except BaseException:
                if not self.mailbox.withdraw(receive) and receive.message is not None:
                    self._restore(receive.message)  # an interruption came between: nothing was taken, then
                    self._room.notify()
                raise
            finally:
                if landing is not None and self.ground is not None:
                    self.ground.unland(landing)

    def start_receive(self, context: int, source: int, tag: int | str, *, doing: str = "irecv") -> Receive:
        """Post a receive; it matches in the order of posting, before any later one."""
        with self._room.lock:
            return self._post(context, source, tag, doing)

    def wait_received(
        self, receive: Receive, *, deadline: Deadline, doing: str, among: Iterable[int] | None = None
    ) -> Message:
        """Wait until a posted receive has its message; after an error it is still posted."""
        with self._room.lock:
            if receive.message is not None:
                return receive.message
            return self._await_message(receive, deadline, doing, among)

    def withdraw_receive(self, receive: Receive) -> bool:
        """Take a posted receive back; return False if it has its message."""
        with self._room.lock:
            return self.mailbox.withdraw(receive)

    def is_received(self, receive: Receive, among: Iterable[int] | None = None) -> bool:
        """Whether a posted receive has its message, or never will."""
        with self._room.lock:
            return self._is_received(receive, among)

    def peek(self, context: int, source: int, tag: int | str, *, doing: str) -> Message | None:
        """Return the first message that matches and leave it there, without waiting."""
        with self._room.lock:
            self._admit(context, doing)
            found = self.mailbox.peek(context, source, tag)
            if found is None:
                self._room.progress()
                found = self.mailbox.peek(context, source, tag)
            return found

    def take(self, context: int, source: int, tag: int | str, *, doing: str) -> Message | None:
        """Take the first message that matches, without waiting."""
        with self._room.lock:
            if self.peek(context, source, tag, doing=doing) is None:
                return None
            message = self.mailbox.take(context, source, tag)
            self._catch_up()
            return message

    def wait_message(
        self,
        context: int,
        source: int,
        tag: int | str,
        *,
        deadline: Deadline,
        doing: str,
        among: Iterable[int] | None = None,
    ) -> Message:
        """Wait for a message that matches and leave it there; see `receive`."""

        def ready() -> bool:
            return self.mailbox.peek(context, source, tag) is not None or self._peers.is_hopeless(source, among)

        with self._room.lock:
            self._admit(context, doing)
            if not self._settle(ready, deadline, doing, _needed(source)):
                raise deadline.error(doing)
            found = self.mailbox.peek(context, source, tag)
            if found is None:
                raise self._peers.loss(source, doing)
            return found

    def put_back(self, message: Message) -> None:
        """Let a message that was received and cannot be used be the first of its sender and tag again."""
        with self._room.lock:
            self._restore(message)
            self._room.notify()

    def check_run(self, context: int, doing: str) -> None:
        """Raise what any call would raise now, or ClosedError where a context belongs to a run that is over."""
        with self._room.lock:
            self._admit(context, doing)

    def sleep(self, seconds: float) -> None:
        """Do nothing for so many seconds."""
        time.sleep(seconds)

    def give_way(self) -> None:
        """Let others run, and take what they have sent."""
        self.progress()
        os.sched_yield()

    # -- inside, with the lock held

    def _restore(self, message: Message) -> None:
        """Put a message back; where it has landed in a caller's buffer, it is given memory of its own."""
        message.buffers = [bytearray(part) if type(part) is memoryview else part for part in message.buffers]
        self.mailbox.restore(message)

    def _post(self, context: int, source: int, tag: int | str, doing: str) -> Receive:
        self._admit(context, doing)
        receive = Receive(context, source, tag)
        try:
            self.mailbox.post(receive)
        except BaseException:
            self._poison()
            raise
        if self.mailbox.unanswered:
            self._catch_up()
        return receive

    def _is_received(self, receive: Receive, among: Iterable[int] | None) -> bool:
        return receive.message is not None or receive.withdrawn or self._peers.is_hopeless(receive.source, among)

    def _await_message(self, receive: Receive, deadline: Deadline, doing: str, among: Iterable[int] | None) -> Message:
        lost = self._peers.lost

        def ready() -> bool:
            return (
                receive.message is not None or receive.withdrawn or (bool(lost) and self._is_received(receive, among))
            )

        in_time = self._room.wait(ready, deadline, doing, _needed(receive.source))
        if receive.message is not None:
            return receive.message
        if self._refusal is not None:
            raise self._refusal(doing)
        if not in_time:
            raise deadline.error(doing)
        if receive.withdrawn:
            raise ClosedError(f"the run ended before {doing} got its message")
        raise self._peers.loss(receive.source, doing)


def _needed(source: int) -> int | None:
    """Return whom a receive cannot do without, or None."""
    return None if source == ANY_SOURCE else source
