"""One collective call: how its steps are taken, and how a rank learns that others disagree."""

from __future__ import annotations

import pytest
from contracts.ranks import LIMIT, Background, ranks, when_waiting

from klyng_mp import native
from klyng_mp.communicator.call import Call, Packed
from klyng_mp.communicator.calls import make_tag
from klyng_mp.errors import ClosedError, DeadlineError, PeerLostError
from klyng_mp.wire.frames import make_context


@pytest.fixture
def pair():
    with ranks(2, "memory") as made:
        yield made


def test_steps_are_sent_what_they_ask_for(pair):
    def to_and_fro(call):
        call.send(["first", call.rank], 1 - call.rank)
        got = yield 1 - call.rank
        call.send_packed(call.pack({"second": got}), 1 - call.rank)
        packed = yield call.as_it_comes(1 - call.rank)
        assert type(packed) is Packed
        return call.open(packed)

    def body(comm):
        call = Call(comm, "barrier", LIMIT)
        return call.run(to_and_fro(call))

    assert pair.run(body) == [{"second": ["first", 0]}, {"second": ["first", 1]}]


def test_all_steps_share_one_deadline(pair):
    def two_steps(call):
        yield 1
        yield 1

    one, other = pair.comms
    waiting = when_waiting(one.endpoint)
    call = Call(one, "bcast", 0.05, 1)
    assert call.doing == "bcast(root=1)"
    steps = Background(lambda: call.run(two_steps(call)))
    assert waiting.wait(LIMIT)
    sender = Call(other, "bcast", None, 1)
    sender.send("x", 0)
    with pytest.raises(DeadlineError, match=r"bcast\(root=1\) did not finish within 0\.05 s"):
        steps.result()
    assert call.deadline.left() == 0


def test_calls_are_counted_if_they_are_made(pair):
    one, _ = pair.comms
    assert [Call(one, "barrier", None).number for _ in range(3)] == [0, 1, 2]
    for timeout, error in (("soon", TypeError), (float("nan"), ValueError)):
        with pytest.raises(error):
            Call(one, "barrier", timeout)
    assert Call(one, "barrier", None).number == 3
    one.close()
    with pytest.raises(ClosedError, match=r"barrier\(\) cannot be done"):
        Call(one, "barrier", None)


def test_what_ended_with_an_error_meets_nobody(pair):
    """After a deadline the other rank's late message is no quarrel, and does not answer the next call."""
    one, other = pair.comms
    with pytest.raises(DeadlineError):
        one.allgather("in vain", timeout=0)
    assert other.allgather("late", timeout=LIMIT) == ["in vain", "late"]
    for _ in range(3):
        assert pair.run(lambda comm: comm.allgather(comm.rank)) == [[0, 1]] * 2
    assert one.endpoint.statistics().waiting == 1  # it stays until the run is over
    assert pair.endpoints[0].begin_run(one.context + (1 << 32))[0].tag == make_tag(0, "allgather")
    assert one.endpoint.statistics().waiting == 0


# -- barriers of ranks that share memory -------------------------------------------------------------------


@pytest.fixture
def meeting_pair():
    if native.core is None:
        pytest.skip("the native core is not in use")
    with ranks(2, "shm") as made:
        yield made


def test_a_barrier_of_a_run_that_is_over_is_refused(meeting_pair):
    one, _ = meeting_pair.comms
    one.endpoint.begin_run(make_context(2))
    with pytest.raises(ClosedError, match=r"a run that has ended, so barrier\(\) cannot be done"):
        one.barrier(timeout=LIMIT)


def test_a_barrier_that_was_interrupted_in_its_sleep_is_left(meeting_pair, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    one, other = meeting_pair.comms
    monkeypatch.setattr(type(one.endpoint), "nap", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.barrier()
    other.barrier(timeout=LIMIT)
    one.endpoint.progress()
    assert not one.endpoint.port.has_news()  # else it would never sleep again
    assert one.call_log.abandoned == {0}


def test_nobody_sleeps_until_a_rank_comes_that_is_known_to_be_gone(meeting_pair, monkeypatch):
    one, _ = meeting_pair.comms
    one.endpoint.mark_lost(1, "was killed")
    monkeypatch.setattr(type(one.endpoint), "nap", lambda *_: pytest.fail("nothing would wake it"))
    with pytest.raises(PeerLostError, match="rank 1 was killed"):
        one.barrier()
