"""The calls on objects, beyond what the programs of mpi4py show."""

from __future__ import annotations

import pytest
from mpi_ranks import on_ranks

from klyng_mp import MPI
from klyng_mp.errors import LocalProtocolError


def test_memory_for_the_pickle_is_not_needed():
    def program(comm):
        comm.send({"a": 1}, 0, 3)
        comm.send({"a": 2}, 0, 3)
        status = MPI.Status()
        first = comm.recv(bytearray(100), MPI.ANY_SOURCE, 3, status)
        return first, comm.irecv(bytearray(100), 0, 3).wait(), status.tag, status.source

    assert on_ranks(1, program) == [({"a": 1}, {"a": 2}, 3, 0)]


def test_a_status_is_left_alone_where_there_is_no_message():
    status = MPI.Status()
    status.Set_tag(5)

    def program(comm):
        return comm.iprobe(0, 7, status), status.tag

    assert on_ranks(1, program) == [(False, 5)]


def test_a_communicator_that_is_none_says_so():
    with pytest.raises(LocalProtocolError, match="COMM_NULL"):
        MPI.COMM_NULL.send(1, dest=0)


def test_an_operator_may_be_any_function():
    found = on_ranks(3, lambda comm: (comm.allreduce(comm.rank, op=max), comm.reduce("x", lambda a, b: a + b, 1)))
    assert found == [(2, None), (2, "xxx"), (2, None)]
