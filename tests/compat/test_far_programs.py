"""Programs for multiprocessing print the same where their context is a World over two hosts.

What is changed in them: ``multiprocessing`` is ``klyng_mp``, what is below ``if __name__ == "__main__":`` is done with
a World, and what a context makes is made by that.
"""

from __future__ import annotations

import json
import re
import textwrap

import pytest
from beacons import Beacon, client_home
from compat import suite
from compat.test_programs import PROGRAMS, last_words, skip_without_needs

__all__ = ["client_home"]

PLACES = 4  # on each of the two hosts
GUARD = 'if __name__ == "__main__":\n'

MADE = re.compile(
    r"\bmp\.(Process|Pool|Manager|Pipe|(?:Joinable|Simple)?Queue|R?Lock|(?:Bounded)?Semaphore|Condition|Event|Barrier"
    r"|(?:Raw)?(?:Value|Array))\("
)

# Those that use something of one machine, or other contexts; and what.
ELSEWHERE = {
    "context_methods": "makes everything of the other start methods' contexts",
    "executors": "gives executors the other start methods' contexts",
    "finalizers": "what a daemonic process waits for is made by itself; and prints while its World ends",
    "freeze_and_main": "starts processes of the other start methods' contexts",
    "listeners": "has sockets and a folder of one machine",
    "numpy_arrays": "has arrays on memory that processes share",
    "pool_workers": "looks at process numbers, which two machines may have twice, and at other contexts",
    "processes": "has a subclass of mp.Process, which is of this machine",
    "remote_manager": "has a server with an address of one machine",
    "shared_memory_blocks": "has blocks of shared memory",
    "shared_values": "has structures, and looks at what is shared by get_obj()",
    "start_methods": "starts processes of the other start methods' contexts",
    "thread_pool": "starts no process",
}

# What a line says that is another one's, by the number of the line.
UNLIKE = {"locks": (-1, "what repr() says of a lock")}

pytestmark = pytest.mark.slow


def far(program):
    """Return the text with a World of the hosts in ``machines.json`` as its context."""
    above, guard, body = suite.rename(program.read_text(), suite.OURS).partition(GUARD)
    assert guard, "it has no guard"
    text = f"{above}{guard}    with mp.World(hosts='machines.json') as world:\n{textwrap.indent(body, '    ')}"
    return MADE.sub(r"world.\1(", text)


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with Beacon(tmp_path_factory.mktemp("one")) as one, Beacon(tmp_path_factory.mktemp("two")) as two:
        yield json.dumps(
            {f"{each.address}:{each.port}": {"passwd": each.password, "max_procs": PLACES} for each in (one, two)}
        )
        for each in (one, two):
            each.check_tidy()


def test_it_is_said_of_each_why_it_is_not_run():
    assert not ELSEWHERE.keys() - {program.stem for program in PROGRAMS}


@pytest.mark.parametrize(
    "program", [program for program in PROGRAMS if program.stem not in ELSEWHERE], ids=lambda path: path.stem
)
def test_a_program_prints_the_same_on_two_hosts(program, machines, client_home, run_python, tmp_path):
    skip_without_needs(program)
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "machines.json").touch(0o600)
    (folder / "machines.json").write_text(machines)
    (folder / program.name).write_text(far(program))
    ours = run_python(folder / program.name, cwd=folder, timeout=60)
    theirs = run_python(program, cwd=tmp_path, timeout=60)
    assert theirs.returncode == 0, theirs.stderr
    assert lines_of(ours.stdout, program) == lines_of(theirs.stdout, program), ours.stderr
    assert ours.returncode == theirs.returncode, ours.stderr
    assert last_words(ours.stderr) == last_words(theirs.stderr), ours.stderr


def lines_of(text, program):
    lines = text.splitlines()
    if program.stem in UNLIKE:
        del lines[UNLIKE[program.stem][0]]
    return lines
