"""remote.lookout: ranks of several hosts that wait for each other are found, and others are not."""

from __future__ import annotations

import os
import signal
import time

import hangwork
import pytest
from launch.test_watch import SHAPES
from programs import wait_until

import klyng_mp as mp
from klyng_mp.launch.control import Cause
from klyng_mp.launch.state import RUNNING, WAITING, RankState
from klyng_mp.remote.lookout import Lookout

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 4.0  # half of it is what one machine takes
SPREAD = {1: [0, 1, 0], 2: [0, 1, 1], 3: [1, 1, 1], 4: [0, 2, 2]}  # ranks here and on each of two hosts


class Hosted:
    """A host of two ranks, that keeps what it is told."""

    living = True

    def __init__(self, first):
        self.share = range(first, first + 2)
        self.told = []

    def tell(self, *record):
        self.told.append(record)


class Scene:
    """A lookout over two hosts, whose clock does not matter."""

    def __init__(self):
        self.hosts = [Hosted(0), Hosted(2)]
        self.ended = []
        self.lookout = Lookout(self.hosts, lambda run, cause: self.ended.append((run, cause)))

    def ask(self):
        """Let it ask; return the number of the question."""
        wait_until(lambda: not self.lookout.pause(10.0))
        self.lookout.look()
        (name, question, self.run), *_ = {host.told[-1] for host in self.hosts}
        assert name == "survey"
        return question

    def round(self, *states):
        question = self.ask()
        for host in self.hosts:
            self.lookout.hear(host, question, [state for state in states if state.rank in host.share])


def waits(rank, peer, **more):
    return RankState(rank, 100 + rank, WAITING, call=f"recv(source={peer})", peers=(peer,), wait=1.5, **more)


CYCLE = [waits(rank, (rank + 1) % 4) for rank in range(4)]


@pytest.fixture
def scene():
    made = Scene()
    made.lookout.begin(7)
    return made


def test_two_equal_rounds_of_all_hosts_prove_it(scene):
    scene.round(*CYCLE)
    assert scene.ended == []
    scene.round(*CYCLE)
    ((run, cause),) = scene.ended
    assert (run, scene.run, cause.kind, cause.cycle) == (7, 7, "deadlock", (0, 1, 2, 3))
    assert isinstance(cause, Cause)
    assert "rank 3 (process 103) waits in recv(source=0) for rank 0" in cause.text
    scene.lookout.look()
    assert len(scene.hosts[0].told) == 2  # it asks no more


def test_who_runs_is_no_part_of_one(scene):
    for _ in range(3):
        scene.round(*CYCLE[:3], RankState(3, 103, RUNNING))
    assert scene.ended == []


def test_who_waits_anew_is_no_part_of_one(scene):
    for number in range(3):
        scene.round(*CYCLE[:3], CYCLE[3]._replace(wait=float(number)))
    assert scene.ended == []


def test_a_message_between_hosts_is_hope_until_it_has_come(scene):
    sent = CYCLE[1]._replace(exchanged={2: (5, 4)})
    for taken in (4, 4, 4):
        scene.round(CYCLE[0], sent, CYCLE[2]._replace(exchanged={1: (4, taken)}), CYCLE[3])
    assert scene.ended == []
    scene.round(CYCLE[0], sent, CYCLE[2]._replace(exchanged={1: (4, 5)}), CYCLE[3])
    assert len(scene.ended) == 1


def test_who_does_not_know_the_sender_yet_may_still_hear_of_it(scene):
    for _ in range(3):
        scene.round(CYCLE[0], CYCLE[1]._replace(exchanged={2: (1, 0)}), *CYCLE[2:])
    assert scene.ended == []


def test_a_host_that_has_no_such_run_says_nothing(scene):
    for _ in range(3):
        scene.round(*CYCLE[:2])
    assert scene.ended == []


def test_while_a_host_has_not_answered_nobody_is_asked(scene):
    question = scene.ask()
    scene.lookout.hear(scene.hosts[0], question, CYCLE[:2])
    assert scene.lookout.pause(10.0) == 10.0
    scene.lookout.look()
    assert [len(host.told) for host in scene.hosts] == [1, 1]
    scene.lookout.hear(scene.hosts[1], question - 1, CYCLE[2:])  # of another question
    assert scene.lookout.pause(10.0) == 10.0
    scene.lookout.hear(scene.hosts[1], question, CYCLE[2:])
    assert scene.lookout.pause(10.0) < 1.0


def test_a_run_that_is_over_is_not_looked_at(scene):
    question = scene.ask()
    scene.lookout.over(6)
    scene.lookout.over(7)
    for host in scene.hosts:
        scene.lookout.hear(host, question, [state for state in CYCLE if state.rank in host.share])
    assert scene.lookout.pause(10.0) == 10.0
    scene.lookout.begin(8)
    scene.round(*CYCLE)
    assert scene.run == 8
    assert scene.ended == []


# -- real hosts ------------------------------------------------------------------------------------


def spread(size, hosts):
    counts = SPREAD[size]
    made = [{"host": "local", "max_procs": counts[0]}] if counts[0] else []
    return made + [{**host, "max_procs": count} for host, count in zip(hosts, counts[1:], strict=True) if count]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_each_deadlock_is_reported_in_time(shape, hosts, time_limit):
    size, words, cycle = SHAPES[shape]
    with mp.World(size, hosts=spread(size, hosts)) as world:
        for _ in range(2):
            assert world.run(mp.rank) == list(range(size))
            begin = time.monotonic()
            with pytest.raises(mp.DeadlockError) as caught:
                world.run(shape)
            assert time.monotonic() - begin < time_limit(LIMIT_SECONDS)
            assert [word for word in words if word not in caught.value.report] == []
            assert caught.value.cycle == cycle
        assert world.run(mp.rank) == list(range(size))


@pytest.mark.parametrize(
    "work",
    [hangwork.timer_acts, hangwork.thread_sends, hangwork.time_out],
    ids=lambda work: work.__name__,
)
def test_nothing_is_said_where_something_else_will_act(work, hosts):
    with mp.World(2, hosts=spread(2, hosts)) as world:
        first, second = world.run(work)
        assert first == second is not None


def test_nothing_is_said_of_ranks_that_compute_or_talk(hosts):
    with mp.World(3, hosts=spread(3, hosts)) as world:
        assert world.run(hangwork.computing_rank_sends, 2.5) == ["late"] * 3
    with mp.World(2, hosts=spread(2, hosts)) as world:
        assert min(world.run(hangwork.ping_pong, 2.5)) > 100


def test_a_signal_shows_what_the_ranks_of_all_hosts_do(hosts, capfd):
    with mp.World(4, hosts=spread(4, hosts)) as world:
        assert world.run(mp.rank) == [0, 1, 2, 3]
        shown = ""

        def is_shown():
            nonlocal shown
            shown += capfd.readouterr().err
            return shown.count("has nothing to do") == 4

        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(is_shown)
        assert "klyng_mp: World of 4 ranks" in shown
