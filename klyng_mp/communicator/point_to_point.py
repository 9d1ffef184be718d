"""Messages between two ranks: what a communicator sends and receives.

Layer: communicator; encodes and decodes, checks what the user asks for, and leaves the rest to its endpoint.

Invariants: an object is encoded in the caller's thread before anything is sent, so a mistake is raised
where it is made; what is asked wrongly is refused before it has any effect.

Threads: all of it may be used by several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.buffers import Gift, Target
from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.communicator.nonblocking import NonBlocking
from klyng_mp.communicator.probing import describe_receive
from klyng_mp.deadline import NEVER, Deadline
from klyng_mp.wire.frames import Message
from klyng_mp.wire.mailbox import ANY_SOURCE, ANY_TAG, PROC_NULL, SYNCHRONOUS, Receive

if TYPE_CHECKING:
    from klyng_mp.communicator.requests import Status

__all__ = ["PointToPoint"]


class PointToPoint(NonBlocking):
    """A group's messages from one rank to another; see `Base` for its arguments and attributes."""

    __slots__ = ()

    def send(
        self, obj: object, dest: int, tag: int | str = 0, *, move: bool = False, timeout: float | None = None
    ) -> None:
        """Send an object to a rank.

        Args:
            obj: anything that can be encoded; it may be changed as soon as this returns.
            dest: the receiver's rank; this rank's own is allowed. PROC_NULL is nobody: the object goes nowhere.
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
        if dest == PROC_NULL:
            return
        message = self._pack(obj, dest, tag)
        gift = Gift(self.endpoint.port, message, obj) if move else None
        try:
            self.endpoint.send(
                self.members[dest],
                message,
                deadline=NEVER if timeout is None else Deadline(timeout),
                doing=f"send(dest={dest}, tag={tag!r})",
            )
        finally:
            if gift is not None:
                gift.close()

    def ssend(self, obj: object, dest: int, tag: int | str = 0, *, timeout: float | None = None) -> None:
        """Send an object to a rank, and return when a receive there has matched it: it was asked for.

        A receive that was posted by ``irecv`` counts, also before anybody waits for it, and so does ``mprobe``; the
        receiver says so as soon as it is in any call of its communicators.

        Args:
            obj: as of `send`.
            dest: likewise; to this rank itself, somebody has to have posted the receive, or do so in another thread.
            tag: likewise.
            timeout: seconds; None for no limit.

        Raises:
            CodecError: the object cannot travel; nothing was sent.
            DeadlineError: nothing matched it in time. The error says what is left: the message was withdrawn if
                nothing of it had left this rank; else the receiver may still take it.
            PeerLostError: the receiver is gone, or its program is over, also if it ended as it should.
        """
        dest, tag = self._check_send("ssend", dest, tag)
        if dest == PROC_NULL:
            return
        self.endpoint.send_synchronously(
            self.members[dest],
            self._pack(obj, dest, tag, SYNCHRONOUS),
            deadline=NEVER if timeout is None else Deadline(timeout),
            doing=f"ssend(dest={dest}, tag={tag!r})",
        )

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
            source: the sender's rank, or ANY_SOURCE. From PROC_NULL comes None, at once.
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
            if got is NOT_YET and timeout is None and self.endpoint.nap(on=self.members[source]):
                got = self._short.recv(source, tag)
            if got is not NOTHING and got is not NOT_YET:
                return self._unpack(got, None) if type(got) is Message else got
        elif status is not None and self._telling is not None:
            got = self._telling(source, tag, status)
            if got is not NOTHING and got is not NOT_YET:
                return got
        number, tag = self._check_receive("recv", source, tag)
        if number == PROC_NULL:
            return self._receive_nothing(status)
        message = self.endpoint.receive(
            self.context,
            number,
            tag,
            deadline=NEVER if timeout is None else Deadline(timeout),
            doing=describe_receive("recv", source, tag),
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
                dtype, or is larger than the buffer; nothing was taken, and the message can be received otherwise
                (to who sent it with `ssend` it counts as received).
            DeadlineError, PeerLostError, CodecError: as `recv`. The buffer's content is undefined.
        """
        target = Target(buffer)
        number, tag = self._check_receive("recv_into", source, tag)
        if number == PROC_NULL:
            self._receive_nothing(status)
            return 0
        doing = describe_receive("recv_into", source, tag)
        message = self.endpoint.fulfil(
            Receive(self.context, number, tag),
            deadline=NEVER if timeout is None else Deadline(timeout),
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

        With PROC_NULL as ``dest`` nothing is sent, and with PROC_NULL as ``source`` None is received.

        Raises:
            DeadlineError: as `send`, or, when the object was sent, as `recv`; the error says which.
            PeerLostError: as `send` and `recv`.
        """
        dest, sendtag = self._check_send("sendrecv", dest, sendtag)
        number, recvtag = self._check_receive("sendrecv", source, recvtag)
        if timeout is None and self._short is not None and self._short.send(obj, dest, sendtag):
            return self.recv(source, recvtag, status=status)
        deadline = Deadline(timeout)
        if dest != PROC_NULL:
            message = self._pack(obj, dest, sendtag)
            doing = f"sendrecv(dest={dest}, sendtag={sendtag!r}), sending"
            self.endpoint.send(self.members[dest], message, deadline=deadline, doing=doing)
        if number == PROC_NULL:
            return self._receive_nothing(status)
        doing = describe_receive("sendrecv", source, recvtag).replace(" tag=", " recvtag=") + ", receiving"
        received = self.endpoint.receive(
            self.context, number, recvtag, deadline=deadline, doing=doing, among=self.members
        )
        return self._unpack(received, status)

    @staticmethod
    def _receive_nothing(status: Status | None) -> None:
        if status is not None:
            status.describe_nothing()
