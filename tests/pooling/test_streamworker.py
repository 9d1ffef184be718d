"""A worker behind a socket whose parent says what it likes."""

from __future__ import annotations

import os
import socket

import poolwork
import pytest

from klyng_mp.pooling import tasks
from klyng_mp.pooling.encoding import Encoder
from klyng_mp.pooling.seats import Seat
from klyng_mp.pooling.tasks import Batch, Function, pack_count, pack_work, unpack_answers, unpack_count
from klyng_mp.pooling.trays import TRAY_BYTES, make_tray, read_tray
from klyng_mp.pooling.worker import WorkerOptions, worker_main
from klyng_mp.reduction import codec
from klyng_mp.wire.frames import FrameReader, Message, pack_frame


class Parent:
    def __init__(self):
        self.sock, theirs = socket.socketpair()
        self.tray = make_tray()
        self.reader = FrameReader()
        self.messages = []
        self.child = os.fork()
        if not self.child:
            self.sock.close()
            worker_main(Seat(1, 2, 0, (theirs.detach(), self.tray)), WorkerOptions(None, (), None, None, None))
            os._exit(0)
        theirs.close()
        assert self.receive().tag == tasks.READY

    def receive(self):
        while not self.messages:
            count = self.sock.recv_into(self.reader.buffer())
            assert count
            self.messages.extend(self.reader.received(count))
        return self.messages.pop(0)

    def send(self, context, tag, code, head, buffers=()):
        self.sock.sendall(
            b"".join(bytes(part) for part in pack_frame(Message(context, 0, tag, 0, code, head, buffers)))
        )

    def give(self, function, *items):
        encoded = [codec().encode(item) for item in items]
        batch = Batch.single(None, 0, encoded[0])
        for index, item in enumerate(encoded[1:], 1):
            batch.add(Batch.single(None, index, item))
        self.send(tasks.WORK, 0, tasks.CALL, *pack_work(batch, 5, Function.of(function, Encoder(forks=True))))

    def count_answers(self, wanted):
        """Return how many messages it took to bring so many answers."""
        got = messages = 0
        while got < wanted:
            answer = self.receive()
            assert (answer.context, answer.tag) == (tasks.ANSWERS, got)
            got += unpack_answers(answer.head)[0]
            messages += 1
        return messages

    def end(self):
        self.send(tasks.ORDER, tasks.STOP, 0, b"")
        assert os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1]) == 0


@pytest.fixture
def parent():
    parent = Parent()
    yield parent
    parent.sock.close()
    os.close(parent.tray)


def test_small_answers_share_messages(parent):
    parent.give(poolwork.square, *range(2000))
    assert parent.count_answers(2000) < 500
    parent.end()
    assert read_tray(os.pread(parent.tray, TRAY_BYTES, 0)) == (2000, [])


def test_tasks_are_given_back_while_one_goes_on(parent, tmp_path):
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    parent.give(poolwork.read_file, path, *[os.devnull] * 9)
    with open(path, "w") as writer:  # the first one has begun
        for most, given in ((4, 4), (100, 5), (1, 0)):
            parent.send(tasks.ORDER, tasks.RECALL, 0, pack_count(most))
            answer = parent.receive()
            assert (answer.context, answer.tag) == (tasks.ORDER, tasks.GIVEN)
            assert unpack_count(answer.head) == given
        writer.write("said")
    assert parent.count_answers(1) == 1
    parent.end()


def test_an_answer_does_not_wait_for_a_long_task(parent, tmp_path):
    path = str(tmp_path / "file")
    parent.give(poolwork.wait_for_file, os.devnull, path)
    assert parent.count_answers(1) == 1
    (tmp_path / "file").touch()
    assert unpack_answers(parent.receive().head)[0] == 1
    parent.end()


def test_it_ends_with_its_parent(parent):
    parent.sock.close()
    assert os.waitstatus_to_exitcode(os.waitpid(parent.child, 0)[1]) == 0
