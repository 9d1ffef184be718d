"""launch.rank: what a warm rank does between two runs, and what stays of a run in it."""

from __future__ import annotations

import sys

import asyncwork
import programs
import pytest
import rankwork

import klyng_mp as mp


def test_a_rank_is_clean_of_the_driver():
    with mp.World(1) as world:
        (modules,) = world.run(rankwork.imported)
        assert "rankwork" in modules
        assert not {"pytest", "_pytest", "test_rank"} & set(modules)
        assert "pytest" in sys.modules


def test_a_rank_has_one_thread_and_no_child():
    with mp.World(2) as world:
        world.run(rankwork.ring, 1)
        assert world.run(rankwork.threads_and_children) == [(1, 0)] * 2


def test_the_communicator_is_new_in_each_run_and_gone_between():
    with mp.World(2) as world:
        world.run(rankwork.keep_communicator)
        assert world.run(rankwork.use_kept_communicator) == ["a new one", "a new one"]


def test_mp_functions_are_those_of_the_run():
    with mp.World(3) as world:
        assert world.run(mp.rank) == [0, 1, 2]
        assert world.run(mp.size) == [3, 3, 3]


def test_klyngs_own_shape_works_in_a_world():
    with mp.World(2) as world:
        assert world.run(rankwork.klyng_program, 4) == [5, 4]
        assert world.run(rankwork.klyng_program, 7) == [8, 7]  # after mp.end() of the run before


@pytest.mark.parametrize("code", [None, 0])
def test_sys_exit_without_an_error_ends_the_function_only(code):
    with mp.World(2) as world:
        pids = world.run(rankwork.pid)
        assert world.run(sys.exit, code) == [None, None]
        assert world.run(rankwork.pid) == pids


@pytest.mark.parametrize("code", [3, "a reason"])
def test_sys_exit_with_an_error_is_a_failure(code):
    with mp.World(2) as world:
        with pytest.raises(mp.RankFailedError, match=str(code)) as caught:
            world.run(sys.exit, code)
        assert caught.value.__cause__.code == code


def test_ssend_to_a_rank_that_has_returned_fails():
    def hand_over():
        if mp.rank() == 0:
            try:
                mp.comm().ssend("x", 1)
            except mp.PeerLostError as error:
                return str(error)
        return None

    with mp.World(2) as world:
        for _ in range(20):
            with pytest.warns(mp.UnreceivedMessagesWarning):
                (said, _) = world.run(hand_over)
            assert said == "rank 1 has returned without receiving this message; this rank was in ssend(dest=1, tag=0)"


def test_a_failure_is_seen_before_what_it_does_to_ssend():
    def fail():
        if mp.rank() == 0:
            mp.comm().ssend("x", 1)
        raise ValueError("mine")

    with mp.World(2) as world:
        for _ in range(20):
            with pytest.raises(mp.RankFailedError, match="ValueError: mine") as caught:
                world.run(fail)
            assert caught.value.rank == 1


def test_a_coroutine_function_runs_in_an_event_loop():
    with mp.World(2) as world:
        assert world.run(asyncwork.returns_later, "x") == ["x", "x"]
        for results in (world.run(asyncwork.exchange_and_tick), world.start(asyncwork.exchange_and_tick).result(60)):
            assert [got for got, _ in results] == [list(range(100))] * 2
            assert all(ticks > 0 for _, ticks in results)


def test_a_loop_that_sleeps_is_woken_by_a_message():
    """Nothing else wakes it: a bell that is not rung would be the end of this test."""
    with mp.World(2) as world:
        assert world.run(asyncwork.await_late, 20) == [20, 20]


def test_what_a_coroutine_raises_fails_the_run_and_ends_other_awaits():
    with mp.World(3) as world:
        pids = world.run(rankwork.pid)
        with pytest.raises(mp.RankFailedError, match="ValueError: mine") as caught:
            world.run(asyncwork.fail_while_others_await)
        assert caught.value.rank == 1
        assert "fail_while_others_await" in caught.value.traceback
        assert world.run(rankwork.pid) == pids
        assert world.run(asyncwork.exchange_and_tick)[2:] == [([], 0)]


def test_a_thread_that_a_run_left_goes_on_in_the_next(tmp_path):
    programs.make_gates(tmp_path, 1)
    with mp.World(1) as world:
        assert world.run(rankwork.start_thread, tmp_path) == [True]
        assert world.run(rankwork.thread_is_alive) == [True]
        programs.open_gate(tmp_path, 0)
        assert world.run(rankwork.join_thread) == [0]


def test_several_threads_of_a_rank_talk_at_once():
    with mp.World(2) as world:
        assert world.run(rankwork.talk_in_threads, 8, 50) == [8 * sum(range(50))] * 2


def test_a_fork_server_or_pool_of_multiprocessing_works_in_a_rank():
    with mp.World(2) as world:
        assert world.run(rankwork.use_pool) == [[0, 1, 4], [0, 1, 4]]


def test_output_of_a_run_is_flushed_with_it(capsys):
    with mp.World(1) as world:
        world.run(rankwork.write_without_newline, "no end")
        assert capsys.readouterr().out == "no end"


def test_recursion_and_memory_errors_are_failures_like_any():
    with mp.World(2) as world:
        for kind, function in ((RecursionError, rankwork.recurse), (MemoryError, rankwork.exhaust)):
            with pytest.raises(mp.RankFailedError) as caught:
                world.run(function)
            assert type(caught.value.__cause__) is kind
        assert world.run(rankwork.rank) == [0, 1]


def test_a_group_of_exceptions_keeps_its_parts():
    with mp.World(1) as world:
        with pytest.raises(mp.RankFailedError) as caught:
            world.run(rankwork.raise_group)
        group = caught.value.__cause__
        assert isinstance(group, ExceptionGroup)
        assert [type(part) for part in group.exceptions] == [ValueError, KeyError]
        assert group.__notes__ == ["a note"]


def test_nobody_uses_the_cpu_while_waiting():
    with mp.World(2) as world:
        before = world.run(rankwork.cpu_seconds)
        run = world.start(rankwork.block)
        with pytest.raises(mp.DeadlineError):
            run.result(timeout=1)
        run.cancel()
        after = world.run(rankwork.cpu_seconds)
        assert max(two - one for one, two in zip(before, after, strict=True)) < 0.1
