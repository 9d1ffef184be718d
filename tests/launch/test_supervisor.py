"""launch.supervisor: whatever ends, all of it ends, and nothing is left of it."""

from __future__ import annotations

import signal
import time

import programs
import pytest
import rankwork

import klyng_mp as mp

# A driver whose ranks are busy in every way, and tell of themselves and of what they started.
DRIVER = """
    import os, signal, subprocess, sys, threading, time
    import klyng_mp as mp

    def wait():
        if mp.rank() == 1:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print("child:", child.pid, flush=True)
        mp.comm().barrier()
        print("up", os.getpid(), flush=True)
        if mp.rank() == 0:
            mp.recv()
        elif mp.rank() == 1:
            time.sleep(60)
        elif mp.rank() == 2:
            while True:
                pass
        else:
            while True:
                mp.send(bytes(10_000_000), 0)

    if __name__ == "__main__":
        with mp.World(4, method=sys.argv[1]) as w:
            print("ready:", *w.run(os.getpid), flush=True)
            if sys.argv[2] == "busy":
                w.run(wait)
            else:
                signal.pause()
"""


def _start(folder, method="zygote", state="busy"):
    return programs.start_script(folder, DRIVER, method, state)


def _everyone(program, state="busy"):
    pids = program.answer("ready")
    if state == "busy":
        program.wait_for("up", 4)
        pids += program.answer("child")
    assert len(pids) == (5 if state == "busy" else 4)
    return pids


@pytest.mark.parametrize("state", ["busy", "idle"])
@pytest.mark.parametrize("method", ["zygote", "fork", "spawn"])
def test_a_killed_driver_takes_its_ranks_with_it(tmp_path, method, state):
    with _start(tmp_path, method, state) as program:
        pids = [*_everyone(program, state), *programs.children_of(program.pid)]
        program.signal(signal.SIGKILL)
        assert not programs.still_there(pids)
        assert program.finish() == -signal.SIGKILL


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_so_does_one_that_ends_by_a_signal_it_does_not_catch(tmp_path, signum):
    with _start(tmp_path) as program:
        pids = [*_everyone(program), *programs.children_of(program.pid)]
        program.signal(signum)
        assert not programs.still_there(pids)


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_a_killed_zygote_takes_its_ranks_with_it(tmp_path, state):
    with _start(tmp_path, state=state) as program:
        pids = _everyone(program, state)
        programs.kill(programs.zygote_of(program.pid))
        assert not programs.still_there(pids)


def test_a_stopped_rank_dies_with_its_driver(tmp_path):
    with _start(tmp_path) as program:
        pids = _everyone(program)
        programs.kill(pids[2], signal.SIGSTOP)
        programs.wait_until(lambda: programs.state_of(pids[2]) == "T")
        program.signal(signal.SIGKILL)
        assert not programs.still_there(pids)


def test_what_a_rank_started_dies_with_it_when_it_is_killed(tmp_path):
    programs.make_gates(tmp_path, 2)
    with mp.World(2) as world:
        run = world.start(rankwork.start_child, tmp_path)
        children = [int(programs.read_gate(tmp_path, rank)) for rank in range(2)]
        assert len(programs.still_there(children, 0)) == 2
        run.cancel()
        assert not programs.still_there(children)


def test_a_zygote_that_was_killed_is_an_error_and_the_world_usable_after_it(tmp_path):
    text = """
        import os, sys
        import klyng_mp as mp
        def wait():
            print("up", os.getpid(), flush=True)
            mp.recv(timeout=3600)
        with mp.World(2) as w:
            try:
                w.run(wait)
            except mp.WorldError as error:
                print("told:", error)
            print("again", w.run(lambda: mp.rank()), flush=True)
            print("idle", flush=True)
            sys.stdin.readline()
            print("after", w.run(lambda: mp.rank()), flush=True)
    """
    with programs.start_script(tmp_path, text, stdin=-1) as program:
        program.wait_for("up", 2)
        begin = time.monotonic()
        programs.kill(programs.zygote_of(program.pid))
        assert program.answer("told")
        assert time.monotonic() - begin < 2 * programs.FACTOR
        program.wait_for("again [0, 1]")
        program.wait_for("idle")
        zygote = programs.zygote_of(program.pid)
        programs.kill(zygote)
        assert not programs.still_there([zygote])
        program.process.stdin.write(b"\n")
        program.process.stdin.flush()
        program.wait_for("after [0, 1]")
        assert program.finish() == 0, program.err


def test_a_rank_that_cannot_start_is_told_with_its_reason(tmp_path):
    text = """
        import os, tempfile
        import klyng_mp as mp
        folder = tempfile.mkdtemp()
        os.chdir(folder)
        w = mp.World(2)
        try:
            print(w.run(os.getcwd))
            os.rmdir(folder)
            w.restart()
            w.run(os.getcwd)
        except mp.LaunchError as error:
            print("told:", error)
        os.chdir("/")
        with mp.World(2) as w:
            print(w.run(mp.rank))
    """
    with programs.start_script(tmp_path, text) as program:
        assert program.finish() == 0, program.err
        assert "told: rank" in program.out
        assert "No such file or directory" in program.out
        assert program.out.endswith("[0, 1]\n")


def test_several_ranks_that_are_replaced_at_once_know_each_other(time_limit):
    with mp.World(4) as world:
        for gone in ([0, 1], [1, 2, 3], [0, 1, 2, 3], [2]):
            with pytest.raises(mp.RankDiedError):
                world.run(rankwork.die_if, gone)
            assert world.start(rankwork.ring, "x").result(timeout=time_limit(10)) == ["x"] * 4
            assert all(right for right, _ in world.start(rankwork.all_to_all).result(timeout=time_limit(10)))


def test_the_first_of_two_failures_is_the_cause():
    with mp.World(3) as world, pytest.raises(mp.RankFailedError) as caught:
        world.run(rankwork.fail_in_turn)
    assert caught.value.rank == 2


def test_of_a_death_and_a_failure_at_once_one_is_told():
    with mp.World(2) as world:
        for _ in range(20):
            with pytest.raises((mp.RankFailedError, mp.RankDiedError)) as caught:
                world.run(rankwork.fail_or_die)
            assert caught.value.rank == (0 if isinstance(caught.value, mp.RankFailedError) else 1)
            assert not isinstance(caught.value.__cause__, mp.PeerLostError)
            assert world.run(rankwork.rank) == [0, 1]


def test_an_end_is_seen_while_a_child_holds_the_ranks_output_open(tmp_path):
    """What a rank left running has its standard output too; nobody waits for that."""
    begin = time.monotonic()
    with mp.World(2) as world, pytest.raises(mp.RankDiedError) as caught:
        world.run(rankwork.leave_child_and_die, tmp_path)
    programs.kill((tmp_path / "child").read_text())
    assert time.monotonic() - begin < 2 * programs.FACTOR
    assert caught.value.exitcode == 5


def test_zombies_are_laid_to_rest(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import os
        import klyng_mp as mp
        with mp.World(3) as w:
            for _ in range(3):
                try:
                    w.run(os._exit, 1)
                except mp.RankDiedError:
                    pass
            w.run(mp.rank)
            zygote, = open(f"/proc/self/task/{os.getpid()}/children").read().split()
            ranks = open(f"/proc/{zygote}/task/{zygote}/children").read().split()
            states = [open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] for pid in ranks]
            print(len(states) >= 3, states.count("Z"))
        """,
    )
    assert out == "True 0\n"
