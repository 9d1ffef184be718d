"""Endpoints of one process, joined by the real MPI: each receives in communicators of its own, of this process only."""

from __future__ import annotations

from mpi4py import MPI

from klyng_mp.transports.mpi import MpiTransport
from klyng_mp.transports.mpi_sending import Comms, Way

_spare = [Comms.of(MPI.COMM_SELF)]  # communicators are many, and MPI has not many


def open_inboxes(numbers):
    return {number: Way(_spare.pop() if _spare else Comms.of(MPI.COMM_SELF), 0) for number in numbers}


def make_transport(sink, poller, inboxes, *, context=1 << 32):
    peers = {number: way for number, way in inboxes.items() if number != sink.number}
    return MpiTransport(sink, poller, comms=inboxes[sink.number].comms, peers=peers, context=context, spin=False)


def close_inboxes(inboxes):
    """Take out what is left, so that others can use them."""
    for way in inboxes.values():
        for comm in way.comms:
            while (found := comm.Improbe(MPI.ANY_SOURCE, MPI.ANY_TAG, status := MPI.Status())) is not None:
                found.Recv((bytearray(status.Get_count(MPI.BYTE)), MPI.BYTE))
        _spare.append(way.comms)
