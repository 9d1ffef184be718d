"""launch.watch: runs whose ranks wait for each other end with a report; runs that only seem to do, do not."""

from __future__ import annotations

import os
import re
import signal
import time

import hangwork
import programs
import pytest

import klyng_mp as mp
from klyng_mp import native

pytestmark = pytest.mark.slow

LIMIT_SECONDS = 2.0

# Of each way to hang: ranks, words that the report has, and the cycle.
SHAPES = {
    hangwork.cycle_of_two: (3, ["recv(source=1, tag=5) for rank 1", "rank 2 (", "has ended"], (0, 1)),
    hangwork.cycle_of_all: (4, ["recv(source=1, tag='next') for rank 1", "recv(source=0, tag='next')"], (0, 1, 2, 3)),
    hangwork.missing_sender: (3, ["recv(source=2, tag=7) for rank 2 (which has ended)"], ()),
    hangwork.wrong_tag: (2, ["recv(source=1, tag='x')", "did not ask for: a message from rank 1 with tag 'y'"], (0, 1)),
    hangwork.wrong_source: (3, ["recv(source=2, tag=3)", "a message from rank 1 with tag 3", "barrier()"], (0, 2)),
    hangwork.one_in_a_barrier: (2, ["barrier() for rank 1", "recv(source=0, tag=1)"], (0, 1)),
    hangwork.one_ended: (3, ["barrier() for rank", "rank 1 (process", "has ended"], ()),
    hangwork.anyone: (3, ["recv(source=ANY_SOURCE, tag=ANY_TAG) for any rank"], ()),
    hangwork.itself: (1, ["the only rank waits for itself", "recv(source=0, tag=4) for itself"], (0,)),
    hangwork.requests: (3, ["waitall of 2 requests for ranks 1, 2"], (0, 1)),
    hangwork.probe: (2, ["probe(source=1, tag=2)", "recv(source=0, tag=2)"], (0, 1)),
    hangwork.into_memory: (2, ["recv_into(source=1, tag=8)"], (0, 1)),
    hangwork.large_messages_unasked: (2, ["recv(source=1, tag=2)", "a message from rank 1 with tag 1"], (0, 1)),
}


@pytest.fixture(params=["core", "pure"])
def core(request):
    """Give the environment of ranks with and without the core."""
    if request.param == "core" and native.core is None:
        pytest.skip("the native core is not in use")
    return {native.VARIABLE: "1" if request.param == "core" else "0"}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_each_deadlock_is_reported_in_time(shape, core, time_limit):
    size, words, cycle = SHAPES[shape]
    with mp.World(size, env=core) as world:
        world.run(mp.rank)  # it is up
        begin = time.monotonic()
        with pytest.raises(mp.DeadlockError) as caught:
            world.run(shape)
        assert time.monotonic() - begin < time_limit(LIMIT_SECONDS)
        report = caught.value.report
        assert [word for word in words if word not in report] == []
        assert [rank for rank in range(size) if f"rank {rank} (process " not in report] == []
        assert re.search(rf"at {re.escape(hangwork.__file__)}:\d+ in {shape.__name__}", report)
        assert re.search(r"since \d\d:\d\d:\d\d \(\d\.\d s\)", report)
        assert caught.value.cycle == cycle
        named = " -> ".join(f"rank {rank}" for rank in (*cycle, *cycle[:1]))
        assert report.endswith(f"cycle: {named}") if cycle else "cycle:" not in report
        assert world.run(mp.rank) == list(range(size))


@pytest.mark.parametrize("shape", ["cycle_of_two", "anyone", "wrong_tag"])
def test_the_command_reports_it_and_exits_with_1(tmp_path, shape, core, time_limit):
    script = programs.write_script(tmp_path, f"import hangwork\nhangwork.{shape}()\n")
    path = {"PYTHONPATH": f"{programs.ROOT}:{programs.ROOT / 'tests'}"}
    begin = time.monotonic()
    with programs.Program("-m", "klyng_mp", "-n", "3", script, cwd=tmp_path, env={**core, **path}) as program:
        assert program.finish() == 1
        assert time.monotonic() - begin < time_limit(LIMIT_SECONDS + 1.0)  # the command has to start, too
        assert "klyng-mp: all ranks" in program.err
        assert f"in {shape}" in program.err
        assert "rank 2 (" in program.err
        assert ("has ended" in program.err) == (shape == "cycle_of_two")
        assert "Traceback" not in program.err


def test_what_blocks_ranks_then_raises(tmp_path):
    def wait(path):
        try:
            mp.recv(1 - mp.rank())
        except mp.PeerLostError as error:
            (path / f"told{mp.rank()}").write_text(str(error))
            raise

    with mp.World(2) as world, pytest.raises(mp.DeadlockError):
        world.run(wait, tmp_path)
    for rank in range(2):
        told = (tmp_path / f"told{rank}").read_text()
        assert told.startswith("every other rank waits, too, or has ended, and nothing is on its way")


def test_a_run_after_a_deadlock_may_deadlock_again():
    with mp.World(2) as world:
        for _ in range(3):
            with pytest.raises(mp.DeadlockError):
                world.run(hangwork.cycle_of_two)
            assert world.run(mp.rank) == [0, 1]


# -- no false alarm ------------------------------------------------------------------------------------


def test_nothing_is_said_of_ranks_that_compute(core):
    with mp.World(3, env=core) as world:
        assert world.run(hangwork.computing_rank_sends, 2.5) == ["late"] * 3
        world.run(hangwork.all_compute, 1.0)


def test_nothing_is_said_of_ranks_that_compute_for_long(core):
    with mp.World(3, env=core) as world:
        assert world.run(hangwork.computing_rank_sends, 10.0) == ["late"] * 3


@pytest.mark.parametrize(
    "work",
    [
        hangwork.thread_sends,
        hangwork.task_sends,
        hangwork.timer_acts,
        hangwork.child_acts,
        hangwork.time_out,
        hangwork.left_thread_sends,
        hangwork.child_world_acts,
    ],
    ids=lambda work: work.__name__,
)
def test_nothing_is_said_where_something_else_will_act(work):
    with mp.World(2) as world:
        first, second = run_unspoilt(world, work)
        assert first == second is not None


def run_unspoilt(world, work):
    """Run it again if its signal came just while messages were moved, which spoils a rank."""
    try:
        return world.run(work)
    except mp.RankFailedError as error:
        if "interrupted this rank while it moved messages" not in error.traceback:
            raise
    return world.run(work)


def test_nothing_is_said_where_a_signal_handler_will_act(tmp_path, time_limit):
    programs.make_gates(tmp_path, 1)
    with mp.World(2) as world:
        run = world.start(hangwork.handler_acts, tmp_path)
        assert programs.read_gate(tmp_path, 0) == "ready"
        with pytest.raises(mp.DeadlineError):
            run.result(timeout=hangwork.SECONDS)
        # On a busy machine a rank may not answer in time, and is shown as one that computes.
        programs.wait_until(lambda: "cannot tell whether it waits in vain: it handles SIGUSR2" in world.report())
        programs.kill((tmp_path / "pid").read_text(), signal.SIGUSR2)
        assert run.result(timeout=time_limit(10)) == ["woken"] * 2


def test_a_loop_that_a_wait_blocks_is_a_reason_to_doubt():
    with mp.World(2) as world:
        run = world.start(hangwork.loop_is_blocked, 0)
        with pytest.raises(mp.DeadlineError):
            run.result(timeout=hangwork.SECONDS)
        programs.wait_until(lambda: "an asyncio loop runs in it" in world.report())
        run.cancel()


def test_nothing_is_said_of_ranks_that_wait_for_the_driver():
    with mp.World(2) as world:
        world.run(mp.rank)
        deadline = time.monotonic() + hangwork.SECONDS
        programs.wait_until(lambda: time.monotonic() > deadline)
        programs.wait_until(lambda: world.report().count("has nothing to do") == 2)
        assert world.run(mp.rank) == [0, 1]


def test_nothing_is_said_of_ranks_that_talk(core):
    with mp.World(2, env=core) as world:
        assert min(world.run(hangwork.ping_pong, 2.5)) > 100


def test_an_idle_world_is_not_asked(tmp_path):
    with mp.World(2) as world:
        pids = world.run(os.getpid)
        begin = time.monotonic()
        programs.wait_until(lambda: time.monotonic() > begin + 1.0)  # the one question that they keep has come
        before = [_wakeups(pid) for pid in pids]
        begin = time.monotonic()
        programs.wait_until(lambda: time.monotonic() > begin + 2.5)
        spent = time.monotonic() - begin
        # They wake once a second by themselves, in case that a signal was not seen, and would be asked every 0.4 s.
        assert all(_wakeups(pid) - earlier <= spent + 1 for pid, earlier in zip(pids, before, strict=True))


def _wakeups(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


# -- on demand -----------------------------------------------------------------------------------------


def test_a_report_shows_who_waits_and_where_others_compute(tmp_path):
    programs.make_gates(tmp_path, 1)
    with mp.World(3) as world:
        run = world.start(hangwork.wait_and_compute, tmp_path)
        assert programs.read_gate(tmp_path, 0) == "ready"
        programs.wait_until(lambda: "waits in recv(source=1, tag='never') for rank 1" in world.report())
        report = world.report()
        assert "<World of 3 ranks, running>" in report
        assert re.search(r"rank 1 \(process \d+\) computes.*\n    at .*hangwork.py:\d+ in compute\n", report)
        assert "rank 2 (process" in report
        run.cancel()


def test_a_signal_shows_the_report_of_a_driver(tmp_path):
    text = """
        import signal, sys
        import hangwork, klyng_mp as mp
        from pathlib import Path
        with mp.World(3) as w:
            run = w.start(hangwork.wait_and_compute, Path(sys.argv[1]))
            try:
                run.result()
            except KeyboardInterrupt:
                print("interrupted")
    """
    programs.make_gates(tmp_path, 1)
    path = {"PYTHONPATH": f"{programs.ROOT}:{programs.ROOT / 'tests'}"}
    with programs.start_script(tmp_path, text, tmp_path, env=path) as program:
        assert programs.read_gate(tmp_path, 0) == "ready"
        program.signal(signal.SIGUSR1)
        programs.wait_until(lambda: "in compute" in program.err)
        program.signal(signal.SIGINT)
        program.finish()
        assert program.err.startswith("klyng_mp: World of 3 ranks\n  rank 0 (process ")


def test_a_handler_of_the_users_own_wins(tmp_path):
    text = """
        import signal, os
        seen = []
        signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
        import klyng_mp as mp
        with mp.World(1) as w:
            w.run(mp.rank)
            os.kill(os.getpid(), signal.SIGUSR1)
            w.run(mp.rank)
        print(seen)
    """
    assert programs.run_script(tmp_path, text) == "[1]\n"


def test_a_closed_world_has_nothing_to_report():
    with mp.World(1) as world:
        world.run(mp.rank)
    with pytest.raises(mp.ClosedError):
        world.report()
