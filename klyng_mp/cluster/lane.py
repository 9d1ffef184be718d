"""The short way of small messages through MPI: from the caller's object to mpi4py's own send, and back.

Layer: cluster. As the core's `Express`, it does what Communicator, Codec, Endpoint and transport do together in the
usual case, and leaves all else as it is to the long way: another thread is inside or waits, a message or a receive
waits in the mailbox, large buffers are on their way, the peer is this rank, the tag is none of MPI's, the object is
not small and of everyday types.

A small object goes as mpi4py sends it, a bare pickle under the user's own tag, and is received by a matched probe. It
is small if MPI surely takes it at once (`_MOST_BYTES`), so that a send here never waits for its receiver.
"""

from __future__ import annotations

from os import sched_yield
from typing import TYPE_CHECKING, Any

from klyng_mp.communicator.express import NOT_YET, NOTHING
from klyng_mp.native import core
from klyng_mp.transports.mpi_messages import Frame
from klyng_mp.wire.codec import PICKLE

if TYPE_CHECKING:
    from klyng_mp.communicator.endpoint import Endpoint
    from klyng_mp.communicator.express import ExpressCodec
    from klyng_mp.transports.mpi import MpiTransport

__all__ = ["Lane"]

_MOST_BYTES = 2000  # of a pickle: all MPIs send 4 KiB eagerly
_LOOKS = 2000  # for a message, where a core is free to wait on: about a millisecond
_FEW_LOOKS = 16  # where there is none, each after others had the processor


class Lane:
    """The short way of one communicator's messages, or of its collectives'; see `klyng_mp._core.Express`.

    Args:
        endpoint: this rank's.
        transport: its own, for what MPI has in store.
        lane: which communicator of MPI: `USERS` or `COLLECTIVE`.
        context: of the messages.
        codec: says why a message cannot be rebuilt.
        spin: whether a core is free to wait on.
    """

    __slots__ = (
        "_blame", "_came", "_context", "_gate", "_improbe", "_is_posted", "_is_stored", "_lane", "_looks",
        "_mailbox", "_most", "_own", "_send", "_size", "_spin", "_transport", "_went",
    )  # fmt: skip

    def __init__(
        self, endpoint: Endpoint, transport: MpiTransport, lane: int, *, context: int, codec: ExpressCodec, spin: bool
    ) -> None:
        comm = transport.comms[lane]
        self._gate = endpoint.lock
        self._mailbox = endpoint.mailbox
        self._is_stored = endpoint.mailbox.is_stored
        self._is_posted = endpoint.mailbox.is_posted
        self._transport = transport
        self._lane = lane
        self._context = context
        self._blame = codec.decode_error
        self._most = transport.most
        self._own = endpoint.number
        self._size = comm.Get_size()
        self._send = comm.send
        self._improbe = comm.improbe
        self._went = transport.passed_out[lane]
        self._came = transport.passed_in[lane]
        self._spin = spin
        self._looks = _LOOKS if spin else _FEW_LOOKS

    def send(self, obj: object, dest: int, tag: int | str) -> bool:
        """See `klyng_mp._core.Express.send`."""
        if (
            type(dest) is not int
            or type(tag) is not int
            or not 0 <= tag <= self._most
            or not 0 <= dest < self._size
            or dest == self._own
            or not core.is_small(obj, _MOST_BYTES)
            or not self._gate.is_open(self._context)
        ):
            return False
        self._send(obj, dest, tag)
        self._went[dest] += 1
        return True

    def recv(self, source: int, tag: int | str) -> Any:
        """See `klyng_mp._core.Express.recv`; looks for a while."""
        if (
            type(source) is not int
            or type(tag) is not int
            or not 0 <= tag <= self._most
            or not 0 <= source < self._size
            or source == self._own
        ):
            return NOTHING
        gate, context, improbe, transport = self._gate, self._context, self._improbe, self._transport
        is_stored, is_posted = self._is_stored, self._is_posted
        for _ in range(self._looks):
            if transport.incoming or not gate.is_open(context) or is_stored(context) or is_posted(context):
                return NOTHING
            found = improbe(source, tag)
            if found is not None:
                return self._open(found, source)
            if not self._spin:
                sched_yield()
        return NOT_YET

    def _open(self, found: Any, source: int) -> Any:
        try:
            obj = found.recv()
        except Exception as error:
            self._count(source)
            raise self._blame(error, PICKLE, b"") from error
        if type(obj) is Frame:
            with self._gate:
                self._transport.take(self._lane, source, obj)
            return NOTHING
        self._count(source)
        return obj

    def _count(self, source: int) -> None:
        self._came[source] += 1
        self._mailbox.count_taken(self._context)
