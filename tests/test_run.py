"""run: what a function in every rank may come to: its results, or the first thing that went wrong."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
import time
import warnings

import programs
import pytest
import rankwork

import klyng_mp as mp

BLOCKED = ["recv from it", "recv from anyone", "barrier", "bcast", "irecv", "probe", "chain", "send much"]
FOLLOWING = ["raise a consequence", "give in", "return"]
BUSY = ["sleep", "compute"]
REPEATED = 50


@pytest.fixture
def world():
    with mp.World(3) as world:
        yield world
        assert world.run(rankwork.ring, "usable") == ["usable"] * 3  # whatever a test did to it


# -- results -------------------------------------------------------------------------------------------


def test_a_run_has_its_results_by_rank_for_as_long_as_one_asks(world):
    run = world.start(rankwork.rank)
    assert run.result() == [0, 1, 2]
    assert run.result() == [0, 1, 2]
    assert run.done()
    assert not run.cancel()
    following = world.start(rankwork.rank)
    assert following.result() == [0, 1, 2]
    assert following.number == run.number + 1


def test_done_turns_true_without_anyone_waiting(world, tmp_path):
    programs.make_gates(tmp_path, 3)
    run = world.start(rankwork.pass_gate, tmp_path)
    assert not run.done()
    for number in range(3):
        programs.open_gate(tmp_path, number)
    programs.wait_until(run.done)
    assert run.result(timeout=0) == [0, 1, 2]


def test_a_time_out_leaves_the_run_going(world, tmp_path):
    programs.make_gates(tmp_path, 3)
    run = world.start(rankwork.pass_gate, tmp_path)
    for seconds in (0, 0.1):
        with pytest.raises(mp.DeadlineError, match="run") as caught:
            run.result(timeout=seconds)
        assert caught.value.seconds == seconds
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, multiprocessing.TimeoutError)
    for number in range(3):
        programs.open_gate(tmp_path, number)
    assert run.result(timeout=programs.FACTOR * 20) == [0, 1, 2]


def test_a_result_that_comes_before_the_time_out_is_returned(world):
    assert world.start(rankwork.rank).result(timeout=programs.FACTOR * 20) == [0, 1, 2]


def test_threads_may_wait_for_the_same_run_one_after_another(world):
    run = world.start(rankwork.rank)
    results = []
    thread = threading.Thread(target=lambda: results.append(run.result()))
    thread.start()
    thread.join()
    assert [*results, run.result()] == [[0, 1, 2]] * 2


# -- cancel --------------------------------------------------------------------------------------------


def test_cancel_ends_the_run_and_keeps_the_ranks_that_leave_it(world, tmp_path):
    programs.make_gates(tmp_path, 3)
    before = world.run(rankwork.pid)
    run = world.start(rankwork.block_or_compute, tmp_path)
    for number in range(3):
        assert programs.read_gate(tmp_path, number) == str(before[number])
    begin = time.monotonic()
    assert run.cancel()
    assert time.monotonic() - begin < 2 * programs.FACTOR
    assert not run.cancel()
    assert run.done()
    for _ in range(2):
        with pytest.raises(mp.RunCancelledError, match="cancel"):
            run.result()
    after = world.run(rankwork.pid)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]
    assert not programs.still_there(before[1:], 0)


def test_cancel_of_a_run_that_has_hardly_begun(world):
    for _ in range(20):
        assert world.start(rankwork.block).cancel()
    assert world.run(rankwork.rank) == [0, 1, 2]


def test_cancel_after_a_time_out(world):
    run = world.start(rankwork.never_return)
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=0.05)
    assert run.cancel()


# -- a rank raises -------------------------------------------------------------------------------------


def test_the_first_failure_is_told_with_rank_host_cause_and_traceback(world):
    with pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.raise_in, 1)
    error = caught.value
    assert (error.rank, error.host) == (1, socket.gethostname())
    assert type(error.__cause__) is ValueError
    assert error.__cause__.args == ("an ordinary failure",)
    for text in (error.traceback, str(error)):
        assert "in raise_in" in text
        assert "raise ERRORS[kind]()" in text
        assert "ValueError: an ordinary failure" in text
    assert "rank 1" in str(error)
    assert "klyng_mp" not in error.traceback
    again = pickle.loads(pickle.dumps(error))
    assert (again.rank, again.host, str(again)) == (1, error.host, str(error))


@pytest.mark.parametrize(
    ("kind", "cause", "text"),
    [
        ("data", rankwork.OddError, "OddError: 13"),
        ("exit", SystemExit, "3"),
        ("interrupt", KeyboardInterrupt, "own"),
        ("base", BaseException, "base"),
        ("stop", StopIteration, "4"),
        ("mute", rankwork.MuteError, "MuteError"),
    ],
)
def test_any_exception_is_the_cause(world, kind, cause, text):
    with pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.raise_in, 2, kind)
    assert caught.value.rank == 2
    assert type(caught.value.__cause__) is cause
    assert text in str(caught.value)
    if kind == "data":
        assert caught.value.__cause__.number == 13


@pytest.mark.parametrize(("kind", "name"), [("holding", "HoldingError: held"), ("stubborn", "StubbornError: salt and")])
def test_an_exception_that_cannot_travel_arrives_as_an_error_that_says_so(world, kind, name):
    with pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.raise_in, 1, kind)
    assert caught.value.rank == 1
    assert name in str(caught.value)  # what it was is told in any case
    assert "in raise_in" in caught.value.traceback
    assert isinstance(caught.value.__cause__, (mp.CodecError, rankwork.ERRORS[kind]().__class__))
    if isinstance(caught.value.__cause__, mp.CodecError):
        assert "cannot" in str(caught.value.__cause__) or "could not" in str(caught.value.__cause__)


def test_sys_exit_without_a_code_returns_nothing(world):
    assert world.run(_leave) == [None, None, None]


def _leave():
    raise SystemExit


@pytest.mark.parametrize("others", [*BLOCKED, *FOLLOWING])
def test_a_failure_ends_the_run_whatever_the_others_wait_for(world, others):
    before = world.run(rankwork.pid)
    begin = time.monotonic()
    with pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.fail_then, 1, others)
    assert time.monotonic() - begin < 2 * programs.FACTOR
    assert (caught.value.rank, type(caught.value.__cause__)) == (1, ValueError)
    assert world.run(rankwork.pid) == before  # all have left the run, none had to be replaced


@pytest.mark.parametrize("others", BUSY)
def test_a_failure_ends_ranks_that_wait_for_nothing(world, others):
    before = world.run(rankwork.pid)
    begin = time.monotonic()
    with pytest.raises(mp.RankFailedError, match="rank 1"):
        world.run(rankwork.fail_then, 1, others)
    assert time.monotonic() - begin < 2 * programs.FACTOR
    after = world.run(rankwork.pid)
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]


@pytest.mark.parametrize("others", ["recv from it", "chain", "raise a consequence", "barrier", "send much"])
def test_never_a_consequence_but_the_first_cause(others):
    with mp.World(4) as world:
        for number in range(REPEATED if others != "send much" else 5):
            with pytest.raises(mp.RankFailedError) as caught:
                world.run(rankwork.fail_then, number % 4, others)
            assert (caught.value.rank, type(caught.value.__cause__)) == (number % 4, ValueError)


def test_survivors_have_time_for_their_finally(world, tmp_path):
    with pytest.raises(mp.RankFailedError, match="rank 0"):
        world.run(rankwork.leave_notes, tmp_path, 0.25)
    for rank in (1, 2):
        note = (tmp_path / f"note{rank}").read_text()
        assert note.startswith("0 ")  # which rank was lost
        assert "the first cause" in note  # and why


def test_but_not_for_ever(world, tmp_path):
    begin = time.monotonic()
    with pytest.raises(mp.RankFailedError, match="rank 0"):
        world.run(rankwork.leave_notes, tmp_path, 30)
    assert 0.4 < time.monotonic() - begin < 2 * programs.FACTOR
    assert not list(tmp_path.iterdir())


def test_a_failure_nobody_waited_for_is_told_when_asked(world):
    run = world.start(rankwork.raise_in, 1)
    programs.wait_until(run.done)
    assert not run.cancel()
    for _ in range(2):
        with pytest.raises(mp.RankFailedError, match="rank 1"):
            run.result()


def test_a_failure_nobody_asked_for_does_not_spoil_the_next_run(world):
    run = world.start(rankwork.raise_in, 1)
    programs.wait_until(run.done)
    assert world.run(rankwork.rank) == [0, 1, 2]
    with pytest.raises(mp.RankFailedError, match="rank 1"):
        run.result()


# -- a rank dies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", ["recv from it", "barrier", "compute", "return"])
@pytest.mark.parametrize(
    ("how", "exitcode", "words"),
    [
        ("os._exit(3)", 3, "exited with code 3"),
        ("os._exit(0)", 0, "exited with code 0"),
        ("SIGKILL", -signal.SIGKILL, "SIGKILL"),
        ("SIGSEGV", -signal.SIGSEGV, "SIGSEGV"),
        ("SIGTERM", -signal.SIGTERM, "SIGTERM"),
    ],
)
def test_a_death_is_told_soon_with_its_code_and_the_last_words(world, how, exitcode, words, others, capsys):
    before = world.run(rankwork.pid)
    begin = time.monotonic()
    with pytest.raises(mp.RankDiedError) as caught:
        world.run(rankwork.die_in, 1, how, others, "these are the last words")
    assert time.monotonic() - begin < 2 * programs.FACTOR
    error = caught.value
    assert (error.rank, error.host, error.exitcode) == (1, socket.gethostname(), exitcode)
    assert "these are the last words\n" in error.stderr
    assert words in str(error)
    assert "these are the last words" in str(error)
    after = world.run(rankwork.pid)
    assert after[1] != before[1]
    assert others == "compute" or [after[0], after[2]] == [before[0], before[2]]


@pytest.mark.parametrize("others", [*BLOCKED, *FOLLOWING])
def test_no_wait_outlives_a_dead_rank(world, others):
    begin = time.monotonic()
    with pytest.raises(mp.RankDiedError) as caught:
        world.run(rankwork.die_in, 1, "SIGKILL", others)
    assert time.monotonic() - begin < 2 * programs.FACTOR
    assert (caught.value.rank, caught.value.exitcode) == (1, -signal.SIGKILL)


def test_the_first_death_is_the_cause_however_the_others_see_it():
    with mp.World(3) as world:
        for number in range(REPEATED):
            ends = {False: (rankwork.die_in, 1, "os._exit(3)", "raise a consequence"), True: (rankwork.kill_neighbour,)}
            with pytest.raises(mp.RankDiedError) as caught:
                world.run(*ends[number % 2 == 1])
            assert (caught.value.rank, caught.value.exitcode) == (1, -signal.SIGKILL if number % 2 else 3)


@pytest.mark.slow
def test_the_first_cause_under_load():
    """The same on a machine whose every CPU is busy, where what happens is seen late and in any order."""
    loads = [multiprocessing.get_context("spawn").Process(target=rankwork.work, args=(20,)) for _ in range(4)]
    for load in loads:
        load.start()
    try:
        with mp.World(6) as world:
            for number in range(REPEATED):
                with pytest.raises(mp.RankFailedError) as failed:
                    world.run(rankwork.fail_then, number % 6, "raise a consequence")
                assert failed.value.rank == number % 6
                with pytest.raises(mp.RankDiedError) as died:
                    world.run(rankwork.die_in, number % 6, "SIGKILL", "raise a consequence")
                assert died.value.rank == number % 6
    finally:
        for load in loads:
            load.kill()
            load.join()
            load.close()


# -- what cannot travel ----------------------------------------------------------------------------------


def test_a_result_that_cannot_be_pickled_names_the_culprit(world):
    with pytest.raises(mp.KlyngError) as caught:
        world.run(rankwork.make_result, "unpicklable")
    assert "rank 1" in str(caught.value)
    assert "cannot travel" in str(caught.value)
    assert "config" in str(caught.value)
    assert "stream" in str(caught.value)


def test_a_result_that_cannot_be_unpickled_says_so(world):
    with pytest.raises(mp.KlyngError) as caught:
        world.run(rankwork.make_result, "unbuildable")
    assert "rank 1" in str(caught.value)
    assert "cannot be rebuilt" in str(caught.value)
    assert "no such thing here" in str(caught.value)


def test_an_argument_that_cannot_be_pickled_is_refused_where_it_was_given(world):
    job = rankwork.Box(config=rankwork.Box(stream=(number for number in range(3))))
    with pytest.raises(mp.CodecError, match=r"config\.stream") as caught:
        world.run(rankwork.returns, job)
    assert "config.stream" in caught.value.path
    with pytest.raises(mp.CodecError):
        world.start(rankwork.returns, value=job)


def test_an_argument_that_cannot_be_unpickled_says_so(world):
    with pytest.raises(mp.KlyngError, match="no such thing here"):
        world.run(rankwork.returns, rankwork.Unbuildable())


# -- messages ------------------------------------------------------------------------------------------


def test_two_ranks_that_send_much_at_each_other_do_not_block():
    with mp.World(2) as world:
        assert world.run(rankwork.swap, 100_000_000) == [True, True]
        assert world.run(rankwork.swap, 1_000_000, 30) == [True, True]


@pytest.mark.parametrize(
    ("dest", "tags", "text"),
    [
        (2, [7, 8, 9], "rank 2 ended with 3 unreceived messages, first: source 0, tag 7"),
        (1, ["late"], "rank 1 ended with 1 unreceived message, first: source 0, tag 'late'"),
        (0, [0, 0], "rank 0 ended with 2 unreceived messages, first: source 0, tag 0"),
    ],
)
def test_unreceived_messages_are_reported_at_the_line_that_ran(world, dest, tags, text):
    with pytest.warns(mp.UnreceivedMessagesWarning) as caught:
        assert world.run(rankwork.leave_unreceived, dest, tags) == [None] * 3
    assert [str(warning.message) for warning in caught] == [text]
    assert caught[0].filename == __file__


def test_unreceived_messages_are_not_reported_of_a_run_that_failed(world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(mp.RankFailedError):
            world.run(rankwork.send_and_fail, 1)


def test_a_program_that_receives_all_is_not_warned(world):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            world.run(rankwork.ring, os.getpid())
