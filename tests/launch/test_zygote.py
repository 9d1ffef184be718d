"""launch.zygote: ranks come from a clean process, which all Worlds of a driver share."""

from __future__ import annotations

import json

import programs
import pytest
import rankwork

import klyng_mp as mp


def test_ranks_inherit_nothing_of_the_driver(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import decimal, gc, json, os, random, sys, threading, time, xml.dom.minidom
        import klyng_mp as mp

        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        memory = bytearray(200_000_000)
        decimal.getcontext().prec = 5
        sys.setrecursionlimit(5000)
        gc.disable()
        mp.added = "something"

        def look():
            import decimal
            pages = int(open("/proc/self/statm").read().split()[1])
            return [
                len(os.listdir("/proc/self/task")), pages * os.sysconf("SC_PAGE_SIZE") < 100_000_000,
                decimal.getcontext().prec, sys.getrecursionlimit(), gc.isenabled(), hasattr(mp, "added"),
                "xml.dom.minidom" in sys.modules, "memory" in globals(),
            ]

        with mp.World(2) as w:
            print(json.dumps(w.run(look)))
        """,
    )
    assert json.loads(out) == [[1, True, 28, 1000, True, False, False, False]] * 2


def test_worlds_of_a_driver_share_a_zygote(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import os
        import klyng_mp as mp
        def children():
            return len(open(f"/proc/self/task/{os.getpid()}/children").read().split())
        with mp.World(2) as one, mp.World(1) as two, mp.World(1, preload=["json"]) as three, \\
                mp.World(1, preload=["json"]) as four:
            assert [w.run(mp.rank) for w in (one, two, three, four)] == [[0, 1], [0], [0], [0]]
            print(children())
        """,
    )
    assert out == "2\n"


def test_worlds_started_by_threads_at_once(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import threading
        import klyng_mp as mp
        results = []
        def use():
            for _ in range(3):
                with mp.World(2) as w:
                    results.append(w.run(mp.rank))
        threads = [threading.Thread(target=use) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(results == [[0, 1]] * 18)
        """,
    )
    assert out == "True\n"


def test_the_next_world_has_its_own_surroundings(tmp_path):
    """Also where its ranks were made ahead of time, under those of the last one."""
    out = programs.run_script(
        tmp_path,
        """
        import json, os, resource, sys
        import klyng_mp as mp
        def look():
            return [os.getcwd(), os.environ.get("NEW"), os.environ.get("OLD"), os.popen("echo $NEW$OLD").read(),
                    sys.path[-1], sys.argv[-1], os.umask(0), sorted(os.sched_getaffinity(0)),
                    resource.getrlimit(resource.RLIMIT_NOFILE)[0]]
        os.environ["OLD"] = "old"
        with mp.World(2) as w:
            w.run(look)
        here = os.getcwd()
        os.mkdir("other"); os.chdir("other")
        del os.environ["OLD"]
        os.environ["NEW"] = "new"
        sys.path.append("/at/the/end"); sys.argv.append("last")
        os.umask(0o007)
        cpu = min(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [cpu])
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        expected = [here + "/other", "new", None, "new\\n", "/at/the/end", "last", 0o007, [cpu], 200]
        for _ in range(2):
            with mp.World(3) as w:
                for found in w.run(look):
                    assert found == expected, (found, expected)
        print("well")
        """,
    )
    assert out == "well\n"


# -- preload -------------------------------------------------------------------------------------------


def test_preloaded_modules_are_imported_once_before_ranks_are_forked(tmp_path, monkeypatch):
    (tmp_path / "costly_module.py").write_text("import os\npid = os.getpid()\nprint('imported')\n")
    out = programs.run_script(
        tmp_path,
        """
        import os, sys
        import klyng_mp as mp
        def look():
            loaded = "costly_module" in sys.modules
            import costly_module
            return loaded, costly_module.pid != os.getpid(), costly_module.pid
        with mp.World(3, preload=["costly_module"]) as w:
            found = w.run(look)
            assert [pair[:2] for pair in found] == [(True, True)] * 3, found
            assert len({pid for *_, pid in found}) == 1
            assert "costly_module" not in sys.modules
        print("well")
        """,
    )
    assert out.endswith("well\n")
    assert out.count("imported") <= 1


def test_preload_may_be_one_name():
    with mp.World(1, preload="colorsys") as world:
        assert "colorsys" in world.run(rankwork.imported)[0]
    with mp.World(1) as world:
        assert "colorsys" not in world.run(rankwork.imported)[0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True, name='watcher').start()",
         ["thread", "'watcher'", "preload='left_over'"]),
        ("raise ValueError('not today')", ["ValueError: not today", "preload='left_over'"]),
        ("import os\nos._exit(3)", ["left_over"]),
        ("import sys\nsys.exit(3)", ["left_over"]),
        ("x = = 1", ["SyntaxError"]),
    ],
)  # fmt: skip
def test_a_preload_that_leaves_a_thread_or_fails_is_refused(tmp_path, monkeypatch, source, words):
    (tmp_path / "left_over.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(mp.LaunchError) as caught:
            mp.World(2, preload=["left_over"])
        for word in words:
            assert word in str(caught.value)
    with mp.World(2) as world:
        assert world.run(rankwork.rank) == [0, 1]


def test_a_preload_that_is_fine_alone_is_not_blamed_for_blas_threads():
    """numpy starts threads by itself where nobody tells it not to."""
    with mp.World(2, preload=["numpy"]) as world:
        assert "numpy" in world.run(rankwork.imported)[0]


def test_forkserver_takes_a_preload_too(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import sys
        import klyng_mp as mp
        def look():
            return "colorsys" in sys.modules
        if __name__ == "__main__":
            with mp.World(2, method="forkserver", preload=["colorsys"]) as w:
                print(w.run(look))
        """,
    )
    assert out == "[True, True]\n"


# -- its end -------------------------------------------------------------------------------------------


def test_it_ends_with_its_driver(tmp_path):
    text = """
        import os
        import klyng_mp as mp
        mp.World(2, preload=["colorsys"]).run(len, "")
        with mp.World(2) as w:
            w.run(len, "")
        print("children:", open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
    """
    with programs.start_script(tmp_path, text) as program:
        children = program.answer("children")
        assert len(children) == 2
        assert program.finish() == 0, program.err
        assert not programs.still_there(children, 0.5)


def test_a_driver_that_never_closes_its_world_ends_nevertheless(tmp_path):
    text = """
        import os, sys
        import klyng_mp as mp
        w = mp.World(2)
        print("pids:", *w.run(os.getpid), flush=True)
        if sys.argv[1] == "busy":
            run = w.start(lambda: mp.recv(timeout=3600))
    """
    for how in ("idle", "busy"):
        with programs.start_script(tmp_path, text, how) as program:
            pids = program.answer("pids")
            assert program.finish(10) == 0, program.err
            assert program.err == ""
            assert not programs.still_there(pids)


def test_a_forked_child_of_the_driver_does_not_keep_its_ranks_alive(tmp_path):
    text = """
        import os, signal, sys
        import klyng_mp as mp
        w = mp.World(2)
        print("pids:", *w.run(os.getpid), flush=True)
        child = os.fork()
        if child == 0:
            os.close(1)
            signal.pause()
        print("child:", child, flush=True)
        signal.pause()
    """
    with programs.start_script(tmp_path, text) as program:
        pids, (child,) = program.answer("pids"), program.answer("child")
        program.process.kill()
        try:
            assert not programs.still_there(pids)
        finally:
            programs.kill(child)


def test_a_forked_child_can_have_worlds_of_its_own(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import os
        import klyng_mp as mp
        with mp.World(2) as w:
            assert w.run(mp.rank) == [0, 1]
            child = os.fork()
            if child == 0:
                with mp.World(3) as own:
                    assert own.run(mp.rank) == [0, 1, 2]
                try:
                    w.run(mp.rank)
                except mp.KlyngError:
                    os._exit(5)
                os._exit(6)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
            assert w.run(mp.rank) == [0, 1]
        print("well")
        """,
    )
    assert out == "well\n"


def test_multiprocessing_beside_a_world(tmp_path):
    """The driver's own children, its resource tracker and its waits are not disturbed."""
    out = programs.run_script(
        tmp_path,
        """
        import multiprocessing, os, subprocess
        import klyng_mp as mp
        def square(x):
            return x * x
        with mp.World(2) as w:
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(square, range(4)) == [0, 1, 4, 9]
                assert w.run(mp.rank) == [0, 1]
            assert multiprocessing.active_children() == []
            assert subprocess.run(["true"]).returncode == 0
            assert w.run(mp.rank) == [0, 1]
        try:
            while True:
                os.waitpid(-1, os.WNOHANG)[0] or exec("raise ChildProcessError")
        except ChildProcessError:
            pass
        with mp.World(2) as w:
            assert w.run(mp.rank) == [0, 1]
        print("well")
        """,
    )
    assert out == "well\n"


def test_a_driver_that_reaps_all_children_or_ignores_sigchld(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import os, signal
        import klyng_mp as mp
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        with mp.World(2) as w:
            assert w.run(mp.rank) == [0, 1]
            try:
                w.run(os._exit, 4)
            except mp.RankDiedError as error:
                assert error.exitcode == 4
            assert w.run(mp.rank) == [0, 1]
        with mp.World(2, method="fork") as w:
            assert w.run(mp.rank) == [0, 1]
        print("well")
        """,
    )
    assert out == "well\n"


def test_the_name_of_a_folder_may_be_anything(tmp_path):
    folder = tmp_path / "it's a 'folder'; with \"quotes\" ü"
    folder.mkdir()
    assert programs.run_script(folder, "import klyng_mp as mp\nwith mp.World(1) as w: print(w.run(mp.rank))") == "[0]\n"
