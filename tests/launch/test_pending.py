"""launch.pending: whether a rank's output is on its way."""

from __future__ import annotations

import textwrap

import programs


def test_a_rank_knows_whether_its_output_is_on_its_way(tmp_path):
    """In a process of its own: the byte is the process's, and so are descriptors 1 and 2."""
    text = """
        import json, os
        from klyng_mp.launch import pending

        seen = [pending.is_quiet()]                     # nobody shares a byte
        out, out_end = os.pipe()
        report = os.dup(1)
        os.dup2(out_end, 1), os.dup2(out_end, 2)
        pending.share()
        seen.append(pending.is_quiet())                 # nothing written
        os.write(1, b"x")
        seen.append(pending.is_quiet())                 # in the pipe
        one, two = object(), object()
        pending.note(one, pending=True)
        os.read(out, 1)
        seen.append(pending.is_quiet())                 # read, and not yet forwarded
        pending.note(two, pending=True)
        pending.note(one, pending=False)
        seen.append(pending.is_quiet())                 # by another job of the same supervisor
        pid = os.fork()
        if pid == 0:
            pending.note(two, pending=False)            # what one process writes the other one sees
            os._exit(0)
        os.waitpid(pid, 0)
        seen.append(pending.is_quiet())
        os.close(1)
        seen.append(pending.is_quiet())                 # the program has closed it
        os.write(report, json.dumps(seen).encode())
    """
    assert programs.run_script(tmp_path, text) == "[false, true, false, false, false, true, false]"


def test_output_of_a_quiet_run_is_there_as_well(tmp_path):
    """What a child of the rank wrote without the interpreter's knowledge counts, too."""
    text = """
        import os, klyng_mp as mp
        def speak(number):
            os.write(1, b"%d " % number)
        with mp.World(2) as w:
            for number in range(200):
                w.run(speak, number)
                w.run(len, "")
                os.write(1, b"| ")
    """
    words = programs.run_script(tmp_path, text).replace("\n", " ").split()
    runs = " ".join(words).split("|")
    assert [run.split() for run in runs[:200]] == [[str(number)] * 2 for number in range(200)]


def test_who_waits_for_a_reader_gives_up_in_the_end(run_python):
    code = """
        import os, sys
        from klyng_mp.deadline import Deadline
        from klyng_mp.launch import pending

        ours, theirs = os.pipe()
        error = os.dup(2)
        os.dup2(theirs, 2)
        os.write(2, b"four")
        assert (pending.count_unread(2), pending.count_unread(os.open(os.devnull, os.O_WRONLY))) == (4, None)
        pending.wait_until_read(Deadline(0.01))
        assert os.read(ours, 10) == b"four"
        pending.wait_until_read(Deadline(None))
        os.dup2(error, 2)
        """
    done = run_python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
