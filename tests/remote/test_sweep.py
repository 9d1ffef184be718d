"""remote.sweep: whatever is below a process can be ended, also what has cut itself loose."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from klyng_mp.remote.sweep import children_of

PROGRAM = """
    import os, signal, sys
    from klyng_mp.remote.sweep import become_subreaper, children_of, sweep

    become_subreaper()
    ready, tell = os.pipe()

    def loosen(depth):
        # A daemon as they are made: a session of its own, a second fork, no signal that is polite.
        if os.fork():
            return
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if depth:
            loosen(depth - 1)
            loosen(depth - 1)
        os.write(tell, b"x")
        if depth % 2:
            os._exit(0)
        signal.pause()

    spared = os.fork()
    if not spared:
        signal.pause()
    loosen(3)
    seen = b""
    while len(seen) < 15:
        seen += os.read(ready, 100)
    killed = sweep(frozenset([spared]))
    print(killed >= 5, children_of(os.getpid()) == [spared])
    os.kill(spared, signal.SIGKILL)
    print(sweep())
    print(children_of(os.getpid()))
"""


def test_daemons_and_their_daemons_are_ended_and_who_is_spared_is_not(run_python, tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    done = run_python("program.py")
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "True True"
    assert done.stdout.splitlines()[2] == "[]"


def test_children_are_those_of_all_threads():
    pid = os.fork()
    if not pid:
        os._exit(0)
    try:
        assert pid in children_of(os.getpid())
    finally:
        os.waitpid(pid, 0)
    assert pid not in children_of(os.getpid())
    assert children_of(int(Path("/proc/sys/kernel/pid_max").read_text()) + 1) == []
