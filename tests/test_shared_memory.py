"""shared_memory: who makes a block answers for it, and nobody else; whatever way programs end."""

from __future__ import annotations

import multiprocessing.shared_memory
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from klyng_mp import shared_memory
from klyng_mp.shared_memory import ShareableList, SharedMemory

METHODS = ["fork", "spawn", "forkserver"]
PACKAGES = [shared_memory, multiprocessing.shared_memory]
HEAD = """
import os, signal, sys
from multiprocessing import shared_memory as standard
import klyng_mp as mp
from klyng_mp.shared_memory import ShareableList, SharedMemory
"""
FAMILY = """
def by_name(name):
    block = SharedMemory(name)
    block.buf[0] += 1
    block.close()

def as_it_is(block):
    block.buf[0] += 1

def makes(connection):
    block = SharedMemory(create=True, size=10)
    block.buf[0] = 7
    connection.send(block.name)
    connection.recv()
    block.close()
    connection.close()

if __name__ == "__main__":
    context = mp.get_context(sys.argv[1])
    block = SharedMemory(create=True, size=10)
    for target, argument in ((by_name, block.name), (as_it_is, block)):
        process = context.Process(target=target, args=(argument,))
        process.start()
        process.join()
    here, there = context.Pipe()
    process = context.Process(target=makes, args=(there,))
    process.start()
    other = SharedMemory(here.recv())
    print(block.buf[0], other.buf[0], os.path.exists("/dev/shm/" + block.name))
    other.unlink()
    other.close()
    here.send(None)
    process.join()
    block.close()
    block.unlink()
"""


def exists(name):
    return Path("/dev/shm", name).exists()


@pytest.fixture
def program(run_python):
    """Run a program of its own, with a name; return what it wrote, standard error included."""

    def run(code, name=""):
        done = run_python("-c", HEAD + code, name)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def block():
    made = SharedMemory(create=True, size=100)
    yield made
    made.close()
    with suppress(FileNotFoundError):
        made.unlink()


@pytest.mark.parametrize("method", METHODS)
def test_a_family_shares_a_block_and_no_tracker_complains(method, run_python, tmp_path):
    (tmp_path / "family.py").write_text(HEAD + FAMILY)
    done = run_python("family.py", method)
    assert (done.stdout, done.stderr) == ("2 7 True\n", "")


@pytest.mark.parametrize("end", ["", "block.close()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_who_attaches_never_removes(block, run_python, end):
    done = run_python("-c", HEAD + f"block = SharedMemory(sys.argv[1]); block.buf[1] = 5; {end}", block.name)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", -signal.SIGKILL if "KILL" in end else 0)
    assert block.buf[1] == 5
    assert exists(block.name)


@pytest.mark.parametrize("closed", ["before", "after", "never"])
@pytest.mark.parametrize("made", ["SharedMemory(create=True, size=10)", "ShareableList([1]).shm"])
def test_another_program_may_remove_it(program, made, closed):
    code = f"""
block = {made}
if {closed!r} == "before":
    block.close()
print(block.name, flush=True)
input()
if {closed!r} == "after":
    block.close()
"""
    words = [sys.executable, "-c", HEAD + code]
    with subprocess.Popen(
        words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as maker:
        name = maker.stdout.readline().strip()
        assert program("SharedMemory(sys.argv[1]).unlink()", name) == ""
        assert not exists(name)
        assert maker.communicate("\n") == ("", "")


def test_a_name_that_is_used_again_is_still_known_to_the_tracker(time_limit):
    code = """
first = SharedMemory(create=True, size=10)
SharedMemory(first.name).unlink()
second = SharedMemory(first.name, create=True, size=10)
first.close()
print(first.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    name, complaint = killed(code, time_limit)
    assert not exists(name)
    assert "1 leaked shared_memory objects" in complaint


@pytest.mark.parametrize("kind", ["SharedMemory(create=True, size=10)", "ShareableList([1, 'two'])"])
def test_a_killed_maker_leaves_nothing(kind, time_limit):
    code = f"""
made = {kind}
print(getattr(made, "shm", made).name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    name, complaint = killed(code, time_limit)
    assert not exists(name)
    assert "1 leaked shared_memory objects" in complaint


def killed(code, time_limit):
    """Return what a program that is killed has written, once its tracker has ended, too."""
    words = [sys.executable, "-c", HEAD + code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=time_limit(20), check=False)
    assert done.returncode == -signal.SIGKILL
    return done.stdout.strip(), done.stderr  # whose end is the tracker's


def test_removed_by_one_program_that_has_it_of_the_standard_module_too(block, program):
    assert program("plain = standard.SharedMemory(sys.argv[1]); SharedMemory(plain.name).unlink()", block.name) == ""
    assert not exists(block.name)


def test_a_standard_block_outlives_who_attaches_with_ours(program):
    plain = multiprocessing.shared_memory.SharedMemory(create=True, size=10)
    try:
        assert program("block = SharedMemory(sys.argv[1]); block.buf[0] = 3", plain.name) == ""
        assert plain.buf[0] == 3
        assert exists(plain.name)
    finally:
        plain.close()
        plain.unlink()


def test_the_standard_class_attaches_to_ours(block):
    plain = multiprocessing.shared_memory.SharedMemory(block.name)
    plain.buf[:2] = b"hi"
    plain.close()
    assert bytes(block.buf[:2]) == b"hi"
    assert isinstance(block, multiprocessing.shared_memory.SharedMemory)


def test_not_tracked_it_stays(program):
    name = program("print(SharedMemory(create=True, size=10, track=False).name)").strip()
    assert exists(name)
    other = SharedMemory(name, track=False)
    other.close()
    other.unlink()
    assert not exists(name)


def test_tracked_on_request_it_goes(block, program):
    assert "1 leaked shared_memory objects" in program("SharedMemory(sys.argv[1], track=True)", block.name)
    assert not exists(block.name)


def test_a_name_that_is_taken(block):
    block.buf[0] = 9
    for package in PACKAGES:
        with pytest.raises(FileExistsError):
            package.SharedMemory(block.name, create=True, size=5)
    assert exists(block.name)
    assert block.buf[0] == 9


@pytest.mark.parametrize(
    "wrong",
    [
        {"create": True, "size": -1},
        {"create": True},
        {"name": None},
        {"name": "klyng-nobody-has-this"},
        {"name": "a/b", "create": True, "size": 1},
    ],
)
def test_bad_input_is_refused_as_in_the_standard_library(wrong):
    said = []
    for package in PACKAGES:
        with pytest.raises((ValueError, OSError)) as caught:
            package.SharedMemory(**wrong)
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


def test_who_cannot_attach_destroys_nothing():
    empty = Path("/dev/shm", f"klyng-empty-{os.getpid()}")
    empty.touch()
    try:
        with pytest.raises(ValueError, match="empty"):
            SharedMemory(empty.name)
        assert empty.exists()
    finally:
        empty.unlink()


def test_removed_twice(block):
    other = SharedMemory(block.name)
    other.unlink()
    other.close()
    with pytest.raises(FileNotFoundError):
        block.unlink()


@pytest.mark.parametrize("track", [None, True, False])
def test_a_list(track):
    made = ShareableList([1, 2.5, "three", None, True, b"six"], track=track)
    other = pickle.loads(pickle.dumps(made))
    assert (type(other), type(made.shm), type(other.shm)) == (ShareableList, SharedMemory, SharedMemory)
    assert list(other) == [1, 2.5, "three", None, True, b"six"]
    other[0] = 10
    assert made[0] == 10
    assert (made.index("three"), made.count(None), len(made)) == (2, 1, 6)
    named = ShareableList(name=made.shm.name)
    assert list(named) == list(made)
    for each in (named, other, made):
        each.shm.close()
    made.shm.unlink()
    assert not exists(made.shm.name)


def test_a_list_outlives_who_attaches(program):
    made = ShareableList(["a"])
    try:
        assert program("ShareableList(name=sys.argv[1])[0] = 'b'", made.shm.name) == ""
        assert made[0] == "b"
    finally:
        made.shm.close()
        made.shm.unlink()


def test_a_block_left_to_another_tracker(block):
    tracker = shared_memory.adopt(block.name)
    block.leave_to(tracker)
    assert block._track, "it is the same tracker"
    block.leave_to("another")
    assert not block._track
