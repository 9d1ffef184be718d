"""launch.state: what a rank says of itself, and why it cannot tell."""

from __future__ import annotations

import os
import pickle

import hangwork
import pytest

import klyng_mp as mp
from klyng_mp.communicator.communicator import Communicator
from klyng_mp.communicator.endpoint import Endpoint
from klyng_mp.launch.state import ENDED, IDLE, RUNNING, WAITING, describe_begin, describe_idle, describe_rank
from klyng_mp.wire.codec import Codec
from klyng_mp.wire.frames import make_context

RUN = 3


@pytest.fixture
def endpoint():
    endpoint = Endpoint(0)
    endpoint.begin_run(make_context(RUN))
    yield endpoint
    endpoint.close()


@pytest.fixture
def comm(endpoint):
    return Communicator(endpoint, Codec(main_by_reference=True), context=make_context(RUN), rank=0, members=[0])


@pytest.fixture
def ask(endpoint):
    """Describe this process from a callback, while it waits, as a rank does; then let the wait end by a message."""
    asked = os.eventfd(0)
    os.eventfd_write(asked, 1)

    def ask(wait, comm):
        states = []

        def answer(_events):
            os.eventfd_read(asked)
            states.append(describe_rank(endpoint, RUN))
            comm.send("enough", 0, "end")

        endpoint.watch(asked, answer)
        wait()
        return states[0]

    yield ask
    os.close(asked)


def test_who_waits_tells_what_for_and_where(ask, comm):
    comm.send("unclaimed", 0, "other")
    state = ask(lambda: comm.recv(0, "end"), comm)
    assert (state.rank, state.pid, state.phase) == (0, os.getpid(), WAITING)
    assert (state.call, state.peers, state.seconds) == ("recv(source=0, tag='end')", (0,), None)
    assert state.where.startswith(f"{__file__}:")
    assert (state.sent, state.received, state.pending_bytes) == ({0: 1}, 1, 0)
    assert (state.unclaimed, state.unclaimed_count) == (((0, "other"),), 1)
    assert state._replace(doubts=()).is_stuck  # pytest has threads and handlers of its own
    assert pickle.loads(pickle.dumps(state)) == state


def test_a_limit_of_time_is_told(ask, comm):
    state = ask(lambda: comm.recv(tag="end", timeout=50), comm)
    assert (state.call, state.peers, state.seconds) == ("recv(source=ANY_SOURCE, tag='end')", None, 50)
    assert not state.is_stuck


def test_who_does_not_wait_is_running(endpoint):
    with endpoint.lock:
        state = describe_rank(endpoint, RUN)
    assert (state.phase, state.is_stuck) == (RUNNING, False)
    assert state.where.startswith(f"{__file__}:")


class Chore:
    """A call that was started, and that can go on or not."""

    def __init__(self, due):
        self.due = due

    def advance(self):
        return False


@pytest.mark.parametrize(("due", "phase"), [(True, RUNNING), (False, WAITING)])
def test_whose_started_call_can_go_on_does_not_wait(ask, comm, due, phase):
    """It is going to send to others although its wait goes on."""
    comm.endpoint.add_chore(Chore(due))
    assert ask(lambda: comm.recv(0, "end"), comm).phase == phase


def test_what_started_calls_do_during_a_wait_is_counted(ask, comm):
    before = comm.endpoint.room.steps
    comm.ibarrier()
    assert ask(lambda: comm.recv(0, "end"), comm).steps == before + 1


def test_who_is_in_no_run_is_idle_or_has_ended():
    assert describe_idle(2, {1: 3}, 0, ended=False).phase == IDLE
    state = describe_idle(2, {1: 3}, 5, ended=True)
    assert (state.rank, state.phase, state.sent, state.pending_bytes) == (2, ENDED, {1: 3}, 5)
    assert describe_begin(4).phase == RUNNING


DOUBTS = {
    "nothing": (),
    "thread": ("it has 2 threads",),
    "loop": ("an asyncio loop runs in it", "it handles SIGINT"),  # as asyncio.run does
    "timer": ("a timer will send it a signal",),
    "handler": ("it handles SIGUSR2",),
    "ctrl-c": ("it handles SIGINT",),
    "child": ("it has 1 child process",),
    "tracker": (),
}


def test_what_may_act_besides_a_message_is_a_doubt():
    with mp.World(1) as world:
        assert {kind: world.run(hangwork.doubts, kind)[0] for kind in DOUBTS} == DOUBTS
