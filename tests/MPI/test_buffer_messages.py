"""Messages of buffers, beyond what the programs of mpi4py show."""

from __future__ import annotations

import numpy as np
import pytest
from mpi_ranks import on_ranks

from klyng_mp import MPI


def test_a_message_that_is_larger_than_the_buffer_is_not_taken():
    def program(comm):
        comm.Send(np.arange(1000.0), dest=0, tag=2)
        with pytest.raises(MPI.Exception, match=r"8000 bytes, and the buffer 7992; it was not taken"):
            comm.Recv(np.empty(999), source=0, tag=2)
        status = MPI.Status()
        comm.Probe(0, 2, status)
        enough = np.zeros(status.Get_count(MPI.DOUBLE))
        comm.Recv(enough)
        return enough.size, enough[-1]

    assert on_ranks(1, program) == [(1000, 999.0)]


@pytest.mark.parametrize("length", [0, 1, 511, 512, 20_000])
def test_a_status_knows_the_length_whatever_it_is(length):
    def send(comm):
        comm.Send(np.arange(length, dtype="d"), dest=1)

    def receive(comm):
        status, into = MPI.Status(), np.full(length + 1, -1.0)
        comm.Probe(0, status=status)
        probed = status.Get_count(MPI.DOUBLE)
        comm.Recv(into, 0, status=status)
        assert into[:-1].tolist() == list(range(length))
        return probed, status.Get_count(MPI.DOUBLE), into[-1]

    assert on_ranks(2, send, receive)[1] == (length, length, -1.0)


def test_types_are_not_compared_as_in_mpi():
    def program(comm):
        comm.Send(np.arange(2000, dtype="i"), dest=0)
        into = np.zeros(1000)
        comm.Recv([into, MPI.DOUBLE], source=0)
        return into.view("i")[5]

    assert on_ranks(1, program) == [5]


def test_both_may_send_large_arrays_to_each_other():
    def program(comm):
        other = 1 - comm.rank
        mine, theirs = np.full(300_000, float(comm.rank)), np.empty(300_000)
        comm.Sendrecv(mine, other, 1, theirs, other, 1)
        comm.Sendrecv_replace(mine, other, 2, other, 2)
        return theirs[-1], mine[0]

    assert on_ranks(2, program) == [(1.0, 1.0), (0.0, 0.0)]


def test_requests_of_buffers():
    def program(comm):
        into = bytearray(4)
        receiving = comm.Irecv(into, 0, 1)
        assert not receiving.Test()
        comm.Isend(b"text", 0, 1).Wait()
        status = MPI.Status()
        assert receiving.Test(status)
        return bytes(into), status.count

    assert on_ranks(1, program) == [(b"text", 4)]


def test_memory_that_cannot_be_written_to_is_refused():
    def program(comm):
        with pytest.raises((TypeError, MPI.Exception), match="read-only"):
            comm.Recv(bytes(3), source=0)

    on_ranks(1, program)
