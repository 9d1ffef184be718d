"""How an endpoint's life goes on and ends: abort, close, poison, and fork."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.deadline import Deadline
from klyng_mp.errors import ClosedError, DeadlineError, ForkedError, PeerLostError


@pytest.fixture
def endpoint():
    made = Endpoint(3)
    yield made
    made.close()


@pytest.fixture
def doorbell(endpoint):
    """Give a socket; what is sent to it is appended to ``heard`` by a callback of the endpoint."""
    ours, theirs = socket.socketpair()
    heard = []
    endpoint.watch(theirs.fileno(), lambda _: heard.append(theirs.recv(100)))
    yield ours, heard
    endpoint.unwatch(theirs.fileno())
    ours.close()
    theirs.close()


def test_wait_for_whatever_a_callback_brings(endpoint, doorbell):
    ours, heard = doorbell
    waiting = when_waiting(endpoint, 2)
    calls = [Background(lambda: endpoint.wait(lambda: bool(heard), Deadline(None), "it")) for _ in range(2)]
    assert waiting.wait(LIMIT)
    ours.send(b"x")
    for call in calls:
        call.result()


def test_progress_calls_back_without_waiting(endpoint, doorbell):
    ours, heard = doorbell
    endpoint.progress()
    assert heard == []
    ours.send(b"x")
    endpoint.progress()
    assert heard == [b"x"]


def test_callbacks_run_with_the_lock_held(endpoint):
    held = []
    other, theirs = socket.socketpair()
    endpoint.watch(theirs.fileno(), lambda _: held.append((theirs.recv(1), endpoint.lock._is_owned())))
    other.send(b"x")
    endpoint.wait(lambda: bool(held), Deadline(LIMIT), "it")
    assert held == [(b"x", True)]
    endpoint.unwatch(theirs.fileno())
    other.close()
    theirs.close()


def test_wait_gives_up(endpoint):
    with pytest.raises(DeadlineError, match=r"the answer did not finish within 0\.01 s"):
        endpoint.wait(lambda: False, Deadline(0.01), "the answer")


def test_abort_until_resume(endpoint):
    assert endpoint.failure("x") is None
    assert not endpoint.aborted
    waiting = when_waiting(endpoint)
    call = Background(lambda: endpoint.wait(lambda: False, Deadline(None), "it"))
    assert waiting.wait(LIMIT)
    endpoint.abort("was killed by SIGKILL", 7)
    assert endpoint.aborted
    with pytest.raises(PeerLostError, match="rank 7 was killed by SIGKILL; this rank was in it") as caught:
        call.result()
    assert (caught.value.rank, caught.value.reason) == (7, "was killed by SIGKILL")
    assert str(endpoint.failure("that")) == "rank 7 was killed by SIGKILL; this rank was in that"
    endpoint.wait(lambda: True, Deadline(None), "what is there already")
    endpoint.resume()
    assert not endpoint.aborted
    assert endpoint.failure("x") is None


def test_close_is_for_ever(endpoint):
    endpoint.close()
    endpoint.abort("x", None)
    endpoint.resume()
    with pytest.raises(ClosedError, match="has closed its communicator, so it cannot be done"):
        endpoint.wait(lambda: False, Deadline(None), "it")


def test_a_callback_that_fails_poisons(endpoint):
    other, theirs = socket.socketpair()

    def callback(_events):
        theirs.recv(1)
        raise KeyboardInterrupt

    endpoint.watch(theirs.fileno(), callback)
    other.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        endpoint.wait(lambda: False, Deadline(LIMIT), "it")
    assert endpoint.poisoned
    endpoint.resume()
    with pytest.raises(ClosedError, match="an exception interrupted this rank while it moved messages"):
        endpoint.wait(lambda: False, Deadline(LIMIT), "it")
    endpoint.unwatch(theirs.fileno())
    other.close()
    theirs.close()


def test_ctrl_c_in_a_wait_is_seen_at_once_and_harmless():
    with ranks(2) as made:
        sender, receiver = made.comms
        waiting = when_waiting(receiver.endpoint)

        def interrupt():
            assert waiting.wait(LIMIT)
            os.kill(os.getpid(), signal.SIGINT)

        interrupter = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            receiver.recv(0)
        interrupter.result()
        assert not receiver.endpoint.poisoned
        sender.send("after", 1)
        assert receiver.recv(0, timeout=LIMIT) == "after"


def in_child(action):
    """Call ``action`` in a forked child; return what it returned, as text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(action()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def attempt(action):
    try:
        return action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("transport", ["memory", "stream"])
def test_a_forked_child_is_refused_and_harms_nobody(transport):
    with ranks(2, transport) as made:
        first, second = made.comms
        first.send("before", 1)

        def child():
            fds = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_is_open(fd)}
            return [
                attempt(lambda: first.send("x", 1)),
                attempt(second.recv),
                attempt(second.iprobe),
                attempt(first.barrier),
                attempt(first.endpoint.close),
                [name for name in fds if "socket" in name or "eventfd" in name or "eventpoll" in name],
            ]

        said = in_child(child)
        assert "ForkedError: send(dest=1, tag=0) was called in a child that was forked from rank 0" in said
        assert "ForkedError: recv(source=ANY_SOURCE, tag=ANY_TAG) was called in a child" in said
        assert said.count("ForkedError") == 4
        assert said.endswith("None, []]")
        assert second.recv(0, timeout=LIMIT) == "before"
        second.send("after", 0)
        assert first.recv(1, timeout=LIMIT) == "after"


def fd_is_open(fd):
    return os.path.exists(f"/proc/self/fd/{fd}")


def test_a_child_that_was_forked_while_another_thread_held_the_lock_does_not_hang():
    with ranks(2) as made:
        first = made.comms[0]
        held, leave = threading.Event(), threading.Event()

        def hold():
            with first.endpoint.lock:
                held.set()
                assert leave.wait(LIMIT)

        holder = Background(hold)
        assert held.wait(LIMIT)
        said = in_child(lambda: attempt(lambda: first.send("x", 1)))
        leave.set()
        holder.result()
        assert said.startswith(ForkedError.__name__)
