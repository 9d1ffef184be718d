"""Messages between two ranks: what a communicator sends and receives.

Layer: communicator; encodes and decodes, checks what the user asks for, and leaves the rest to its endpoint.

Invariants: an object is encoded in the caller's thread before anything is sent, so a mistake is raised
where it is made; what is asked wrongly is refused before it has any effect.

Threads: all of it may be used by several threads at once.
"""

from __future__ import annotations

from typing import Any

from klyng_mp.communicator.base import Base
from klyng_mp.communicator.buffers import Gift, Target
from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.communicator.requests import ReceiveRequest, Request, SendRequest, SentRequest, Status
from klyng_mp.deadline import Deadline
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, Receive

__all__ = ["PointToPoint"]

_NEVER = Deadline(None)


class PointToPoint(Base):
    """A group's messages from one rank to another; see `Base` for its arguments and attributes."""

    __slots__ = ()

    def send(
        self, obj: object, dest: int, tag: int | str = 0, *, move: bool = False, timeout: float | None = None
    ) -> None:
        """Send an object to a rank.

        Args:
            obj: anything that can be encoded; it may be changed as soon as this returns.
            dest: the receiver's rank; this rank's own is allowed.
            tag: an int from 0 to 2**63 - 1, or a str, for the receiver to choose by.
            move: give the memory of an array away where that spares a copy: of one that `klyng_mp.empty` made, or
                that was received, and that is sent whole and by itself, to a rank of this host. It is read-only from
                then on, and what it shows is the receiver's; any other object is copied as usual.
            timeout: seconds; 0 sends only what can be sent at once; None for no limit.

        Returns when all of it is in the receiver's memory or with the kernel; up to 64 KiB may also wait here.

        Raises:
            CodecError: the object cannot travel; nothing was sent.
            DeadlineError: nothing was sent if the error says so; else the rest follows and it is delivered.
            PeerLostError: the receiver is gone.
        """
        if self._short is not None and not move and self._short.send(obj, dest, tag):
            return
        dest, tag = self._check_send("send", dest, tag)
        message = self._pack(obj, dest, tag)
        gift = Gift(self.endpoint.port, message, obj) if move else None
        try:
            self.endpoint.send(
                self.members[dest],
                message,
                deadline=_NEVER if timeout is None else Deadline(timeout),
                doing=f"send(dest={dest}, tag={tag!r})",
            )
        finally:
            if gift is not None:
                gift.close()

    def recv(
        self,
        source: int = ANY_SOURCE,
        tag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> Any:
        """Receive an object: the first to arrive that matches. One sender's messages keep their order.

        Args:
            source: the sender's rank, or ANY_SOURCE.
            tag: the tag, or ANY_TAG.
            timeout: seconds; 0 receives only what is there; None for no limit.
            status: is filled in with the message's source, tag and size.

        Raises:
            DeadlineError: no such message came; nothing was taken.
            PeerLostError: the source, or with ANY_SOURCE every other rank, is gone; nothing was taken.
            CodecError: the object cannot be rebuilt here; the message is gone.
        """
        if self._short is not None and status is None:
            got = self._short.recv(source, tag)
            if got is NOT_YET and timeout is None and self.endpoint.nap(self.members[source]):
                got = self._short.recv(source, tag)
            if got is not NOTHING and got is not NOT_YET:
                return self._unpack(got, None) if type(got) is Message else got
        number, tag = self._check_receive("recv", source, tag)
        message = self.endpoint.receive(
            self.context,
            number,
            tag,
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=_describe("recv", source, tag),
            among=self.members,
        )
        return self._unpack(message, status)

    def recv_into(
        self,
        buffer: Any,
        source: int = ANY_SOURCE,
        tag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> int:
        """Receive the bytes of an array, or of a bytes-like object, into memory that is there already.

        A large message from one given rank of this host is copied there as it comes, if this call is waiting for it
        and the array that is sent has the buffer's shape and dtype. Any other arrives as by `recv`, and is copied then.

        Args:
            buffer: a NumPy array or anything writable with the buffer protocol, contiguous as C has it. An array takes
                arrays of its own dtype, of any shape that is not larger, and bytes; anything else takes both as bytes.
            source: as of `recv`.
            tag: likewise.
            timeout: likewise.
            status: likewise.

        Returns:
            How many bytes were received; what is behind them in the buffer is as it was.

        Raises:
            TypeError, ValueError: the buffer cannot be written to, or the message is no array or bytes, is of another
                dtype, or is larger than the buffer; nothing was taken, and the message can be received otherwise.
            DeadlineError, PeerLostError, CodecError: as `recv`. The buffer's content is undefined.
        """
        target = Target(buffer)
        number, tag = self._check_receive("recv_into", source, tag)
        doing = _describe("recv_into", source, tag)
        message = self.endpoint.fulfil(
            Receive(self.context, number, tag),
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=doing,
            among=self.members,
            landing=target,
        )
        try:
            size = target.take(message, self.codec)
        except (TypeError, ValueError) as error:
            self.endpoint.put_back(message)
            raise type(error)(f"{doing} from rank {self._ranks[message.source]}: {error}; it was not taken") from None
        if status is not None:
            status.describe(message, self._ranks[message.source])
        return size

    def isend(self, obj: object, dest: int, tag: int | str = 0, *, move: bool = False) -> Request:
        """Start to send an object and return at once; the object has been copied, or given away, and may be changed.

        See `send`; the request's ``wait`` returns when the kernel has the message.
        """
        if self._short is not None and not move and self._short.send(obj, dest, tag):
            return SentRequest(self.endpoint, dest, tag)
        dest, tag = self._check_send("isend", dest, tag)
        message = self._pack(obj, dest, tag)
        doing = f"isend(dest={dest}, tag={tag!r})"
        peer = self.members[dest]
        gift = Gift(self.endpoint.port, message, obj) if move else None
        try:
            ticket = self.endpoint.start_send(peer, message, doing=doing)
        finally:
            if gift is not None:
                gift.close()
        return SendRequest(self.endpoint, doing, peer, message, ticket)

    def irecv(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, status: Status | None = None) -> Request:
        """Post a receive and return at once; it matches before any receive that is posted later.

        See `recv`; the request's ``wait`` returns the object.
        """
        number, tag = self._check_receive("irecv", source, tag)
        doing = _describe("irecv", source, tag)
        receive = self.endpoint.start_receive(self.context, number, tag, doing=doing)
        return ReceiveRequest(
            self.endpoint, doing, receive, lambda message: self._unpack(message, status), self.members
        )

    def sendrecv(
        self,
        obj: object,
        dest: int,
        sendtag: int | str = 0,
        source: int = ANY_SOURCE,
        recvtag: int | str = ANY_TAG,
        *,
        timeout: float | None = None,
        status: Status | None = None,
    ) -> Any:
        """Send an object and receive another; both sides may do so at once, whatever the sizes.

        Raises:
            DeadlineError: as `send`, or, when the object was sent, as `recv`; the error says which.
            PeerLostError: as `send` and `recv`.
        """
        dest, sendtag = self._check_send("sendrecv", dest, sendtag)
        number, recvtag = self._check_receive("sendrecv", source, recvtag)
        deadline = Deadline(timeout)
        message = self._pack(obj, dest, sendtag)
        doing = f"sendrecv(dest={dest}, sendtag={sendtag!r}), sending"
        self.endpoint.send(self.members[dest], message, deadline=deadline, doing=doing)
        doing = f"sendrecv({_who(source)}, recvtag={_what(recvtag)}), receiving"
        received = self.endpoint.receive(
            self.context, number, recvtag, deadline=deadline, doing=doing, among=self.members
        )
        return self._unpack(received, status)

    def probe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG, *, timeout: float | None = None) -> Status:
        """Wait for a message that matches, leave it there, and return what is known of it.

        Raises:
            DeadlineError, PeerLostError: as `recv`.
        """
        number, tag = self._check_receive("probe", source, tag)
        message = self.endpoint.wait_message(
            self.context,
            number,
            tag,
            deadline=_NEVER if timeout is None else Deadline(timeout),
            doing=_describe("probe", source, tag),
            among=self.members,
        )
        return Status().describe(message, self._ranks[message.source])

    def iprobe(self, source: int = ANY_SOURCE, tag: int | str = ANY_TAG) -> Status | None:
        """Look for a message that matches, leave it there, and return what is known of it, or None."""
        number, tag = self._check_receive("iprobe", source, tag)
        message = self.endpoint.peek(self.context, number, tag, doing=_describe("iprobe", source, tag))
        return None if message is None else Status().describe(message, self._ranks[message.source])


def _who(source: int) -> str:
    return "source=ANY_SOURCE" if source == ANY_SOURCE else f"source={source}"


def _what(tag: int | str) -> str:
    return "ANY_TAG" if tag == ANY_TAG else repr(tag)


def _describe(name: str, source: int, tag: int | str) -> str:
    if source != ANY_SOURCE and tag != ANY_TAG:
        return f"{name}(source={source}, tag={tag!r})"
    return f"{name}({_who(source)}, tag={_what(tag)})"
