"""launch.link: what a rank learns of the others, and what becomes of its messages when they end."""

from __future__ import annotations

import os
import pickle
import socket

import programs
import pytest
import rankwork

import klyng_mp as mp
from klyng_mp import native
from klyng_mp.communicator.current import set_current
from klyng_mp.launch.channel import Channel
from klyng_mp.launch.link import make_link
from klyng_mp.launch.spec import RankSpec
from klyng_mp.launch.surroundings import Place
from klyng_mp.wire.codec import Codec


def test_ranks_without_the_core_are_connected_when_they_first_talk():
    with mp.World(4, env={native.VARIABLE: "0"}) as world:
        alone = world.run(rankwork.count_sockets)
        assert world.run(rankwork.talk_in_pairs) == [1, 0, 3, 2]
        paired = world.run(rankwork.count_sockets)
        # Two that call at once make a connection each.
        assert {two - one for one, two in zip(alone, paired, strict=True)} <= {1, 2}
        assert all(right for right, _ in world.run(rankwork.all_to_all))
        everyone = world.run(rankwork.count_sockets)
        assert {two - one for one, two in zip(alone, everyone, strict=True)} <= {3, 4, 5, 6}


@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
def test_a_rank_that_only_sends_asks_for_each_bell_and_keeps_one():
    """Its peer sleeps before each message, so each has to wake it."""
    with mp.World(2) as world:
        before = world.run(rankwork.count_descriptors)
        world.run(rankwork.send_to_a_sleeper, 300)
        after = world.run(rankwork.count_descriptors)
        assert all(0 <= more - few <= 1 for few, more in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(native.core is None, reason="the native core is not in use")
def test_ranks_of_a_large_world_that_all_talk_have_few_descriptors():
    with mp.World(200) as world:
        assert all(right for right, _ in world.run(rankwork.all_to_all))
        assert max(world.run(rankwork.count_descriptors)) < 250


def test_both_may_call_at_once_and_nothing_is_lost():
    for _ in range(10):
        with mp.World(4) as world:  # new ranks, that nobody has introduced yet
            assert all(right for right, _ in world.run(rankwork.all_to_all))


def test_messages_keep_their_order_across_the_introduction():
    for _ in range(15):
        with mp.World(2) as world:  # new ranks, that nobody has introduced yet
            assert world.run(rankwork.send_in_order, 200) == [list(range(200))] * 2


def test_what_was_sent_arrives_however_long_its_sender_computes_then(tmp_path):
    programs.make_gates(tmp_path, 2)
    with mp.World(2) as world:
        run = world.start(rankwork.send_and_compute, tmp_path)
        assert programs.read_gate(tmp_path, 1) == "heard"
        run.cancel()


def test_a_rank_that_was_replaced_can_be_talked_to_at_once():
    with mp.World(3) as world:
        for _ in range(5):
            with pytest.raises(mp.RankDiedError):
                world.run(rankwork.die_in, 2, "SIGKILL")
            assert all(right for right, _ in world.run(rankwork.all_to_all))


def test_an_error_of_a_lost_peer_travels(tmp_path):
    with mp.World(2) as world, pytest.raises(mp.RankFailedError):
        world.run(rankwork.leave_error, tmp_path)
    error = pickle.loads((tmp_path / "error").read_bytes())
    assert isinstance(error, mp.PeerLostError)
    assert isinstance(error, EOFError)
    assert isinstance(error, BrokenPipeError)
    assert error.rank == 1
    assert "ValueError: the first cause" in error.reason
    assert "recv" in str(error)  # what it was doing


def test_communicators_do_not_outlive_a_fork_of_their_rank():
    with mp.World(2) as world:
        assert world.run(rankwork.use_in_forked_child) == ["ForkedError", "ForkedError"]
        assert world.run(rankwork.ring, 1) == [1, 1]


def test_signals_that_a_rank_handles_do_not_disturb_its_messages():
    with mp.World(2) as world:
        assert world.run(rankwork.talk_under_signals, 300) == [300 * 299 // 2] * 2


def test_ranks_may_catch_the_loss_and_send_to_others_no_more():
    """A run that is ending lets nobody talk: what comes late would be a consequence."""
    with mp.World(3) as world, pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.talk_on_after_loss)
    assert caught.value.rank == 0


def test_ctrl_c_is_pythons_in_a_run_and_nobodys_between():
    with mp.World(1) as world:
        assert world.run(rankwork.interrupt_self) == ["KeyboardInterrupt"]


def test_an_interrupt_while_a_rank_leaves_its_run_does_nothing():
    with mp.World(2) as world, pytest.raises(mp.RankFailedError, match="ValueError: meant") as caught:
        world.run(rankwork.fail_before_an_interrupt)
    assert "KeyboardInterrupt" not in str(caught.value)


def test_a_rank_whose_endpoint_is_spoilt_says_of_no_run_that_it_is_over():
    """Its end says so, and it is replaced; else the next run would begin with it."""
    channel, supervisor = Channel.pair()
    place = Place(RankSpec(1, "here"), 0, 1, {}, channel)
    place.driver, driver = socket.socketpair()
    link = make_link(place, Codec(main_by_reference=True))
    above = Channel(supervisor)
    assert above.receive_now()[0] == ("ready",)
    above.send("abort", 1, None, "was ended")
    link.endpoint.progress()
    assert above.receive_now()[0] == ("ended", 1)
    reader, writer = os.pipe()
    link.endpoint.watch(reader, lambda _: 1 / 0)
    os.write(writer, b"x")
    with pytest.raises(ZeroDivisionError):
        link.endpoint.progress()
    link.endpoint.unwatch(reader)
    above.send("abort", 2, None, "was ended")
    above.send("relayed", 0, "which call", 0, 0)
    link.endpoint.progress()  # as the thread does that takes in what comes from other hosts
    assert above.receive_now()[0][0] == "relay"
    link.endpoint.close()
    set_current(None)
    for one in (channel, above, driver):
        one.close()
    for fd in (reader, writer):
        os.close(fd)
