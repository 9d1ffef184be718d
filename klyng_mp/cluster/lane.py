"""The short way of small messages through MPI: from the caller's object to mpi4py's own send, and back.

Layer: cluster. As the core's `Express`, it does what Communicator, Codec, Endpoint and transport do together in the
usual case, and leaves all else as it is to the long way: another thread is inside or waits, a message or a receive
waits in the mailbox, large buffers are on their way, the peer is this rank, the tag is none of MPI's, the object is
not small and of everyday types.

A small object goes as mpi4py sends it, a bare pickle under the user's own tag, and is received by a matched probe. It
is small if MPI surely takes it at once (`_MOST_BYTES`), so that a send here never waits for its receiver.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.native import core
from klyng_mp.transports.mpi_messages import Frame
from klyng_mp.transports.mpi_sending import COLLECTIVE
from klyng_mp.wire.codec import PICKLE

if TYPE_CHECKING:
    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.communicator.express import ExpressCodec
    from klyng_mp.communicator.requests import Status
    from klyng_mp.transports.mpi import MpiTransport

__all__ = ["Lane", "unwrap"]

_MOST_BYTES = 2000  # of a pickle: all MPIs send 4 KiB eagerly
_LOOKS = 1500  # for a message, where a core is free to wait on: about half a millisecond
_FEW_LOOKS = 16  # where there is none, each followed by a turn of others


class Lane:
    """The short way of one communicator's messages, or of its collectives'; see `klyng_mp._core.Express`.

    Args:
        endpoint: this rank's.
        transport: its own, for what MPI has in store.
        lane: which communicator of MPI: `USERS` or `COLLECTIVE`.
        context: of the messages.
        codec: says why a message cannot be rebuilt.
        spin: whether a core is free to wait on.

    Attributes:
        send: see `klyng_mp._core.Express.send`.
        recv: see `klyng_mp._core.Express.recv`; looks for a while.
    """

    __slots__ = ("_blame", "_gate", "_lane", "_note_in", "_transport", "recv", "send")

    def __init__(
        self, endpoint: Endpoint, transport: MpiTransport, lane: int, *, context: int, codec: ExpressCodec, spin: bool
    ) -> None:
        comm = transport.comms[lane]
        fence = core.Fence(
            endpoint.lock,
            endpoint.mailbox,
            context,
            size=comm.Get_size(),
            own=endpoint.number,
            most=transport.most,
            half=transport.half if lane == COLLECTIVE else 0,
            largest=_MOST_BYTES,
            send=comm.send,
            probe=comm.improbe,
            odd=self._handle,
            frame=Frame,
            any_rank=transport.any_rank,
            any_tag=transport.any_tag,
            status=transport.status,
            looks=_LOOKS if spin else _FEW_LOOKS,
            yields=not spin,
        )
        transport.passed[lane] = fence
        self._gate = endpoint.lock
        self._transport = transport
        self._lane = lane
        self._blame = codec.decode_error
        self.send, self.recv, self._note_in = fence.send, fence.recv, fence.note_in

    def recv_telling(self, source: int, tag: int | str, status: Status) -> Any:
        """See `Ways.telling`."""
        with self._gate:  # nobody else has MPI tell of another message meanwhile
            got = self.recv(source, tag)
            if got is not NOTHING and got is not NOT_YET:
                told = self._transport.status
                status.source, status.tag, status.count = told.Get_source(), told.Get_tag(), told.Get_count()
            return got

    def _handle(self, obj: Any, error: Exception | None, source: int, tag: int) -> Any:
        """Do what is to be done with what has come, where it is not for the caller as it is."""
        if error is not None:
            self._note_in(source)
            raise self._blame(error, PICKLE, b"") from error
        if type(obj) is Frame:
            with self._gate:
                self._transport.take(self._lane, source, obj)
            return NOTHING
        own, obj = obj
        if own != tag:  # it is of a call that this rank has given up
            with self._gate:
                self._transport.take_bare(self._lane, source, own, pickle.dumps(obj, pickle.HIGHEST_PROTOCOL))
            return NOTHING
        self._note_in(source)
        return obj


def unwrap(data: bytes | bytearray) -> tuple[int, bytes]:
    """Return a tag, and the pickle of an object, that went as one pickle."""
    tag, obj = pickle.loads(data)  # noqa: S301 - of a rank, as what others send is
    return tag, pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
