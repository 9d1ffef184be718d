"""The attendant: what comes is taken in while nobody waits, and nobody notices it otherwise."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from contracts.awaiting import AwaitingContract
from contracts.communicator import CommunicatorContract
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp import native
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.errors import DeadlineError, ForkedError
from klyng_mp.transports.stream import StreamTransport
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import make_context

ENOUGH = 1 << 24


class TestAttendedStream(CommunicatorContract):
    transport = "attended stream"
    # These need a receiver that takes nothing in.
    test_a_send_can_be_cancelled_until_it_began = None
    test_a_send_that_has_not_begun_in_time_is_withdrawn = test_a_large_send_to_the_lost_is_woken = None


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
@pytest.mark.slow
class TestAttendedShm(CommunicatorContract):
    transport = "attended shm"


class TestAwaitingAttendedStream(AwaitingContract):
    transport = "attended stream"
    test_an_exception_that_escapes_a_callback_spoils_and_wakes = None  # it may escape in the attendant: see below


def tcp_pair():
    """Return a pair of sockets with small buffers, so that a large message cannot stay with the kernel."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return one, other


def open_rank(number, sock):
    """Return the communicator of one of two ranks."""
    endpoint = Endpoint(number)
    transport = StreamTransport(endpoint, endpoint.poller, connect=lambda _: None)
    endpoint.use(transport)
    endpoint.mark_present(1 - number, 0)
    transport.adopt(1 - number, sock)
    codec = Codec(main_by_reference=True)
    return Communicator(endpoint, codec, context=make_context(1), rank=number, members=range(2))


def count_until(is_over):
    """Compute with the interpreter lock held."""
    number = 0
    while not is_over():
        for _ in range(1000):
            number += 1


def multiply_until(is_over):
    """Compute with the interpreter lock released."""
    matrix = np.ones((300, 300))
    while not is_over():
        matrix = matrix @ matrix * 1e-9


class Computing:
    """A process whose rank 1 computes until it is told to stop, then receives and sends back what it got."""

    def __init__(self, compute, *, attended):
        ours, theirs = tcp_pair()
        told, self._tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                ours.close()
                os.close(self._tell)
                comm = open_rank(1, theirs)
                if attended:
                    comm.endpoint.attend()
                comm.send("ready", 0)
                compute(lambda: select.select([told], [], [], 0)[0])
                comm.send(comm.recv(0), 0)
                comm.recv(0)
            finally:
                os._exit(0)
        theirs.close()
        os.close(told)
        self.comm = open_rank(0, ours)
        assert self.comm.recv(1, timeout=LIMIT) == "ready"

    def stop(self):
        os.write(self._tell, b"x")

    def close(self):
        self.comm.send("over", 1)
        os.close(self._tell)
        os.waitpid(self.pid, 0)
        self.comm.endpoint.close()


@pytest.mark.parametrize("size", [64 << 10, 1 << 20, 16 << 20])
@pytest.mark.parametrize("compute", [count_until, multiply_until])
def test_a_send_to_a_rank_that_computes_returns(compute, size):
    peer = Computing(compute, attended=True)
    data = np.frombuffer(os.urandom(1 << 16) * (size >> 16), dtype=np.uint8)
    try:
        peer.comm.send(data, 1, timeout=LIMIT / 3)  # and the rank would compute for ever
        peer.stop()
        assert (peer.comm.recv(1, timeout=LIMIT) == data).all()
    finally:
        peer.close()


def test_without_an_attendant_it_would_not():
    peer = Computing(count_until, attended=False)
    try:
        with pytest.raises(DeadlineError):
            peer.comm.send(bytes(ENOUGH), 1, timeout=0.3)
        peer.stop()
        assert peer.comm.recv(1, timeout=LIMIT) == bytes(ENOUGH)
    finally:
        peer.close()


@pytest.fixture
def pair():
    with ranks(2, "attended stream") as made:
        yield made


def idle(endpoint, is_so):
    """Wait until the attendant of an endpoint is in a state."""
    end = time.monotonic() + LIMIT
    while not is_so(endpoint.room.attendant):
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def is_watching(attendant):
    return attendant.is_watching


def sleeps(attendant):
    return attendant.wants_call and not attendant.is_watching


def wakeups_of(thread):
    with open(f"/proc/self/task/{thread.native_id}/status") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


def attendants():
    return [thread for thread in threading.enumerate() if thread.name == "klyng_mp attendant"]


@pytest.mark.parametrize("how", ["nobody waits", "somebody waits"])
def test_it_sleeps_while_nothing_happens(pair, how):
    comm = pair.comms[0]
    waiting = Background(lambda: comm.recv(1)) if how == "somebody waits" else None
    idle(comm.endpoint, is_watching if waiting is None else sleeps)
    thread = comm.endpoint.room.attendant._thread
    before = wakeups_of(thread)
    threading.Event().wait(0.3)
    assert wakeups_of(thread) - before <= 2
    if waiting is not None:
        pair.comms[1].send("x", 0)
        assert waiting.result() == "x"
        idle(comm.endpoint, is_watching)


def test_it_does_not_look_like_a_rank_that_waits(pair):
    endpoint = pair.endpoints[0]
    idle(endpoint, is_watching)
    with endpoint.lock:
        assert endpoint.waiters == []
        assert endpoint.lock.waiting == 0
    assert endpoint.waited() == {}


def test_what_it_took_in_is_there(pair):
    one, other = pair.comms
    idle(one.endpoint, is_watching)
    for number in range(100):
        other.send(number, 0)
    end = time.monotonic() + LIMIT
    while one.endpoint.statistics().messages_received < 100:  # nobody waits at rank 0
        assert time.monotonic() < end
        threading.Event().wait(0.001)
    assert [one.recv(1, timeout=0) for _ in range(100)] == list(range(100))


def test_it_ends_with_its_endpoint():
    before = len(attendants())
    with ranks(2, "attended stream") as made:
        made.endpoints[0].attend()
        assert len(attendants()) == before + 2
    assert len(attendants()) == before
    made.endpoints[0].attend()
    assert len(attendants()) == before


@pytest.mark.parametrize("how", ["nobody waits", "somebody waits"])
def test_an_errand_is_run_until_it_is_done(pair, how):
    comm, run, done = pair.comms[0], [], threading.Event()
    endpoint = comm.endpoint
    waiting = Background(lambda: comm.recv(1)) if how == "somebody waits" else None
    idle(endpoint, is_watching if waiting is None else sleeps)

    def errand():
        assert endpoint.lock._is_owned()
        run.append(threading.current_thread())
        if len(run) == 3:
            done.set()
        return len(run) == 3

    with endpoint.lock:
        endpoint.room.leave_to_attendant(errand)
    assert done.wait(LIMIT)
    idle(endpoint, is_watching if waiting is None else sleeps)
    assert run == [endpoint.room.attendant._thread] * 3
    before = wakeups_of(run[0])
    threading.Event().wait(0.3)
    assert wakeups_of(run[0]) - before <= 2
    if waiting is not None:
        pair.comms[1].send("x", 0)
        assert waiting.result() == "x"


def test_it_can_be_stopped_and_started_again(pair):
    one, other = pair.comms
    thread = one.endpoint.room.attendant._thread
    with one.endpoint.lock:
        one.endpoint.room.leave_to_attendant(lambda: False)
    one.endpoint.room.dismiss_attendant()
    assert not thread.is_alive()
    one.endpoint.room.dismiss_attendant()
    other.send("x", 0)
    assert one.recv(1, timeout=LIMIT) == "x"
    one.endpoint.attend()
    sender = Background(lambda: other.send(bytes(ENOUGH), 0, timeout=LIMIT))
    sender.result()  # although nobody receives
    assert one.recv(1, timeout=LIMIT) == bytes(ENOUGH)


def test_it_may_be_closed_while_somebody_waits(pair):
    comm = pair.comms[0]
    about_to_wait = when_waiting(comm.endpoint)
    waiting = Background(lambda: comm.recv(1))
    assert about_to_wait.wait(LIMIT)
    comm.endpoint.close()
    with pytest.raises(Exception, match="has closed its communicator"):
        waiting.result()
    assert comm.endpoint.room.attendant is None


def test_an_exception_in_it_poisons_the_endpoint_and_is_told(pair, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    endpoint = pair.endpoints[0]
    reader, writer = os.pipe()
    endpoint.watch(reader, lambda _: 1 / 0)
    idle(endpoint, is_watching)
    thread = endpoint.room.attendant._thread
    os.write(writer, b"x")
    thread.join(LIMIT)
    assert told == [ZeroDivisionError]
    assert endpoint.poisoned
    with pytest.raises(Exception, match="interrupted this rank"):
        pair.comms[0].recv(1)
    for fd in (reader, writer):
        os.close(fd)


def test_a_forked_child_has_none_and_its_parent_keeps_its_own(pair):
    one, other = pair.comms
    idle(one.endpoint, is_watching)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            one.recv(1)
        except ForkedError:
            code = 0 if one.endpoint.room.attendant is None else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    other.send("x", 0)
    assert one.recv(1, timeout=LIMIT) == "x"


def test_a_signal_reaches_the_main_thread_in_its_wait(pair):
    def interrupt(*_):
        raise InterruptedError("by a signal")

    one = pair.comms[0]
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        about_to_wait = when_waiting(one.endpoint)
        killer = Background(lambda: about_to_wait.wait(LIMIT) and os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(InterruptedError):
            one.recv(1, timeout=LIMIT)
        killer.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_loop_whose_task_computes_is_served(pair):
    one, other = pair.comms
    began, over = threading.Event(), threading.Event()

    async def main():
        request = one.irecv(1, "awaited")
        waiting = asyncio.ensure_future(_await(request))
        await asyncio.sleep(0)
        began.set()
        count_until(over.is_set)  # and the loop looks at nothing
        return await waiting

    def send():
        began.wait(LIMIT)
        other.send(bytes(ENOUGH), 0, "large", timeout=LIMIT)
        over.set()
        other.send("x", 0, "awaited")

    sender = Background(send)
    assert asyncio.run(main()) == "x"
    sender.result()
    assert one.recv(1, "large") == bytes(ENOUGH)


async def _await(request):
    return await request


def test_who_has_no_remote_peers_does_not_import_it():
    code = (
        "import sys, klyng_mp as mp; mp.send(1, 0); mp.recv(0); print(any('attendant' in name for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")
