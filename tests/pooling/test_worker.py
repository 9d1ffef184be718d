"""A worker whose parent is played by the test."""

from __future__ import annotations

import os
import socket

import poolwork

from klyng_mp.pooling import tasks
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.seats import Seat
from klyng_mp.pooling.tasks import TASK_HEADER, Batch, Function, pack_work, unpack_answers
from klyng_mp.pooling.trays import TRAY_BYTES, make_tray, read_tray
from klyng_mp.pooling.worker import WorkerOptions, worker_main
from klyng_mp.reduction import codec
from klyng_mp.wire.frames import FrameReader, Message, pack_frame


def test_a_worker_over_a_socket():
    """Be a worker's parent by hand."""
    ours, theirs = socket.socketpair()
    tray = make_tray()
    child = os.fork()
    if not child:
        ours.close()
        worker_main(Seat(1, 2, 0, (theirs.detach(), tray)), WorkerOptions(None, (), None, None, None))
        os._exit(0)
    theirs.close()
    reader = FrameReader()
    messages = []

    def receive():
        while not messages:
            messages.extend(reader.received(ours.recv_into(reader.buffer())))
        return messages.pop(0)

    ready = receive()
    assert (ready.context, ready.tag) == (tasks.ORDER, tasks.READY)
    function = Function.of(poolwork.square, Encoder(forks=True))
    for number in (3, 4):
        batch = Batch.single(None, number, codec().encode(number))
        head, buffers = pack_work(batch, 5, function)
        function = None  # it is known now
        ours.sendall(b"".join(pack_frame(Message(tasks.WORK, 0, 0, 0, tasks.CALL, head, buffers))))
        answer = receive()
        count, busy_ns, offset = unpack_answers(answer.head)
        assert (answer.context, answer.tag, count) == (tasks.ANSWERS, number - 3, 1)
        assert busy_ns >= 0
        size, _, code = TASK_HEADER.unpack_from(answer.head, offset)
        assert codec().decode(code, answer.head[offset + TASK_HEADER.size :]) == number**2
        assert len(answer.head) == offset + TASK_HEADER.size + size
    ours.sendall(b"".join(pack_frame(Message(tasks.ORDER, 0, tasks.STOP, 0, 0, b"", ()))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ours.close()
    assert read_tray(os.pread(tray, TRAY_BYTES, 0)) == (2, [])
    os.close(tray)
