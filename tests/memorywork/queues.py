"""Scenarios of queues, and of segments that are received."""

from __future__ import annotations

import mmap
import os
import socket
from contextlib import closing, contextmanager
from functools import partial

from memorywork.driver import each, scenario
from memorywork.matching import accept

import klyng_mp._core as core


@contextmanager
def queue_with(memory=-1, travels=False):
    """Yield what makes a queue on a socket and a bell of its own."""
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    with receiver, sender:
        yield partial(core.Queue, memory, travels, receiver.fileno(), sender.fileno(), bell)
    os.close(bell)


@each(forks=False, anybody=True)
def make_queue(travels):
    with queue_with(travels=travels) as make:
        got = yield make
        assert got.error is not None or (got.value.size, got.value.fd >= 0) == (0, travels)


@scenario
def open_queue():
    with queue_with(travels=True) as make:
        made = make()
        made.put(b"thing", 0)
        memory = os.dup(made.fd)
        with queue_with(memory) as open_it:
            got = yield open_it
            assert got.error is not None or got.value.get(0) == b"thing"


@scenario
def open_what_is_no_queue():
    with closing(socket.socket()) as other, queue_with(os.dup(other.fileno())) as make:
        got = yield partial(accept, ValueError, make)
        assert got.error is not None or got.value is ValueError


@each(small=b"x", nothing=b"", large=b"x" * 50_000)
def put_bytes(data):
    with queue_with() as make:
        queue = make()
        got = yield partial(queue.put, data, 0)
        assert queue.get(0) == (None if got.error is not None else data)


@each(few=(b"x",), wrong=("text", 0), limit=(b"x", "all"), long=(bytes(core.LARGEST_RECORD + 1), 0))
def put_refused(args):
    with queue_with() as make:
        queue = make()
        got = yield partial(accept, (TypeError, ValueError), partial(queue.put, *args))
        assert got.error is not None or got.value in (TypeError, ValueError)
        assert queue.size == 0


@each(bytes=False, descriptor=True)
def get_what_is_there(is_large):
    with queue_with() as make:
        queue = make()
        here, there = os.pipe()
        if is_large:
            queue.put_descriptor(there, 0)
        else:
            queue.put(b"thing", 0)
        got = yield partial(queue.get, 0)
        if is_large and got.error is None:
            os.close(got.value)
        left = (0,) if got.error is None else (0, 1) if is_large else (1,)
        assert queue.size in left, "bytes for which there is no memory stay"
        os.close(here)
        os.close(there)


@scenario
def map_a_segment():
    fd = os.memfd_create("segment")
    os.ftruncate(fd, 3 * mmap.PAGESIZE)
    os.pwrite(fd, b"\1", 0)
    os.pwrite(fd, b"data", mmap.PAGESIZE)
    got = yield partial(core.Mapping, fd)
    assert got.error is not None or bytes(memoryview(got.value)[:4]) == b"data"
    assert os.pread(fd, 1, 0) == b"\1"
    os.close(fd)


@scenario
def map_what_is_no_segment():
    fd = os.memfd_create("nothing")
    got = yield partial(accept, ValueError, partial(core.Mapping, fd))
    assert got.error is not None or got.value is ValueError
    os.close(fd)
