from __future__ import annotations

import os
import socket

import poolwork
import pytest

from klyng_mp.pooling import tasks
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.seats import Seat
from klyng_mp.pooling.tasks import Batch, Function, pack_work, unpack_work
from klyng_mp.pooling.worker import TASK, PureBench, WorkerOptions, call_function, worker_main
from klyng_mp.reduction import codec
from klyng_mp.wire.frames import FrameReader, Message, pack_frame


@pytest.mark.parametrize(
    ("how", "argument", "result"),
    [
        (tasks.CALL, 3, 3),
        (tasks.CALL_STAR, (3, 4), 7),
        (tasks.CALL_BOTH, ((3,), {"b": 5}), 8),
        (tasks.MAP, (1, 2), [1, 2]),
        (tasks.MAP_STAR, ((1, 2), (3, 4)), [3, 7]),
    ],
)
def test_how_functions_are_called(how, argument, result):
    assert call_function(how, poolwork.add, argument) == result


def test_the_pure_bench_leaves_its_task_to_the_caller():
    bench = PureBench()
    assert bench.work() is None
    batch = Batch.single(None, 7, codec().encode("abc"))
    bench.add(unpack_work(*pack_work(batch, 5, None)), "note")
    kind, context, index, note, code, head, buffers = bench.work()
    assert (kind, context, index, note, codec().decode(code, head, buffers)) == (TASK, 5, 7, "note", "abc")
    assert (bench.work(), bench.claims) == (None, 1)


def test_a_worker_over_a_socket(tmp_path):
    """Be a worker's parent by hand."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        ours.close()
        worker_main(Seat(1, 2, 0, (theirs.detach(),)), WorkerOptions(None, (), None, None, None))
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
        assert (answer.context, answer.tag, codec().decode(answer.code, answer.head)) == (5, number, number**2)
    ours.sendall(b"".join(pack_frame(Message(tasks.ORDER, 0, tasks.STOP, 0, 0, b"", ()))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ours.close()
