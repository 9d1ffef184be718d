"""launch.job: a driver's end of its ranks: what it starts, what it hears, and what it leaves when it goes."""

from __future__ import annotations

import os
import threading

import programs
import pytest
import rankwork

import klyng_mp as mp
from klyng_mp.deadline import Deadline
from klyng_mp.launch.job import LocalJob
from klyng_mp.launch.spec import RankSpec
from klyng_mp.machine import hostname


@pytest.fixture
def job():
    job = LocalJob(RankSpec(2, hostname()), "zygote", (), label=False)
    yield job
    job.dispose()


def test_a_job_that_is_given_up_leaves_nothing(job):
    fds = len(os.listdir("/proc/self/fd"))
    other = LocalJob(RankSpec(3, hostname()), "zygote", (), label=False)
    other.dispose()
    other.dispose()  # again: harmless
    assert len(os.listdir("/proc/self/fd")) == fds


def test_killed_ranks_are_closed(job):
    job.kill()
    job.wait(lambda: job.closed, Deadline(20 * programs.FACTOR), "the test")
    assert job.closed


def test_closed_ranks_end_by_themselves(job):
    job.close()
    job.wait(lambda: job.closed, Deadline(20 * programs.FACTOR), "the test")
    assert job.closed
    assert job.lost is None


def test_a_driver_without_a_descriptor_to_spare_is_told(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import gc, os, resource
        import klyng_mp as mp
        with mp.World(1) as w:
            w.run(len, "")
        used = len(os.listdir("/proc/self/fd"))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for spare in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                with mp.World(4) as w:
                    w.run(mp.rank)
                    print("worked")
                    break
            except (mp.KlyngError, OSError) as error:
                pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with mp.World(4) as w:
            print(w.run(mp.rank))
        gc.collect()
        print(len(os.listdir("/proc/self/fd")) - used)
        """,
    )
    assert out in ("worked\n[0, 1, 2, 3]\n0\n", "[0, 1, 2, 3]\n0\n")


def test_ranks_that_cannot_all_be_made_are_told_and_none_is_left(tmp_path):
    text = """
        import resource
        import klyng_mp as mp
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))    # the zygote may not raise it
        for size in (30, 30, 12):
            try:
                with mp.World(size) as w:
                    w.run(mp.rank)
            except (mp.WorldError, OSError) as error:
                print("told:", error)
    """
    out = programs.run_script(tmp_path, text)
    assert out.count("told: ") == 3
    assert out.count("open files") == 3


def test_the_driver_may_change_its_folder_and_path_later(tmp_path, monkeypatch):
    with mp.World(2) as world:
        here = os.getcwd()
        monkeypatch.chdir(tmp_path)
        assert world.run(os.getcwd) == [here, here]
        with pytest.raises(mp.RankDiedError):
            world.run(rankwork.die_in, 1, "SIGKILL")
        assert world.run(os.getcwd) == [here, here]  # the replacement, too


def test_a_world_made_in_one_thread_is_closed_in_another():
    made = []
    thread = threading.Thread(target=lambda: made.append(mp.World(2)))
    thread.start()
    thread.join()
    with made[0] as world:
        assert world.run(rankwork.rank) == [0, 1]


def test_a_world_outlives_the_thread_that_made_it(tmp_path):
    """Ranks are on the driver's leash, not on a thread's."""
    worlds = []

    def make():
        worlds.append(mp.World(2))
        worlds[0].run(rankwork.pid)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with worlds[0] as world:
        pids = world.run(rankwork.pid)
        assert programs.still_there(pids, 0.3) == pids
        assert world.run(rankwork.pid) == pids


def test_an_exit_function_of_the_driver_may_still_use_its_world(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import atexit
        import klyng_mp as mp
        w = mp.World(2)
        @atexit.register
        def last():
            print(w.run(mp.rank))
        """,
    )
    assert out == "[0, 1]\n"
