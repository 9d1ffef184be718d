"""Statuses, requests and matched messages, beyond what the programs of mpi4py show."""

from __future__ import annotations

import pytest
from mpi_ranks import on_ranks

from klyng_mp import MPI
from klyng_mp.communicator import requests as own
from klyng_mp.errors import LocalProtocolError
from klyng_mp.MPI.statuses import describe, start


def test_a_status_counts_elements():
    status = MPI.Status()
    assert (status.source, status.tag, status.count, status.error) == (MPI.ANY_SOURCE, MPI.ANY_TAG, 0, 0)
    describe(status, own.Status(3, 4, 16))
    assert (status.Get_source(), status.Get_tag(), status.Get_count(), status.Get_error()) == (3, 4, 16, 0)
    assert (status.Get_count(MPI.DOUBLE), status.Get_elements(MPI.INT)) == (2, 4)
    status.Set_elements(MPI.INT, 3)
    assert status.Get_count(MPI.DOUBLE) == MPI.UNDEFINED
    copy = MPI.Status(status)
    assert (copy.source, copy.tag, copy.count) == (3, 4, 12)
    describe(status, None)
    assert status.source == MPI.ANY_SOURCE
    describe(None, own.Status(3, 4, 16))


def test_a_status_is_what_it_is_set_to():
    status = MPI.Status()
    status.Set_source(1)
    status.Set_tag(2)
    status.Set_error(3)
    status.Set_cancelled(True)
    status.count = 8
    assert (status.source, status.tag, status.error, status.cancelled, status.Get_count()) == (1, 2, 3, True, 8)
    assert repr(status) == "<Status source=1 tag=2 count=8>"


def test_a_request_is_null_once_it_was_waited_for():
    def program(comm):
        request = comm.irecv(source=0)
        before = bool(request), request == MPI.REQUEST_NULL, MPI.Request(request) == request
        comm.send("x", dest=0)
        return before, request.wait(), bool(request), request == MPI.REQUEST_NULL, request.wait()

    assert on_ranks(1, program) == [((True, False, True), "x", False, True, None)]


def test_a_look_leaves_a_request_as_it_is():
    def program(comm):
        request, status = comm.irecv(source=0), MPI.Status()
        assert not request.Get_status(status)
        comm.send("x", dest=0, tag=6)
        assert request.Get_status()
        assert request
        assert request.wait(status) == "x"
        return status.tag

    assert on_ranks(1, program) == [6]


def test_one_that_is_taken_back_fills_nothing():
    def program(comm):
        into, status = bytearray(3), MPI.Status()
        request = comm.Irecv(into, source=0)
        request.Cancel()
        request.Wait(status)
        return bytes(into), status.Is_cancelled()

    assert on_ranks(1, program) == [(bytes(3), True)]


def test_what_is_too_large_for_its_buffer_is_told_when_it_is_waited_for():
    def program(comm):
        request = comm.Irecv(bytearray(3), source=0)
        comm.Send(b"four", dest=0)
        with pytest.raises(LocalProtocolError, match=r"Irecv\(\): what came has 4 bytes"):
            request.Wait()

    on_ranks(1, program)


def test_statuses_that_are_lacking_are_added():
    def program(comm):
        requests = [comm.irecv(source=0, tag=tag) for tag in range(3)]
        for tag in range(3):
            comm.send(tag, dest=0, tag=tag)
        statuses = [MPI.Status()]
        assert MPI.Request.waitall(requests, statuses) == [0, 1, 2]
        return [one.tag for one in statuses]

    assert on_ranks(1, program) == [[0, 1, 2]]


def test_forgetting_a_request_leaves_it_going_on():
    def program(comm):
        request = comm.isend("x", dest=0)
        request.Free()
        assert not request
        return comm.recv()

    assert on_ranks(1, program) == ["x"]


class Found:
    """A matched message as the communicator has it."""

    status = own.Status(1, 2, 4)

    def recv(self):
        return b"text"


def test_a_matched_message_is_received_once():
    class Comm:
        def mprobe(self, source, tag, status):
            from klyng_mp.MPI.object_calls import message_of

            return message_of(Found(), status)

        improbe = mprobe

    status = MPI.Status()
    message = MPI.Message.probe(Comm(), 1, 2, status)
    assert (bool(message), status.tag, message.recv(status), bool(message)) == (True, 2, b"text", False)
    into = bytearray(4)
    MPI.Message.Iprobe(Comm()).Recv(into, status)
    assert (into, status.count) == (b"text", 4)
    assert not MPI.Message()


def test_what_is_shown_of_a_request():
    assert repr(start(None)) == "REQUEST_NULL"
    assert hash(MPI.REQUEST_NULL) == hash(MPI.Request())
