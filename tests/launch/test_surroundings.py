"""launch.surroundings: a rank finds what its driver had at World(); name, session and random numbers are its own."""

from __future__ import annotations

import json
import os
import signal

import programs
import pytest
import rankwork

import klyng_mp as mp

METHODS = ["zygote", "fork", "spawn", "forkserver"]

# Everything a process can see of its surroundings, as JSON.
LOOK = """
    import json, os, resource, signal, sys
    import klyng_mp as mp

    LIMITS = ["AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "STACK"]

    def look():
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
        return {
            "cwd": os.getcwd(), "path": sys.path, "argv": sys.argv, "umask": status["Umask"].strip(),
            "affinity": sorted(os.sched_getaffinity(0)),
            "environment": {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")},
            "real environment": os.popen("echo $ASKED-$OF_THE_DRIVER-$GONE").read(),
            "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in LIMITS},
            "flags": str(sys.flags), "warnings": sys.warnoptions, "executable": sys.executable,
            "prefix": sys.prefix, "version": sys.version, "encoding": sys.stdout.encoding,
            "xoptions": sorted(sys._xoptions),
        }
"""


@pytest.mark.parametrize("method", METHODS)
def test_ranks_have_what_the_driver_had_when_its_world_was_made(tmp_path, method):
    (tmp_path / "there").mkdir()
    text = (
        LOOK
        + f"""
    if __name__ == "__main__":
        os.chdir("there")
        os.umask(0o027)
        os.environ["OF_THE_DRIVER"] = "set at run time"
        del os.environ["GONE"]
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 1000))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.path.append("/of/the/driver")
        sys.argv.append("more")
        with mp.World(2, method={method!r}, env={{"ASKED": "for"}}) as w:
            mine = look()
            os.chdir("/")
            os.umask(0o022)
            os.environ["OF_THE_DRIVER"] = "too late"
            theirs = w.run(look)
        print(json.dumps([mine, *theirs]))
    """
    )
    words = ["-W", "ignore::ImportWarning"]
    script = programs.write_script(tmp_path, text)
    with programs.Program(*words, script, "one", cwd=tmp_path, env={"GONE": "x", "OF_THE_DRIVER": None}) as program:
        assert program.finish() == 0, program.err
        mine, *theirs = json.loads(program.out)
    assert len(theirs) == 2
    mine["environment"]["ASKED"] = "for"
    mine["real environment"] = "for-set at run time-\n"
    for found in theirs:
        assert {name: found[name] for name in mine if found[name] != mine[name]} == {}


@pytest.mark.parametrize("flags", [["-O"], ["-X", "utf8"], ["-X", "dev"], ["-B", "-u"], ["-I"], ["-E", "-s"]], ids=str)
def test_interpreter_flags_are_the_drivers(tmp_path, flags):
    text = (
        f"import sys; sys.path.insert(0, {str(programs.ROOT)!r})\n"
        + _plain(LOOK)
        + ("with mp.World(1) as w:\n    print(json.dumps([look(), w.run(look)[0]]))\n")
    )
    path = tmp_path / "flags.py"
    path.write_text(text)
    with programs.Program(*flags, path, cwd=tmp_path) as program:
        assert program.finish() == 0, program.err
        mine, theirs = json.loads(program.out)
    for name in ("flags", "warnings", "executable", "prefix", "encoding", "xoptions", "path"):
        assert theirs[name] == mine[name], name


def _plain(text):
    return "\n".join(line.removeprefix("    ") for line in text.splitlines()) + "\n"


def test_a_module_in_the_drivers_folder_does_not_stand_for_pythons_own(tmp_path):
    (tmp_path / "socket.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "select.py").write_text("raise RuntimeError('not this one')\n")
    text = """
        import sys
        kept = sys.path.pop(0)      # as a program that imports klyng_mp before anything of its own
        import klyng_mp as mp
        with mp.World(1) as w:
            print(w.run(mp.rank))
    """
    assert programs.run_script(tmp_path, text) == "[0]\n"


def test_what_a_rank_does_to_its_surroundings_is_its_own(tmp_path):
    with mp.World(2) as world:
        here = os.getcwd()
        assert world.run(os.chdir, "/") == [None, None]
        assert world.run(os.umask, 0) == [0o022, 0o022]
        assert os.getcwd() == here
        world.restart()
        assert world.run(os.getcwd) == [here, here]


@pytest.mark.parametrize("method", METHODS)
def test_ranks_are_named_in_ps(tmp_path, method):
    text = """
        import os, sys
        import klyng_mp as mp
        def name():
            return open("/proc/self/comm").read().strip()
        if __name__ == "__main__":
            with mp.World(3, method=sys.argv[1]) as w:
                print(w.run(name), open("/proc/self/comm").read().startswith("klyng"))
    """
    out = programs.run_script(tmp_path, text, method)
    assert out == "['klyng 0/3', 'klyng 1/3', 'klyng 2/3'] False\n"


def test_ranks_have_a_session_of_their_own():
    with mp.World(2) as world:
        sessions = world.run(os.getsid, 0)
        assert sessions == world.run(os.getpid) == world.run(os.getpgrp)


def test_ranks_inherit_no_descriptors_of_the_driver(tmp_path):
    text = """
        import os, socket, sys
        import klyng_mp as mp
        files = [open(__file__) for _ in range(5)] + [socket.socket() for _ in range(5)]
        for file in files:
            os.set_inheritable(file.fileno(), True)
        r, w = os.pipe2(0)      # inheritable, too
        def look():
            return sorted(os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
                          for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
        with mp.World(1) as world:
            found, = world.run(look)
            print(len(found) < 12, any(name.endswith("driver.py") for name in found))
        os.close(r); os.close(w)
        for file in files:
            file.close()
    """
    assert programs.run_script(tmp_path, text) == "True False\n"


def test_signals_are_pythons_in_a_rank_whatever_the_driver_did(tmp_path):
    text = """
        import signal
        import klyng_mp as mp
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
        def look():
            names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGTSTP")
            handlers = [signal.getsignal(getattr(signal, name)) for name in names]
            return [getattr(handler, "name", "own") for handler in handlers], signal.pthread_sigmask(0, [])
        for method in ("zygote", "fork"):
            with mp.World(1, method=method) as w:
                (handlers, mask), = w.run(look)
                assert mask == set(), mask
                assert handlers[0] == "own", handlers     # Python's KeyboardInterrupt
                assert handlers[1:] == ["SIG_DFL"] * 4 + ["SIG_IGN"] + ["SIG_DFL"] * 2, handlers
        print("well")
    """
    assert programs.run_script(tmp_path, text) == "well\n"


# -- random numbers -----------------------------------------------------------------------------------


def test_ranks_have_random_numbers_of_their_own():
    with mp.World(3) as world:
        found = [*world.run(rankwork.random_numbers), *world.run(rankwork.random_numbers)]
    with mp.World(3) as world:
        found += world.run(rankwork.random_numbers)
    assert len({number for pair in found for number in pair}) == 18


@pytest.mark.parametrize("method", ["zygote", "fork"])
def test_unseeded_ranks_differ_even_where_the_driver_was_seeded(tmp_path, method):
    text = """
        import random, sys
        import numpy as np
        import klyng_mp as mp
        random.seed(1); np.random.seed(1)
        def draw():
            return random.random(), float(np.random.random())
        with mp.World(3, method=sys.argv[1]) as w:
            found = [number for pair in w.run(draw) for number in pair]
        assert len(set(found)) == 6, found
        print("well")
    """
    assert programs.run_script(tmp_path, text, method) == "well\n"


def test_preloaded_modules_leave_no_common_random_numbers(tmp_path):
    text = """
        import klyng_mp as mp
        def draw():
            import random, numpy as np
            return random.random(), float(np.random.random())
        with mp.World(3, preload=["numpy", "random"]) as w:
            found = [number for pair in w.run(draw) for number in pair]
        assert len(set(found)) == 6, found
        print("well")
    """
    assert programs.run_script(tmp_path, text) == "well\n"


def test_a_seed_makes_them_repeatable_and_different_by_rank_and_run():
    found = []
    for _ in range(2):
        with mp.World(2, seed=42) as world:
            found.append([world.run(rankwork.random_numbers) for _ in range(2)])
    assert found[0] == found[1]
    assert len({number for run in found[0] for pair in run for number in pair}) == 8
    with mp.World(2, seed=43) as world:
        assert world.run(rankwork.random_numbers) != found[0][0]


def test_a_seed_holds_for_a_rank_that_was_replaced():
    with mp.World(2, seed=42) as world:
        undisturbed = [world.run(rankwork.random_numbers) for _ in range(3)]
    with mp.World(2, seed=42) as world:
        assert world.run(rankwork.random_numbers) == undisturbed[0]
        with pytest.raises(mp.RankDiedError):
            world.run(rankwork.die_in, 1, "SIGKILL")
        assert world.run(rankwork.random_numbers) == undisturbed[2]


# -- how a rank ends ------------------------------------------------------------------------------------

ENDING = """
    import atexit, os, sys, threading, time
    import klyng_mp as mp

    def prepare():
        atexit.register(lambda: print("exit function", mp.rank(), flush=False))
        gate = threading.Event()
        def late():
            gate.wait(0.3)      # until after the World was told to close
            print("thread", os.getpid() > 0)
        threading.Thread(target=late).start()
        sys.stdout.write("unfinished ")

    if __name__ == "__main__":
        with mp.World(1, method=sys.argv[1]) as w:
            w.run(prepare)
            print("(run is over)", flush=True)
        print("end", flush=True)
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_rank_ends_as_python_ends(tmp_path, method):
    out = programs.run_script(tmp_path, ENDING, method)
    assert out.replace("\n", "") == "unfinished (run is over)thread Trueexit function 0end"


def test_an_exit_function_that_fails_is_reported_and_hurts_nobody(tmp_path):
    text = """
        import atexit
        import klyng_mp as mp
        with mp.World(1) as w:
            w.run(atexit.register, divmod, 1, 0)
        print("end")
    """
    with programs.start_script(tmp_path, text) as program:
        assert program.finish() == 0
        assert program.out == "end\n"
        assert program.err.count("ZeroDivisionError") == 1


def test_sigint_between_runs_hurts_no_rank():
    with mp.World(2) as world:
        pids = world.run(os.getpid)
        for pid in pids:
            programs.kill(pid, signal.SIGINT)
        assert world.run(os.getpid) == pids
