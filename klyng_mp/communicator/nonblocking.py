"""What starts to send or to receive and returns at once, with a request.

Layer: communicator.

Threads: all of it may be used by several threads at once.
"""

from __future__ import annotations

from klyng_mp.communicator.buffers import Gift
from klyng_mp.communicator.probing import Probing, describe_receive
from klyng_mp.communicator.requests import (
    HandoverRequest,
    NullRequest,
    ReceiveRequest,
    Request,
    SendRequest,
    SentRequest,
    Status,
)
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL, SYNCHRONOUS

__all__ = ["NonBlocking"]


class NonBlocking(Probing):
    """Requests for messages from one rank to another; see `Base` for the arguments and attributes."""

    __slots__ = ()

    def isend(self, obj: object, dest: int, tag: int | str = 0, *, move: bool = False) -> Request:
        """Start to send an object and return at once; the object has been copied, or given away, and may be changed.

        See ``send``; the request's ``wait`` returns when the kernel has the message.
        """
        if self._short is not None and not move and self._short.send(obj, dest, tag):
            return SentRequest(self.endpoint, dest, tag)
        dest, tag = self._check_send("isend", dest, tag)
        doing = f"isend(dest={dest}, tag={tag!r})"
        if dest == PROC_NULL:
            return NullRequest(self.endpoint, doing)
        message = self._pack(obj, dest, tag)
        peer = self.members[dest]
        gift = Gift(self.endpoint.port, message, obj) if move else None
        try:
            ticket = self.endpoint.start_send(peer, message, doing=doing)
        finally:
            if gift is not None:
                gift.close()
        return SendRequest(self.endpoint, doing, peer, message, ticket)

    def issend(self, obj: object, dest: int, tag: int | str = 0) -> Request:
        """Start to send an object synchronously and return at once; the object has been copied and may be changed.

        See `PointToPoint.ssend`; the request's ``wait`` returns when a receive has matched the message, and raises
        PeerLostError when none ever will. Its ``cancel`` is that of `isend`.
        """
        dest, tag = self._check_send("issend", dest, tag)
        doing = f"issend(dest={dest}, tag={tag!r})"
        if dest == PROC_NULL:
            return NullRequest(self.endpoint, doing)
        message = self._pack(obj, dest, tag, SYNCHRONOUS)
        handover = self.endpoint.hand_over(self.members[dest], message, doing=doing)
        return HandoverRequest(self.endpoint, doing, handover)

    def irecv(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, status: Status | None = None) -> Request:
        """Post a receive and return at once; it matches before any receive that is posted later.

        See ``recv``; the request's ``wait`` returns the object.
        """
        number, tag = self._check_receive("irecv", source, tag)
        doing = describe_receive("irecv", source, tag)
        if number == PROC_NULL:
            if status is not None:
                status.describe_nothing()
            return NullRequest(self.endpoint, doing)
        receive = self.endpoint.start_receive(self.context, number, tag, doing=doing)
        return ReceiveRequest(
            self.endpoint, doing, receive, lambda message: self._unpack(message, status), self.members
        )
